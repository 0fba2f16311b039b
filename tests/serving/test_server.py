"""The local server answers as TensorFlow Serving does, searches, and keeps its limits."""

import asyncio
import base64
import concurrent.futures
import io
import json
import os
import shutil
import time
import weakref

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from starlette.testclient import TestClient

from tests import needs
from tests.serving.conftest import png
from tf_detreg import export, retrieval
from tf_detreg.serving.app import Settings, create_app
from tf_detreg.serving.gallery import Gallery, jpeg
from tf_detreg.serving.model import ModelDirectory

PREDICT = "/v1/models/colours:predict"


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app) as client:
        yield client


class Light(tf.Module):
    """The signatures of an export around next to nothing: to load one that decodes images takes seconds."""

    @tf.function(input_signature=[tf.TensorSpec((None, 16, 16, 3), tf.float32, name="images")])
    def serving_default(self, images):
        return {"embeddings": tf.reduce_mean(images, (1, 2))}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve_bytes(self, image_bytes):
        count = tf.size(image_bytes)
        return {"embeddings": tf.zeros((count, 3)), "valid": tf.fill([count], True)}


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """A folder of one version, for tests of what surrounds the model."""
    folder, module = tmp_path_factory.mktemp("light") / "colours", Light()
    signatures = {name: getattr(module, name) for name in ("serving_default", "serve_bytes")}
    tf.saved_model.save(module, str(folder / "1"), signatures)
    return folder


@pytest.fixture(scope="module")
def vectors(embedder, pictures):
    return np.asarray(embedder(pictures.astype(np.float32)))


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


@pytest.mark.parametrize("path", [PREDICT, "/v1/models/colours/versions/1:predict"])
def test_float_images_by_row_and_by_column(client, pictures, vectors, path):
    rows = pictures[:3].astype(float).tolist()
    got = client.post(path, json={"instances": rows}).json()["predictions"]
    np.testing.assert_allclose(got, vectors[:3], atol=1e-5)
    got = client.post(path, json={"instances": [{"images": row} for row in rows]}).json()["predictions"]
    np.testing.assert_allclose(got, vectors[:3], atol=1e-5)
    got = client.post(path, json={"inputs": rows}).json()["outputs"]
    np.testing.assert_allclose(got, vectors[:3], atol=1e-5)
    got = client.post(path, json={"inputs": {"images": rows}}).json()["outputs"]
    np.testing.assert_allclose(got, vectors[:3], atol=1e-5)


def test_bytes_with_a_broken_row(client, pictures, vectors):
    rows = [b64(png(pictures[0])), b64(b"no image"), b64(png(pictures[9]))]
    ask = {"signature_name": "serve_bytes", "instances": rows}
    first, broken, last = client.post(PREDICT, json=ask).json()["predictions"]
    assert (first["valid"], broken["valid"], last["valid"]) == (True, False, True)
    assert not np.any(broken["embeddings"])
    np.testing.assert_allclose([first["embeddings"], last["embeddings"]], vectors[[0, 9]], atol=1e-5)
    columns = client.post(PREDICT, json={"signature_name": "serve_bytes", "inputs": {"image_bytes": rows}}).json()
    assert columns["outputs"]["valid"] == [True, False, True]
    assert client.post(PREDICT, json={"signature_name": "serve_bytes", "instances": []}).json() == {"predictions": []}


def test_base64_as_mail_programs_and_browsers_write_it(client, pictures, vectors):
    content = png(pictures[3])
    forms = base64.encodebytes(content).decode(), base64.b64encode(content).decode().rstrip("=")
    for form in (*forms, forms[0].replace("\n", "\r\n ")):
        ask = {"signature_name": "serve_bytes", "instances": [{"b64": form}]}
        (row,) = client.post(PREDICT, json=ask).json()["predictions"]
        np.testing.assert_allclose(row["embeddings"], vectors[3], atol=1e-5)


def test_no_signature_name_and_an_empty_one_are_the_default(client, pictures):
    ask = {"instances": [pictures[0].tolist()]}
    plain = client.post(PREDICT, json=ask).json()
    for name in ("", None, "serving_default"):
        assert client.post(PREDICT, json={**ask, "signature_name": name}).json() == plain


def test_a_thousand_rows_in_one_request(client, pictures, vectors):
    ask = {"signature_name": "serve_bytes", "instances": [b64(png(pictures[row % 40])) for row in range(1000)]}
    rows = client.post(PREDICT, json=ask).json()["predictions"]
    np.testing.assert_allclose([row["embeddings"] for row in rows], np.resize(vectors, (1000, 8)), atol=1e-5)


