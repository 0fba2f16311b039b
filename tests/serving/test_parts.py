"""Small parts of the server."""

import base64
import hashlib
import io
import re

import numpy as np
import pytest
from PIL import Image

from tests.pictures import encode
from tf_detreg.serving import search
from tf_detreg.serving.gallery import Gallery, jpeg
from tf_detreg.serving.settings import Settings


@pytest.mark.parametrize(
    ("there", "asked", "found"),
    [
        ({5}, "5", 5),
        ({"5"}, "5", "5"),
        ({5, "5"}, "5", "5"),  # the text is what was asked for
        ({-3}, "-3", -3),
        ({3}, "--3", "--3"),
        ({3}, "٣", "٣"),
        (set(), "5", "5"),
        ({10**20}, "1" + 20 * "0", "1" + 20 * "0"),
        ({"a"}, "a", "a"),
    ],
)
def test_a_text_of_digits_may_be_an_integer_id(there, asked, found):
    gallery = Gallery.__new__(Gallery)
    gallery.index = there
    known = gallery._known(asked)
    assert known == found and type(known) is type(found)


def test_two_servers_do_not_share_a_port_of_grpc():
    grpc_api = pytest.importorskip("tf_detreg.serving.grpc_api")
    options = dict(grpc_api._options(Settings(max_body=123, header_timeout=1.5, poll=0)))
    assert options["grpc.so_reuseport"] == 0
    assert options["grpc.max_receive_message_length"] == 123 and options["grpc.server_handshake_timeout_ms"] == 1500
    assert options["grpc.max_metadata_size"] == options["grpc.absolute_max_metadata_size"] > 0


@pytest.mark.parametrize(
    ("size", "side", "shown"),
    [
        ((400, 300), 1000, (400, 300)),
        ((50, 40), 1000, (450, 360)),
        ((10, 5), 100, (100, 50)),
        ((80, 60), 100, (80, 60)),
    ],
)
def test_tiny_pictures_are_enlarged_by_whole_numbers(size, side, shown, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    (tmp_path / "x.png").write_bytes(encode(pixels))
    assert Image.open(io.BytesIO(jpeg(str(tmp_path / "x.png"), side))).size == shown


def test_nothing_runs_in_the_page_but_its_style_and_its_script():
    page, policy = search._page()
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.+?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'; " in policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert {name for name, what in rules.items() if what == "'none'"} == {
        "default-src",
        "base-uri",
        "form-action",
        "frame-ancestors",
    }
    assert rules["connect-src"] == "'self'" and "unsafe" not in policy
