"""A server over a folder of shards answers as one over the index that they were made of."""

import dataclasses

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.serving.conftest import png
from tests.serving.test_changes import ALLOWED, RED, TOKEN, nearest
from tf_detreg import retrieval
from tf_detreg.index import Index, Shards, sharding, splitting
from tf_detreg.serving.app import Settings, create_app
from tf_detreg.serving.gallery import Gallery


@pytest.fixture
def parts(index, tmp_path):
    splitting.split(index, tmp_path / "shards", 3)
    return tmp_path / "shards"


def serving(served, catalog, **options):
    settings = Settings(max_body=2_000_000, poll=0, write_token=TOKEN)
    return TestClient(create_app(served, Gallery(catalog, **options), settings))


@pytest.fixture
def client(served, parts):
    with Shards.load(parts) as shards, serving(served, shards) as client:
        yield client


def unnumbered(match):
    return {name: value for name, value in match.items() if name not in ("item", "place")}


def number_of(client, id):
    return next(at for at in range(99) if client.get(f"/items/{at}").json().get("id") == id)


def test_a_search_finds_what_it_finds_in_one_index(client, served, gallery, pictures):
    with TestClient(create_app(served, gallery, Settings(poll=0))) as one:
        for picture in pictures[::7]:
            wanted = [unnumbered(match) for match in nearest(one, picture, 40)]
            found = nearest(client, picture, 40)
            assert [unnumbered(match) for match in found] == wanted
            # An item's number leads to the same item everywhere.
            number = found[3]["item"]
            assert unnumbered(client.get(f"/items/{number}").json()) == unnumbered(
                one.get(f"/items/{number_of(one, found[3]['id'])}").json()
            )
            near, there = (
                some.get(f"/neighbors/{at}?k=5").json()["matches"]
                for some, at in ((client, number), (one, number_of(one, found[3]["id"])))
            )
            assert [unnumbered(match) for match in near] == [unnumbered(match) for match in there]
        about, wanted = client.get("/about").json(), one.get("/about").json()
        assert (about["items"], len(about["samples"])) == (wanted["items"], len(wanted["samples"])) == (40, 12)
        for path in ("/thumbnails", "/pictures"):
            assert client.get(f"{path}/{number}").content == one.get(f"{path}/{number_of(one, found[3]['id'])}").content
        assert client.get("/items/40").status_code == one.get("/items/40").status_code == 404


def test_items_are_put_and_deleted_in_their_shards_and_changes_of_others_are_seen(client, parts, embedder):
    for id in ("mug", "cup/2"):
        answer = client.put(f"/items/{id}", headers=ALLOWED, content=png(RED))
        assert answer.status_code == 201 and client.get(f"/items/{answer.json()['item']}").json()["id"] == id
    assert client.put("/items/mug", headers=ALLOWED, content=png(255 - RED)).json()["replaced"]
    assert client.delete("/items/cup/2", headers=ALLOWED).is_success
    assert client.delete("/items/cup/2", headers=ALLOWED).status_code == 404
    with Shards.load(parts) as other:
        other.verify(progress=False)
        assert len(other) == 41 and "mug" in other and other.metadata("mug") == {}
        other.upsert(np.asarray(embedder(RED[None].astype(np.float32))), ["new"], [{"label": "new"}])
        found = nearest(client, RED, 1)[0]
        assert (found["id"], found["label"]) == ("new", "new") and client.get("/about").json()["items"] == 42
        other.remove(["new"])
        assert nearest(client, RED, 1)[0]["id"] != "new" and client.get(f"/items/{found['item']}").status_code == 404


def test_pictures_that_were_given_outlive_a_shard_s_compaction(served, parts, pictures):
    with Shards.load(parts) as shards:
        order = [str(row["id"]) for row in shards.rows()]
        given = np.stack([pictures[int(id.split()[1])] for id in order])
        with serving(served, shards, pictures=given) as client:
            before = [client.get(f"/pictures/{at}").content for at in range(40)]
            for shard in shards.indexes:
                shard.compact()
            assert [client.get(f"/items/{at}").json()["id"] for at in range(40)] == order
            assert [client.get(f"/pictures/{at}").content for at in range(40)] == before


def test_a_decision_of_the_shards_is_used(served, parts, embedder, pictures):
    vectors = np.asarray(embedder(pictures.astype(np.float32)))
    made = retrieval.calibrate(vectors, np.arange(40) // 5, target=0.3, bound="point", resamples=20)
    with Shards.load(parts) as shards:
        assert not {"accepted", "probability"} & set(Gallery(shards).search(vectors[:1], 1)[0])
        shards.decision = dataclasses.replace(made, threshold=0.99)
    with Shards.load(parts) as shards:
        assert [shard.decision for shard in shards.indexes] == [shards.decision] * 3
        gallery = Gallery(shards)
        known = gallery.search(vectors[:1], 40)
        assert known[0]["accepted"] is True and known[-1]["accepted"] is False
        assert 0 <= known[-1]["probability"] <= known[0]["probability"] <= 1
        assert "probability" in gallery.neighbors(0, 3)[0]


def test_while_one_shard_is_of_another_model_nothing_is_searched(client, parts):
    with Shards.load(parts) as shards:
        last = shards.indexes[-1]
        Index(last.embeddings.copy(), last.ids, fingerprint="0123456789abcdef").save(parts / "index-00002-of-00003")
    answer = client.post("/search", content=png(RED))
    assert answer.status_code == 503 and "another model" in answer.json()["error"]


def test_shards_of_no_folder_are_searched_and_refuse_changes(served, parts):
    with Shards.load(parts) as opened, serving(served, Shards(opened.shards)) as client:
        id = nearest(client, RED, 1)[0]["id"]
        for answer in (
            client.put("/items/x", headers=ALLOWED, content=png(RED)),
            client.delete(f"/items/{id}", headers=ALLOWED),
        ):
            assert answer.status_code == 400 and "Shards.load" in answer.json()["error"]
        assert client.delete("/items/x", headers=ALLOWED).status_code == 404
        assert client.get("/about").json()["items"] == 40


def test_a_client_of_another_machine_cannot_be_served(index):
    class Client:
        dimension, fingerprint = index.dimension, index.fingerprint

    with pytest.raises(TypeError, match="indexes on this machine; received a Client at 1"):
        Gallery(Shards([index, Client()]))


def test_what_is_removed_while_it_is_searched_fails_no_search(parts, monkeypatch):
    """The largest of the shards loses all but one item after it was counted, as one index may."""
    with Shards.load(parts) as shards:
        gallery, search = Gallery(shards), Index._undecided
        victim = max(shards.indexes, key=len)
        kept, *gone = victim.ids

        def late(self, *given, **options):
            if self is victim and len(self) > 1:
                self.remove(gone)
            return search(self, *given, **options)

        monkeypatch.setattr(Index, "_undecided", late)
        left = 40 - len(gone)
        assert len(gallery.search(shards.vector(kept)[None], 40)) == left
        monkeypatch.undo()
        query = shards.vector(kept)
        count = len(shards)
        for index in shards.indexes:
            index.remove(index.ids)
        assert sharding.up_to(shards, count, query[None], 5) is None and gallery.search(query[None], 5) == []
        with pytest.raises(ValueError, match="The shards are empty"):
            shards.search(query)