def test_status_and_metadata(client):
    state = client.get("/v1/models/colours").json()["model_version_status"]
    assert state == [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]
    assert client.get("/v1/models/colours/versions/1").json()["model_version_status"] == state
    signatures = client.get("/v1/models/colours/metadata").json()["metadata"]["signature_def"]["signature_def"]
    images = signatures["serving_default"]["inputs"]["images"]
    assert images["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in images["tensor_shape"]["dim"]] == ["-1", "16", "16", "3"]
    assert signatures["serve_bytes"]["outputs"]["valid"]["dtype"] == "DT_BOOL"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "JSON Parse error"),
        (b"[" * 200_000, "JSON Parse error"),
        (b"\xff\xfe", "JSON Parse error"),
        (b"[1]", "JSON object"),
        (b"{}", "exactly one of"),
        (b'{"instances": 3}', "must be a list"),
        (b'{"instances": [[1, 2], [3]]}', "ragged"),
        (b'{"instances": [[1, 2], [3, 4]]}', "shape"),
        (b'{"instances": ["text"]}', "must hold numbers"),
        (b'{"instances": [true]}', "must hold numbers"),
        (b'{"instances": [{"pictures": 1}]}', "must name the inputs"),
        (b'{"inputs": {"pictures": 1}}', "must name"),
        (b'{"signature_name": 3, "instances": []}', "must be a string"),
        (b'{"signature_name": "serve_bytes", "instances": [3]}', "b64"),
        (b'{"signature_name": "serve_bytes", "instances": [{"b64": "***"}]}', "base64"),
        (b'{"signature_name": "serve_bytes", "inputs": 7}', "list of strings"),
        (b'{"signature_name": "serve_bytes", "instances": [{"b64": "AAAAA"}]}', "base64"),
        (b'{"signature_name": "serve_bytes", "instances": [{"b64": "\xc3\xa4\xc3\xa4"}]}', "base64"),
        (b'{"instances": [NaN', "JSON Parse error"),
    ],
)
def test_bad_predict_requests_say_why(client, body, says):
    response = client.post(PREDICT, content=body)
    assert response.status_code == 400
    assert says in response.json()["error"]


def test_what_is_not_there(client):
    def says(code, method, path, **content):
        answer = client.request(method, path, **content)
        assert answer.status_code == code, path
        return answer.json()["error"]

    ask = {"signature_name": "serve_music", "instances": []}
    assert "not found in signature def" in says(400, "POST", PREDICT, json=ask)
    assert says(404, "GET", "/v1/models/other") == "Servable not found for request: Latest(other)"
    assert "Latest(other)" in says(404, "POST", "/v1/models/other:predict", json={"instances": []})
    assert "Specific(colours, 2)" in says(404, "GET", "/v1/models/colours/versions/2")
    assert "Specific(colours, 2)" in says(404, "POST", "/v1/models/colours/versions/2:predict", content=b"{}")
    for number in ("9" * 5000, "9" * 20, "x", "-1", "²"):
        assert "to numeric" in says(400, "GET", f"/v1/models/colours/versions/{number}")
    for path in ("/thumbnails/40", "/neighbors/40", "/pictures/40", "/items/40", "/items/" + "9" * 5000, "/items/²"):
        assert "no such item" in says(404, "GET", path)
    for path in ("/nothing", "/v1", "/v1/models", "/v1/models/colours/", "/v1/models/colours/nothing"):
        assert says(404, "GET", path) == f"Malformed request: GET {path}"
    for method, path in (("GET", PREDICT), ("PUT", PREDICT), ("POST", "/v1/models/colours"), ("GET", "/search")):
        assert says(405, method, path) == f"Malformed request: {method} {path}"
    assert "Malformed" in says(404, "POST", "/v1/models/colours:classify", content=b"{}")


