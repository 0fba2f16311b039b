"""What `serve` makes of its arguments, and what it says; nothing is loaded and nothing listens."""

import asyncio
import types

import numpy as np
import pytest

from tf_detreg.index import Index, Shards, splitting
from tf_detreg.serving import server

uvicorn = pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from tf_detreg.serving import app, gallery, model  # noqa: E402 - they need the extra as well


@pytest.fixture
def serve(monkeypatch):
    """`serve`, returning what it passes on."""
    seen = {}

    class Server:
        def __init__(self, config):
            seen["config"] = config

        async def startup(self, sockets=None):
            pass

        def run(self):
            asyncio.run(self.startup())

    def create_app(model, gallery, settings, *, grpc_address):
        seen.update(model=model, gallery=gallery, settings=settings, grpc=grpc_address)
        return "the application"

    monkeypatch.setattr(uvicorn, "Server", Server)
    monkeypatch.setattr(
        model, "ModelDirectory", lambda path, name: types.SimpleNamespace(path=path, name=name or "colours")
    )
    monkeypatch.setattr(gallery, "Gallery", lambda opened, pictures: (opened, pictures))
    monkeypatch.setattr(app, "create_app", create_app)
    monkeypatch.setattr(server, "http_config", lambda *arguments, **options: (arguments, options))

    def call(*arguments, **options):
        server.serve(*arguments, **options)
        return types.SimpleNamespace(**seen)

    return call


def test_what_is_not_said_has_its_default(serve, capsys):
    seen = serve("models/colours", grpc_port=0)
    assert (seen.model.path, seen.gallery, seen.grpc) == ("models/colours", None, None)
    assert seen.settings == app.Settings(allowed_hosts=server.host_names("127.0.0.1"))
    assert seen.config == (("the application", seen.settings), {"host": "127.0.0.1", "port": 8501})
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[-3:]] == [
        ["Ready", "http://127.0.0.1:8501/"],
        ["REST", "http://127.0.0.1:8501/v1/models/colours:predict"],
        ["gRPC", "off"],
    ]


def test_every_argument_arrives(serve, capsys, monkeypatch):
    monkeypatch.setattr(server, "_grpc_address", lambda host, port: f"{host} {port}")
    index, token = object(), "0123456789abcdefg"
    asked = {
        "allowed_hosts": ["a.example"],
        "cors_origins": ["https://b.example"],
        "timeout": 3.5,
        "write_token": token,
    }
    more = {"pictures": ["a.png"], "host": "::1", "port": 9, "grpc_port": 10, "name": "other", "max_body": 10**9}
    seen = serve("models/colours", index, **asked, **more)
    assert (seen.model.name, seen.gallery, seen.grpc) == ("other", (index, ["a.png"]), "::1 10")
    # All bodies together may be as large as one.
    assert seen.settings == app.Settings(**asked, max_body=10**9, max_bodies=10**9)
    assert seen.config == (("the application", seen.settings), {"host": "::1", "port": 9})
    said = capsys.readouterr().out
    assert "http://[::1]:9/v1/models/other:predict" in said and "::1 10" in said


def test_a_folder_of_shards_is_opened_as_an_index_is(serve, tmp_path):
    whole = Index(np.eye(4), ["a", "b", "c", "d"])
    splitting.split(whole, tmp_path / "shards", 2)
    whole.save(tmp_path / "whole")
    for name, kind in (("whole", Index), ("shards", Shards)):
        with serve("models/colours", tmp_path / name, grpc_port=0).gallery[0] as opened:
            assert isinstance(opened, kind) and len(opened) == 4
    (tmp_path / "shards" / "index-00001-of-00002").rename(tmp_path / "away")
    with pytest.raises(ValueError, match="with 1 of 2: index-00001-of-00002 is not there"):
        serve("models/colours", tmp_path / "shards", grpc_port=0)


def test_an_index_that_is_none_is_refused_before_the_model_is_loaded(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "ModelDirectory", lambda path, name: pytest.fail("the model is loaded"))
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="is not an index"):
        serve("models/colours", tmp_path / "run", grpc_port=0)


def test_who_serves_a_run_is_told_how_its_model_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"no numbered model version\. .* in them\.$"):
        model.ModelDirectory(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"It is a run: `tf-detreg export .* --format saved_model` writes its model\.$"
    ):
        model.ModelDirectory(tmp_path)
