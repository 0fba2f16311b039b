import json
import pathlib
import re
import sys
import tracemalloc

import keras
import numpy as np
import pytest
from PIL import Image

from tf_detreg import retrieval
from tf_detreg.datasets import decode
from tf_detreg.retrieval import bulk_shards
from tf_detreg.retrieval.bulk_embed import bulk_embed, iterate_embeddings, read_embeddings

SCALING = pathlib.Path(__file__).parents[2] / "docs" / "scaling.md"


@pytest.fixture
def catalog(tmp_path):
    """25 pictures of several kinds and sizes at two depths, two that are none, and a note."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "catalog"
    (folder / "deep er").mkdir(parents=True)
    for i in range(25):
        place = folder / ("deep er" if i % 2 else "")
        Image.fromarray(rng.integers(0, 255, (20 + i, 30, 3), np.uint8)).save(
            place / f"ü{i:02d}.{'png' if i % 3 else 'jpg'}"
        )
    (folder / "broken.png").write_bytes(b"\x89PNG but no more")
    (folder / "deep er" / "text.jpg").write_text("hello")
    (folder / "note.txt").write_text("not meant as a picture")
    return folder


@pytest.fixture
def embedder(tmp_path):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(5), keras.layers.UnitNormalization()])
    model.save(tmp_path / "embedder.keras")
    return model


def test_without_beam_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"tf-detreg\[beam\]"):
        bulk_embed("images", "embedder.keras", "out")


def test_shards_hold_every_picture_once_and_the_bad_ones_are_set_aside(catalog, embedder, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    result = bulk_embed(catalog, tmp_path / "embedder.keras", tmp_path / "out", batch_size=4, shards=3)
    assert (result.embedded, result.unreadable) == (25, 2)
    assert "2 could not be read" in result.summary()

    paths, vectors = read_embeddings(tmp_path / "out")
    assert len(set(paths)) == 25
    pixels = np.stack([decode(path, (16, 16)) for path in paths])
    np.testing.assert_allclose(vectors, embedder.predict(pixels.astype("float32"), verbose=0), atol=1e-5)
    retrieval.search(vectors[:2], vectors, 3)

    lines = [json.loads(line) for file in (tmp_path / "out").glob("unreadable*.jsonl") for line in file.open()]
    assert sorted(line["path"].rsplit("/", 1)[1] for line in lines) == ["broken.png", "text.jpg"]
    assert all(line["reason"] for line in lines)

    next((tmp_path / "out").glob("embeddings-00001-*")).unlink()
    with pytest.raises(ValueError, match="2 of 3 shards"):
        read_embeddings(tmp_path / "out")


@pytest.mark.parametrize("format", ["tfrecord", "parquet"])
def test_a_run_that_was_stopped_keeps_what_is_done(catalog, embedder, tmp_path, format):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    asked = {"shards": 4, "format": format, "batch_size": 3}
    out, model = tmp_path / "out", tmp_path / "embedder.keras"
    bulk_embed(catalog, model, out, **asked)
    whole = read_embeddings(out)
    assert len(whole[0]) == 25
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("embeddings-*")}
    assert len(written) == 4 and not list(out.glob("*.part"))

    # Stopped before the mark of a shard was written, and within another one.
    (out / "done-00001-of-00004.json").unlink()
    (out / f"embeddings-00002-of-00004.{format}").unlink()
    again = bulk_embed(catalog, model, out, **asked)
    assert (again.embedded, again.unreadable, again.kept) == (25, 2, 2)
    assert "2 shards were there already" in again.summary()
    changed = {path.name for path in out.glob("embeddings-*") if path.stat().st_mtime_ns != written[path.name]}
    assert changed == {f"embeddings-0000{shard}-of-00004.{format}" for shard in (1, 2)}
    paths, vectors = read_embeddings(out)
    assert paths == whole[0]
    np.testing.assert_array_equal(vectors, whole[1])

    # A picture that was added makes its own shard stale, and no other.
    Image.new("RGB", (20, 20)).save(catalog / "new.png")
    assert bulk_embed(catalog, model, out, **asked).kept == 3
    assert len(read_embeddings(out)[0]) == 26


def test_another_plan_is_refused_before_work(catalog, embedder, tmp_path, monkeypatch):
    beam = pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    out, model = tmp_path / "out", tmp_path / "embedder.keras"
    bulk_embed(catalog, model, out, shards=2)

    def work(*_, **__):
        raise AssertionError("work was begun")

    monkeypatch.setattr(beam, "Pipeline", work)
    with pytest.raises(ValueError, match=r"`shards` must be 2, .* received 3"):
        bulk_embed(catalog, model, out, shards=3)
    with pytest.raises(ValueError, match=r"`format` must be 'tfrecord', .* received 'parquet'"):
        bulk_embed(catalog, model, out, shards=2, format="parquet")
    with pytest.raises(ValueError, match="`images` must be"):
        bulk_embed([catalog, tmp_path / "more"], model, out, shards=2)
    keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(5)]).save(model)
    with pytest.raises(ValueError, match="`embedder` must be the one"):
        bulk_embed(catalog, model, out, shards=2)
    (out / "plan.json").unlink()
    with pytest.raises(ValueError, match="of an earlier version"):
        bulk_embed(catalog, model, out, shards=2)
    for wrong in ({"shards": 0}, {"batch_size": 0}, {"format": "csv"}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
            bulk_embed(catalog, model, tmp_path / "new", **wrong)


@pytest.mark.parametrize("format", ["tfrecord", "parquet"])
def test_shards_are_read_in_bounded_memory(tmp_path, format):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 256)).astype(np.float32)
    for shard in range(2):
        rows = range(shard, 4000, 2)
        name = bulk_shards.name_of("embeddings", shard, 2, format)
        with bulk_shards.writing(tmp_path / name, format, 256) as write:
            for start in range(0, 2000, 500):
                chosen = rows[start : start + 500]
                write([f"{row:05}.png" for row in chosen], vectors[list(chosen)])
    for part in iterate_embeddings(tmp_path, rows=100):
        assert len(part[0]) == len(part[1]) <= 100
    tracemalloc.start()
    count = sum(len(names) for names, _ in iterate_embeddings(tmp_path, rows=100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4000 and peak < vectors.nbytes / 4
    paths, found = read_embeddings(tmp_path)
    assert paths == [f"{row:05}.png" for row in range(4000)]
    np.testing.assert_array_equal(found, vectors)


def test_the_script_of_the_page_runs_as_printed(catalog, embedder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    (script,) = re.findall(
        r"```python\n(from tf_detreg.retrieval.bulk_embed.*?)```", SCALING.read_text("utf-8"), re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    assert "25 images embedded in vectors" in capsys.readouterr().out


def test_no_picture_at_all_is_an_error(embedder, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="match no picture"):
        bulk_embed(tmp_path / "empty", tmp_path / "embedder.keras", tmp_path / "out")
    with pytest.raises(ValueError, match=r"`folder` must hold embeddings-\*"):
        read_embeddings(tmp_path / "empty")


def test_shards_of_two_runs_are_not_mixed(tmp_path):
    for name in ("embeddings-00000-of-00001", "embeddings-00000-of-00002", "embeddings-00001-of-00002"):
        (tmp_path / f"{name}.tfrecord").touch()
    with pytest.raises(ValueError, match=r"shards of several runs, of 1 .* and of 2 "):
        read_embeddings(tmp_path)
