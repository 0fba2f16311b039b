"""A server whose index changes: by others, and by clients that have the token."""

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.serving.conftest import png
from tf_detreg import export, retrieval
from tf_detreg.index import Index
from tf_detreg.serving.app import Settings, create_app
from tf_detreg.serving.gallery import Gallery

TOKEN = "a-token-of-many-characters"
ALLOWED = {"Authorization": f"Bearer {TOKEN}"}
RED = np.full((16, 16, 3), (225, 25, 25), np.uint8)


@pytest.fixture
def place(index, tmp_path):
    return index.save(tmp_path / "i")


def serving(served, place, token=TOKEN):
    settings, gallery = Settings(max_body=2_000_000, poll=0, write_token=token), Gallery(Index.load(place))
    client = TestClient(create_app(served, gallery, settings))
    client.gallery = gallery
    return client


@pytest.fixture
def client(served, place):
    with serving(served, place) as client:
        yield client


def nearest(client, picture, k=3):
    return client.post(f"/search?k={k}", content=png(picture)).json()["matches"]


def test_what_others_change_is_seen_by_the_next_request(client, place, embedder, pictures, index):
    first = nearest(client, RED, 1)[0]
    other = Index.load(place)
    path = str(index.metadata("item 5")["path"])
    vectors = np.asarray(embedder(np.stack([RED, RED]).astype(np.float32)))
    other.add(vectors[:1], ["new/é"], [{"label": "new", "path": path}])
    found = nearest(client, RED, 2)[0]
    assert (found["id"], found["label"], found["item"], found["picture"]) == ("new/é", "new", 40, True)
    assert client.get("/about").json()["items"] == 41
    assert client.get("/thumbnails/40").headers["content-type"] == "image/jpeg"
    assert client.get("/pictures/40").is_success and client.get("/items/40").json()["path"] == path
    assert client.get("/neighbors/40?k=2").json()["matches"][0]["id"] == first["id"]
    # Numbers stay; what is gone is gone.
    other.remove(["item 0", "new/é"])
    assert nearest(client, RED, 1)[0] == first
    for gone in (0, 40, 41):
        assert client.get(f"/items/{gone}").status_code == client.get(f"/thumbnails/{gone}").status_code == 404
    assert client.get(f"/items/{first['item']}").json()["id"] == first["id"]
    other.upsert(vectors[1:], ["item 39"], [{"label": "replaced"}])
    replaced = client.get("/items/39").json()
    assert (replaced["label"], replaced["picture"]) == ("replaced", False)
    other.compact()
    assert client.get("/items/39").json() == replaced and nearest(client, RED, 1)[0]["id"] == "item 39"
    assert len(nearest(client, RED, 100)) == 39


def test_an_index_of_another_model_is_no_longer_searched(client, place):
    other = Index.load(place)
    vectors = other.embeddings.copy()
    foreign = Index(vectors, other.ids, fingerprint="0123456789abcdef")
    foreign.save(place)
    answer = client.post("/search", content=png(RED))
    assert answer.status_code == 503 and "another model" in answer.json()["error"]


def test_an_emptied_index_answers_with_nothing(client, place):
    other = Index.load(place)
    other.remove(other.ids)
    assert nearest(client, RED) == [] and client.get("/about").json()["samples"] == []