@pytest.mark.parametrize(
    "path", ["/thumbnails/../../etc/passwd", "/thumbnails/%2e%2e%2fetc%2fpasswd", "/thumbnails/-1", "//etc/passwd"]
)
def test_no_path_leads_to_the_file_system(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert b"root:" not in response.content


def test_search_finds_the_picture_itself_and_its_class(client, pictures):
    answer = client.post("/search?k=5", content=png(pictures[12])).json()
    assert answer["matches"][0]["id"] == "item 12"
    assert {match["label"] for match in answer["matches"]} == {"green"}
    assert answer["matches"][0]["score"] == pytest.approx(1.0, abs=1e-3)
    for path in ("neighbors", "neighbours"):  # the second is its name in 0.1.0
        more = client.get(f"/{path}/12?k=4").json()
        assert more["item"]["id"] == "item 12"
        assert [match["id"] for match in more["matches"]] == [match["id"] for match in answer["matches"][1:]]
    assert len(client.get("/neighbors/12?k=100").json()["matches"]) == 39
    for path in ("thumbnails", "pictures"):
        picture = client.get(f"/{path}/{answer['matches'][0]['item']}")
        assert picture.headers["content-type"] == "image/jpeg"
        assert picture.headers["cache-control"] == "private, max-age=3600"
        assert picture.content[:2] == b"\xff\xd8"


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff\xe0 half a JPEG"])
def test_what_is_no_image_is_refused(client, content):
    response = client.post("/search", content=content)
    assert response.status_code == 422
    assert "not an image" in response.json()["error"]


@pytest.mark.parametrize("k", ["0", "101", "-1", "x", "1e3", "", "²", "9" * 5000])
def test_k_has_limits(client, pictures, k):
    assert client.post(f"/search?k={k}", content=png(pictures[0])).status_code == 400


def test_large_bodies_are_cut_off(client):
    assert client.post("/search", content=bytes(2_000_001)).status_code == 413
    endless = (bytes(100_000) for _ in range(1000))
    assert client.post(PREDICT, content=endless).status_code == 413


@pytest.mark.parametrize("path", [PREDICT, "/v1/models/colours/versions/1:predict", "/search"])
def test_a_client_that_leaves_is_counted(app, client, path):
    """It declares more than it sends; nobody is there to read an answer, which the metrics have all the same."""
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 499
    endpoint = "search" if path == "/search" else "predict"
    assert f'tf_detreg_requests_total{{code="499",endpoint="{endpoint}"}}' in client.get("/metrics").text


def test_no_answer_may_be_taken_for_another_type(client, pictures):
    answers = [client.get(path) for path in ("/", "/health", "/metrics", "/v1/models/colours", "/thumbnails/0")]
    answers += [client.post(PREDICT, json={"instances": [pictures[0].tolist()]}), client.post(PREDICT, content=b"{")]
    assert [answer.status_code for answer in answers] == [200] * 6 + [400]
    assert {answer.headers["x-content-type-options"] for answer in answers} == {"nosniff"}
    assert answers[-2].headers["content-type"] == "application/json"


def test_page_health_and_metrics(client):
    page = client.get("/")
    assert "Search with a picture" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy and page.headers["referrer-policy"] == "no-referrer"
    assert client.get("/health").json() == {"status": "ok", "model": "colours", "version": 1}
    assert client.get("/about").json()["items"] == 40
    counted = client.get("/metrics").text
    assert 'tf_detreg_requests_total{code="422",endpoint="search"}' in counted
    assert "tf_detreg_model_version 1.0" in counted


def test_a_crowd_is_served_in_batches(client, pictures, vectors):
    contents = [png(picture) for picture in pictures]

    def ask(row):
        body = {"signature_name": "serve_bytes", "instances": [b64(contents[row])]}
        return client.post(PREDICT, json=body).json()["predictions"][0]["embeddings"]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        got = list(pool.map(ask, range(40)))
    np.testing.assert_allclose(got, vectors, atol=1e-5)


def test_a_slow_model_times_out_and_a_long_queue_is_refused(light, pictures):
    model = ModelDirectory(light)
    run = model.current.run
    model.current.run = lambda *arguments: (time.sleep(0.4), run(*arguments))[1]
    ask = {"instances": [pictures[0].tolist()]}
    with TestClient(create_app(model, settings=Settings(timeout=0.1, poll=0))) as client:
        assert client.post(PREDICT, json=ask).status_code == 504
    with TestClient(create_app(model, settings=Settings(waiting_rows=1, workers=1, batch_rows=1, poll=0))) as client:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.post(PREDICT, json=ask), range(8)))
        codes = {answer.status_code for answer in answers}
        assert codes == {200, 503}
        assert next(answer for answer in answers if answer.status_code == 503).headers["retry-after"] == "1"


def test_names_that_are_no_unicode_are_answered(served, index):
    names = [os.fsdecode(b"caf\xe9 %d.jpg" % row) for row in range(40)]
    found = retrieval.Index(index.embeddings, names, [{"label": name} for name in names], index.fingerprint)
    with TestClient(create_app(served, Gallery(found), Settings(poll=0))) as client:
        match = client.get("/items/3").json()
    assert match["id"] == match["label"] == r"caf\xe9 3.jpg"