def test_an_item_is_put_found_replaced_and_deleted(client, place):
    url = "/items/mug%2F1%20%C3%A9"
    facts = {"label": "mug", "price": 7}
    form = {"files": {"image": png(RED)}, "data": {"metadata": json.dumps(facts)}}
    answer = client.put(url, headers=ALLOWED, **form)
    assert (answer.status_code, answer.json()) == (201, {"id": "mug/1 é", "item": 40, "replaced": False})
    assert Index.load(place).metadata("mug/1 é") == facts
    assert nearest(client, RED, 1)[0]["id"] == "mug/1 é" and client.get("/items/40").json()["metadata"] == {
        "price": "7"
    }
    answer = client.put(url + '?metadata={"label":"cup"}', headers=ALLOWED, content=png(255 - RED))
    assert (answer.status_code, answer.json()["replaced"]) == (200, True)
    assert Index.load(place).metadata("mug/1 é") == {"label": "cup"} and len(Index.load(place)) == 41
    assert nearest(client, RED, 1)[0]["id"] != "mug/1 é"
    assert client.delete(url, headers=ALLOWED).json() == {"id": "mug/1 é", "removed": True}
    assert client.delete(url, headers=ALLOWED).status_code == 404
    assert len(Index.load(place)) == 40


def test_an_integer_id_is_put_by_its_digits(served, place, embedder):
    made = Index(np.asarray(embedder(RED[None].astype(np.float32))), [7], fingerprint=export.fingerprint(embedder))
    made.save(place)
    with serving(served, place) as client:
        assert client.put("/items/7", headers=ALLOWED, content=png(RED)).json()["replaced"]
        assert client.put("/items/8", headers=ALLOWED, content=png(RED)).status_code == 201
        assert client.delete("/items/7", headers=ALLOWED).is_success
    assert Index.load(place).ids == ["8"]


def test_a_change_that_takes_long_holds_up_no_other_request(served, place, monkeypatch):
    """While another thread holds the index, as a large change does, requests that need it wait; the others do not."""
    entered, fingerprints = threading.Event(), Gallery.fingerprints.fget
    with serving(served, place) as client, ThreadPoolExecutor(3) as pool:
        monkeypatch.setattr(Gallery, "fingerprints", property(lambda self: entered.set() or fingerprints(self)))
        for ask in (
            lambda: client.post("/search", content=png(RED)),
            lambda: client.put("/items/x", headers=ALLOWED, content=png(RED)),
            lambda: client.delete("/items/x", headers=ALLOWED),
        ):
            entered.clear()
            with client.gallery.index._store._lock:
                waiting = pool.submit(ask)
                assert entered.wait(20)
                try:
                    assert pool.submit(client.get, "/health").result(10).is_success
                finally:
                    held = not waiting.done()
            assert held and waiting.result(20).is_success


def test_an_item_that_is_removed_while_it_is_asked_for_is_not_there(served, place, monkeypatch):
    has = Gallery.has
    with serving(served, place) as client:
        for number, url in enumerate(("/items/{}", "/neighbors/{}", "/thumbnails/{}", "/pictures/{}")):

            def late(self, item, url=url, number=number):
                found = has(self, item)
                if found and item == number:
                    self._thumbnails.pop(item)
                    self.index.remove([self._ids[item]])
                return found

            monkeypatch.setattr(Gallery, "has", late)
            answer = client.get(url.format(number))
            assert answer.status_code == 404 and answer.json()["error"].startswith("There is no ")
        monkeypatch.setattr(Gallery, "has", lambda self, item: True)
        assert client.get("/about").json()["items"] == 36


def test_an_answer_goes_with_its_match_whatever_was_passed_over(place, pictures):
    opened = Index.load(place)
    opened.decision = dataclasses.replace(
        retrieval.calibrate(opened.embeddings, np.arange(40) // 5, target=0.3, bound="point", resamples=20),
        threshold=0.99,
    )
    gallery = Gallery(opened)
    whole = gallery.search(opened.vector("item 3")[None], 40)
    gone = whole[0]["id"]
    gallery._numbers = {id: number for id, number in gallery._numbers.items() if id != gone}
    assert gallery.search(opened.vector("item 3")[None], 40) == whole[1:]


def test_pictures_of_items_that_were_all_replaced_are_new(client, place):
    opened, before = Index.load(place), client.get("/thumbnails/0").content
    facts = [opened.metadata(id) for id in opened]
    paths = [one["path"] for one in facts]
    opened.upsert(opened.embeddings.copy(), opened.ids, [{"path": path} for path in paths[::-1]])
    assert client.get("/thumbnails/39").content == before != client.get("/thumbnails/0").content


def test_half_a_character_is_shown_escaped(client, place):
    metadata = json.dumps({"label": "\ud800", "\udfff": "a\udc00"})
    assert client.put("/items/x", headers=ALLOWED, params={"metadata": metadata}, content=png(RED)).is_success
    found = nearest(client, RED, 1)[0]
    assert (found["id"], found["label"]) == ("x", "\\ud800")
    assert client.get(f"/items/{found['item']}").json()["metadata"] == {"\\udfff": "a\\udc00"}
    assert client.get("/about").is_success


def test_an_item_without_a_label_does_not_end_searches_that_need_labels(client, place):
    opened = Index.load(place)
    vectors = opened.embeddings.copy()
    opened.decision = retrieval.calibrate(
        vectors, np.arange(40) // 5, target=0.3, bound="point", resamples=20, score="margin"
    )
    for metadata in ({}, {"label": None}, {"label": ["a"]}):
        answer = client.put("/items/x", headers=ALLOWED, params={"metadata": json.dumps(metadata)}, content=png(RED))
        assert answer.status_code == 400 and "`metadata` must hold `label`" in answer.json()["error"]
    metadata = json.dumps({"label": "red"})
    assert client.put("/items/x", headers=ALLOWED, params={"metadata": metadata}, content=png(RED)).is_success
    assert "probability" in nearest(client, RED, 1)[0]


WRONG = [
    {},
    {"Authorization": "Bearer"},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": f"Bearer {TOKEN[:-1]}"},
    {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": TOKEN},
]


@pytest.mark.parametrize("headers", WRONG)
def test_without_the_token_nothing_changes(client, place, headers):
    before = Index.load(place).version
    for answer in (
        client.put("/items/x", headers=headers, content=png(RED)),
        client.delete("/items/item%200", headers=headers),
    ):
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert Index.load(place).version == before


def test_nobody_changes_an_index_unless_the_owner_says_so(served, place):
    with serving(served, place, token=None) as client:
        for answer in (client.put("/items/x", headers=ALLOWED), client.delete("/items/x", headers=ALLOWED)):
            assert answer.status_code == 403 and "--write-token-file" in answer.json()["error"]
        assert client.post("/items/x", headers=ALLOWED).status_code == 405


@pytest.mark.parametrize(
    ("url", "content", "code", "message"),
    [
        ("/items/x", b"no image", 422, "not an image"),
        ('/items/x?metadata={"path": "/etc/passwd"}', png(RED), 400, "must not hold `path`"),
        ("/items/x?metadata=[]", png(RED), 400, "must be JSON, an object"),
        ("/items/x?metadata={", png(RED), 400, "must be JSON, an object"),
        ('/items/x?metadata={"x": NaN}', png(RED), 400, "JSON cannot"),
        ("/items/x?metadata=" + '{"x":' * 501 + "0" + "}" * 501, png(RED), 400, "at most 500 levels deep"),
        ("/items/" + "x" * 1001, png(RED), 400, "1 to 1000 characters"),
        ("/items/a%00b", png(RED), 400, "characters"),
        ("/items/x", b"x" * 2_000_001, 413, "larger than"),
    ],
)
def test_what_cannot_be_put_is_told(client, place, url, content, code, message):
    answer = client.put(url, headers=ALLOWED, content=content)
    assert answer.status_code == code and message in answer.json()["error"]
    assert len(Index.load(place)) == 40


@pytest.mark.parametrize("token", ["", "short", "with spaces in it, many", "é" * 20, 5])
def test_a_weak_token_is_refused(token):
    with pytest.raises(ValueError, match="`write_token` must be at least 16"):
        Settings(write_token=token)


def test_the_token_is_not_shown():
    assert TOKEN not in repr(Settings(write_token=TOKEN))