def test_no_request_builds_a_tree(served, pictures, embedder, monkeypatch):
    needs.scann()
    monkeypatch.setattr("tf_detreg.index.searching.SCANN_FROM", 1000)
    rows = np.random.default_rng(0).standard_normal((1500, 8))
    large = retrieval.Index(rows, fingerprint=export.fingerprint(embedder))
    large.tune()  # for 10 neighbors, as by default
    gallery = Gallery(large, [None] * 1500)
    monkeypatch.setattr("tf_detreg.retrieval.approximate.calibrate", lambda *_, **__: pytest.fail("a tree is built"))
    with TestClient(create_app(served, gallery, Settings(poll=0))) as client:
        for k in (12, 100):
            assert len(client.post(f"/search?k={k}", content=png(pictures[0])).json()["matches"]) == k


def test_without_a_gallery(served):
    with TestClient(create_app(served, settings=Settings(poll=0))) as client:
        assert client.get("/about").json()["items"] == 0
        assert "no gallery" in client.post("/search", content=b"x").json()["error"]


def test_a_gallery_of_another_model_is_refused(served, index):
    foreign = retrieval.Index(index.embeddings, fingerprint="0123456789abcdef")
    with pytest.raises(ValueError, match="another model"):
        create_app(served, Gallery(foreign))
    with pytest.raises(ValueError, match="one an item"):
        Gallery(index, pictures=["one.png"])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no numbered model version"):
        ModelDirectory(tmp_path)


def add_version(folder, target, number):
    """Publish what was exported once under another number, in one step."""
    shutil.copytree(folder / "1", target / f"tmp-{number}")
    (target / f"tmp-{number}").rename(target / str(number))


def test_a_newer_version_is_taken_over_and_a_broken_one_is_not(light, tmp_path, caplog):
    add_version(light, tmp_path / "m", 1)
    model = ModelDirectory(tmp_path / "m")
    assert not model.refresh()
    add_version(light, tmp_path / "m", 2)
    assert model.refresh()
    assert model.current.number == 2
    (tmp_path / "m" / "3").mkdir()
    assert not model.refresh()
    assert model.current.number == 2
    assert caplog.text.count("version 2 keeps serving") == 1
    assert not model.refresh()
    assert caplog.text.count("version 2 keeps serving") == 1


def test_the_version_before_serves_when_the_newest_is_removed(light, tmp_path):
    for number in (1, 2, 3):
        add_version(light, tmp_path / "m", number)
    model = ModelDirectory(tmp_path / "m")
    with TestClient(create_app(model, settings=Settings(poll=0.05))) as client:
        for removed, left in ((3, 2), (1, 2), (2, 2)):  # the last one serves on, whatever becomes of its folder
            shutil.rmtree(tmp_path / "m" / str(removed))
            end = time.monotonic() + 600  # the machine may do other work
            while client.get("/health").json()["version"] != left:
                assert time.monotonic() < end
                time.sleep(0.05)
            ask = {"instances": np.zeros((1, 16, 16, 3)).tolist()}
            assert client.post(f"/v1/models/m/versions/{left}:predict", json=ask).is_success
            assert client.post("/v1/models/m/versions/3:predict", json=ask).status_code == 404


def test_a_version_that_no_longer_serves_leaves_memory(light, tmp_path):
    add_version(light, tmp_path / "m", 1)
    model = ModelDirectory(tmp_path / "m")
    with TestClient(create_app(model, settings=Settings(poll=0.05))) as client:
        assert client.post("/v1/models/m:predict", json={"instances": np.zeros((1, 16, 16, 3)).tolist()}).is_success
        first = weakref.ref(model.current.signatures["serve_bytes"].graph)  # in cycles: only the collector frees it
        add_version(light, tmp_path / "m", 2)
        end = time.monotonic() + 600  # the machine may do other work
        while client.get("/health").json()["version"] == 1 or first() is not None:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_unreadable_pictures_are_left_out(index, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    gallery = Gallery(index, [str(tmp_path / "text.png")] * 39 + [None])
    assert gallery.samples(3) == []
    assert not gallery.search(index.embeddings[:1], 2)[0]["picture"]
    assert json.dumps(gallery.search(index.embeddings[:1], 2))


def test_a_picture_of_a_kind_that_pillow_does_not_read_has_no_thumbnail(tmp_path):
    file = tmp_path / "texture.dds"
    Image.new("RGB", (8, 8)).save(file)
    content = bytearray(file.read_bytes())
    content[80:88] = (4).to_bytes(4, "little") + b"NEW!"  # a compression by name, which Pillow does not know
    file.write_bytes(content)
    with pytest.raises(NotImplementedError):
        Image.open(file)
    assert jpeg(file, 160) is None


def test_thumbnails_show_what_the_model_sees(tmp_path):
    grey = np.full((40, 40), 100 * 257, np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    for name, level in (("grey.png", 100), ("clear.png", 255)):
        small = Image.open(io.BytesIO(jpeg(tmp_path / name, 40)))
        np.testing.assert_allclose(np.asarray(small), level, atol=2)
