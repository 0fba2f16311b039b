"""What an export is asked for reaches those who write and check; nothing is converted or run here."""

import pathlib
import subprocess
import types
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import archives, datasets, index
from tf_detreg.export import bundles, lite, metadata, publishing, releasing, runner, savedmodel, verification
from tf_detreg.export import runs as export_runs
from tf_detreg.export.inference import fingerprint, image_size_of, pixels

SHAPES = {(4, 6): (4, 6), 5: (5, 5), np.int64(3): (3, 3)}


@pytest.fixture(scope="module")
def any_size():
    """An embedder of images of any size."""
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4), keras.layers.UnitNormalization()]
    return keras.Sequential([keras.Input((None, None, 3)), *layers], name="any")


def test_the_size_of_images_is_height_then_width(any_size):
    assert {asked: image_size_of(any_size, asked) for asked in SHAPES} == SHAPES
    with pytest.raises(ValueError, match="the embedder takes images of any size"):
        image_size_of(any_size)
    narrow = keras.Sequential([keras.Input((4, 6, 3)), keras.layers.GlobalAveragePooling2D()])
    assert image_size_of(narrow) == image_size_of(narrow, (4, 6)) == (4, 6)
    for asked in ((6, 4), (4, 4), (6, 6)):
        with pytest.raises(ValueError, match=r"\(4, 6\)"):
            image_size_of(narrow, asked)


def test_the_first_images_of_a_set_are_compared_at_the_models_size():
    shades = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    images = datasets.ImageSet([0, 1, 0, 1, 0], ["a", "b"], shades)
    chosen, labels = pixels(images, None, (2, 3), 3)
    assert chosen.shape == (3, 2, 3, 3) and chosen.dtype == np.float32
    assert chosen[:, 0, 0, 0].round(3).tolist() == [0, 1, 2] and labels.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="with N of at least 1"):
        pixels(images.subset([]), None, (2, 3), 3)
    with pytest.raises(ValueError, match="be one an image, 5; received 4"):
        pixels(chosen.repeat(2, axis=0)[:5], np.zeros(4), (2, 3), 3)


@pytest.fixture
def unwritten(monkeypatch):
    """Write folders with an empty model in them; note what was asked of the disk and of the decoder."""
    noted = types.SimpleNamespace(needed=[], pixels=[], warm=[])

    def save(module, path, **options):
        pathlib.Path(path).mkdir()
        (pathlib.Path(path) / "saved_model.pb").write_bytes(b"")

    def decode(data, size, *, max_pixels):
        noted.pixels.append((tuple(size), max_pixels))
        return tf.zeros((tf.shape(data)[0], *size, 3)), tf.ones_like(data, tf.bool)

    monkeypatch.setattr(tf.saved_model, "save", save)
    monkeypatch.setattr(publishing, "require_space", lambda place, needed: noted.needed.append(needed))
    monkeypatch.setattr(metadata, "write_warm_up", lambda *given: noted.warm.append(given[1:]))
    for module in (savedmodel, bundles):
        monkeypatch.setattr(module, "decode_batch", decode)
    return noted


def test_a_saved_model_is_written_as_asked(any_size, unwritten, tmp_path):
    options = {"image_size": (4, 6), "max_pixels": 1000, "warm_up": True, "card": "Card ä", "about": {"note": "more"}}
    path = savedmodel.saved_model(any_size, tmp_path / "bird", 7, class_names=["a", "b"], **options)
    assert path == tmp_path / "bird" / "7"
    assert unwritten.pixels == [((4, 6), 1000)]
    assert unwritten.warm == [("bird", (4, 6))]
    assert unwritten.needed == [1_000_000 + 4 * (3 * 4 + 4)]
    assert (path / "README.md").read_text("utf-8") == "Card ä"
    assert (path / "assets.extra" / "labels.txt").read_text() == "a\nb\n"
    facts = verification.facts_of(path)
    assert (facts["max_pixels"], facts["image_size"], facts["note"]) == (1000, [4, 6], "more")


def test_a_saved_search_is_written_as_asked(any_size, unwritten, tmp_path):
    gallery = np.eye(4, dtype=np.float32)
    options = {"image_size": 5, "max_pixels": 1000, "warm_up": True, "card": "Card"}
    path = bundles.retrieval_saved_model(any_size, gallery, tmp_path / "bird", k=3, **options)
    assert unwritten.pixels == [((5, 5), 1000)] and unwritten.warm == [("bird", (5, 5))]
    assert unwritten.needed == [1_000_000 + 4 * (3 * 4 + 4) + 4 * 16]
    assert (path / "README.md").read_text() == "Card"
    facts = verification.facts_of(path)
    assert (facts["k"], facts["gallery_items"], facts["engine"], facts["image_size"]) == (3, 4, "exact", [5, 5])


def test_an_approximate_search_gets_its_numbers(any_size, unwritten, tmp_path, monkeypatch):
    asked = []

    def scann(module, gallery, k, wanted):
        asked.append((gallery.tolist(), k, wanted))
        return bundles._exact(types.SimpleNamespace(gallery=tf.constant(gallery)), k), {"neighbor_recall": 0.5}

    monkeypatch.setattr(bundles, "_scann", scann)
    path = bundles.retrieval_saved_model(
        any_size, np.eye(4), tmp_path / "a", k=2, image_size=5, engine="scann", neighbor_recall=0.75, warm_up=False
    )
    assert asked == [(np.eye(4).tolist(), 2, 0.75)]
    assert verification.facts_of(path)["neighbor_recall"] == 0.5 and not unwritten.warm
    with pytest.raises(ValueError, match="engine"):
        bundles.retrieval_saved_model(any_size, np.eye(4), tmp_path / "a", k=2, image_size=5, engine="other")


def test_scann_is_tuned_for_the_neighbors_asked_for_and_refused_where_it_misses_them(monkeypatch):
    asked, tuned = [], types.SimpleNamespace(recall=0.7, tree=None)
    monkeypatch.setattr(bundles.scann_library, "operations", lambda: None)
    monkeypatch.setattr(
        bundles.approximate, "calibrate", lambda *given, **options: asked.append((given, options)) or tuned
    )
    gallery = np.eye(8, dtype=np.float32)
    with pytest.raises(ValueError, match=r"ScaNN finds 0\.700 .* less than neighbor_recall=0\.8"):
        bundles._scann(tf.Module(), gallery, 3, 0.8)
    ((queries, searched, k), options) = asked[0]
    assert k == 3 and searched is gallery
    assert (options["target"], options["layout"]) == (0.8, bundles._LAYOUT)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-5)
    assert sorted((queries @ gallery.T).argmax(axis=1).tolist()) == list(range(8))


def test_a_gallery_too_large_for_a_phone_is_refused(any_size, tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "LARGEST_MOBILE_BYTES", 63)
    with pytest.raises(ValueError, match=r"at most 3 items of this width .* received 4 × 4"):
        bundles.retrieval_litert(any_size, np.eye(4), tmp_path / "a.tflite", k=1, image_size=5)
    # As many bytes as there may be are no reason.
    monkeypatch.setattr(bundles, "LARGEST_MOBILE_BYTES", 64)
    monkeypatch.setattr(lite, "convert", lambda *given, **options: b"model")
    done = bundles.retrieval_litert(any_size, np.eye(4), tmp_path / "a.tflite", k=2, image_size=5, ids="abcd")
    with zipfile.ZipFile(done) as archive:
        assert archive.read("ids.txt") == b"a\nb\nc\nd\n"
    assert verification.facts_of(done)["k"] == 2


def test_the_index_says_the_model_and_the_ids_unless_they_are_given(any_size, monkeypatch):
    gallery = np.eye(4, dtype=np.float32)

    class Gallery(index.Index):
        def __init__(self):
            pass

        ids = ("w", "x", "y", "z")
        embeddings = gallery
        fingerprint = "0" * 64

    with pytest.raises(ValueError, match="received one made by another model"):
        bundles.check_gallery(any_size, Gallery(), None, 1, None)
    mark = fingerprint(any_size)
    assert bundles.check_gallery(any_size, Gallery(), None, 4, mark)[1] == list("wxyz")
    assert bundles.check_gallery(any_size, Gallery(), "abcd", 4, mark)[1] == list("abcd")
    for k in (0, 5):
        with pytest.raises(ValueError, match="k"):
            bundles.check_gallery(any_size, gallery, None, k, None)


def test_a_lite_file_needs_its_size_on_the_disk(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(publishing, "require_space", lambda place, needed: asked.append((place, needed)))
    path = lite.write(tmp_path / "a.tflite", b"12345", {"metadata.json": b"{}", "labels.txt": b"abc"})
    facts = metadata.as_json(verification.facts_of(path))
    assert asked == [(tmp_path, 5 + 3 + len(facts))]


def test_a_lite_file_whose_archive_is_damaged_is_told(tmp_path):
    path = lite.write(tmp_path / "a.tflite", b"model", {"metadata.json": b"{}", "labels.txt": b"abcdefgh"})
    verification.check_artifact(path)
    content = path.read_bytes()
    at = content.index(b"abcdefgh")
    path.write_bytes(content[:at] + b"abcdefgX" + content[at + 8 :])
    with pytest.raises(ValueError, match="is damaged"):
        verification.facts_of(path)
    assert archives.fault(path) is not None
    # The model's part is compared with its checksum.
    path.write_bytes(b"mOdel" + content[5:])
    with pytest.raises(ValueError, match="the model does not match its checksum"):
        verification.check_artifact(path)


def test_what_lies_beside_a_version_is_not_checked_with_it(tmp_path):
    version = tmp_path / "3"
    (version / "lite").mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"model")
    (version / "lite" / "a.tflite").write_bytes(b"lite")
    publishing.seal(version)
    for path in (version, version / "saved_model.pb", version / "lite" / "a.tflite"):
        assert publishing.check_version(path)
    (version / "mine.txt").write_text("note")
    assert not publishing.check_version(version / "mine.txt")
    assert publishing.check_version(version / "saved_model.pb")
    (version / "saved_model.pb").write_bytes(b"mOdel")
    with pytest.raises(ValueError, match=r"is damaged \(.*saved_model\.pb"):
        publishing.check_version(version / "lite" / "a.tflite")
    assert not publishing.check_version(version / "mine.txt")


def test_numbers_and_versions_of_a_folder(tmp_path):
    assert publishing.versions(tmp_path / "none") == [] and publishing.numbers(tmp_path / "none") == set()
    for name in ("10", "9", "lite-12", "notes", "-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").write_text("a file")
    (tmp_path / "bird-v13-float16.tflite").write_text("of version 0.1.0")
    assert publishing.versions(tmp_path) == [9, 10]
    assert publishing.numbers(tmp_path) == {9, 10, 11, 12, 13}
    assert publishing.free_version(tmp_path, None) == 14 and publishing.free_version(tmp_path, 1) == 1
    for taken in (9, 11, 12, 13):
        with pytest.raises(ValueError, match="the next free one is 14"):
            publishing.free_version(tmp_path, taken)
    assert publishing._kept([9, 10]) == "version 10 stays as it was"


def test_too_little_space_is_told_at_the_folder_that_is_there(tmp_path, monkeypatch):
    asked = []
    usage = types.SimpleNamespace(free=1000)
    monkeypatch.setattr(publishing.shutil, "disk_usage", lambda place: asked.append(place) or usage)
    publishing.require_space(tmp_path / "not" / "yet", 1000)
    assert asked == [tmp_path]
    with pytest.raises(OSError, match="the disk has"):
        publishing.require_space(tmp_path, 1001)


def test_the_median_of_the_calls_after_the_first_is_the_latency(monkeypatch):
    seen, clock = [], iter([0.0, 1.0, 10.0, 12.0, 20.0, 29.0])
    monkeypatch.setattr(runner.time, "perf_counter", lambda: next(clock))
    assert runner.latency(lambda rows: seen.append(rows.shape), np.zeros((2, 4)), 5, 3) == 2.0
    assert seen == [(5, 4)] * 4


def test_a_verification_passes_on_what_it_was_asked_for(any_size, tmp_path, monkeypatch):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    asked, images = [], np.random.default_rng(0).uniform(0, 255, (6, 5, 5, 3)).astype(np.float32)

    def run(path, inputs, **options):
        asked.append((path, options))
        return np.asarray(any_size(inputs)), {"latency": {"2": 0.5}}

    monkeypatch.setattr(verification, "run_artifact", run)
    monkeypatch.setattr(verification, "image_size_of", lambda embedder: (5, 5))
    limits = {"float32": verification.Limits(0.5, 7.0)}
    options = {"latency": (2,), "repeats": 3, "timeout": 4.5}
    found = verification.verify(any_size, tmp_path, images, limits=limits, **options)
    assert asked == [(tmp_path, options)]
    (check,) = found.checks
    assert check.limits == limits["float32"] and check.latency_ms == {2: 500.0}
    assert (found.images, found.recall_at_1, check.recall_points) == (6, None, None)
    labels = [0, 0, 1, 1, 2, 2]
    assert verification.verify(any_size, tmp_path, images, labels).recall_at_1 is not None
    assert verification.recall_at_1(np.eye(3), np.arange(3)) is None


def test_the_job_of_a_clean_process(monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(({**verification.read_json(pathlib.Path(command[-1]))}, options["timeout"]))
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(verification.subprocess, "run", run)
    options = {"engine": "litert", "signature": "serve", "latency": (1, 4), "repeats": 9, "timeout": 2.5}
    with pytest.raises(ValueError, match=r"a\.tflite did not end within timeout=2\.5 seconds under litert"):
        verification.run_artifact(pathlib.Path("a.tflite"), np.zeros((1, 2)), output="ids", **options)
    ((job, timeout),) = asked
    assert timeout == 2.5 and list(job["outputs"]) == ["ids"]
    assert {key: job[key] for key in ("engine", "path", "signature", "latency", "repeats", "batch")} == {
        "engine": "litert",
        "path": "a.tflite",
        "signature": "serve",
        "latency": [1, 4],
        "repeats": 9,
        "batch": 64,
    }


@pytest.fixture
def written(monkeypatch):
    """Release one format, that a stand-in writes and another checks; return what they were given."""
    noted = types.SimpleNamespace(writer=[], verify=[], card=[])

    def writer(embedder, stem, calibration, class_names):
        noted.writer.append((stem.name, calibration, class_names))
        stem.parent.mkdir(exist_ok=True)
        path = stem.with_name(f"{stem.name}.tflite")
        path.write_bytes(b"model")
        return path

    def verify(embedder, artifacts, *given, **options):
        noted.verify.append((given, options))
        limits = verification.LIMITS["float32"]
        good = [
            verification.Check(str(path), "litert", "float32", 1.0, 1.0, 1.0, None, {}, (), limits)
            for path in artifacts
        ]
        return verification.Verification(tuple(good), 1, None)

    monkeypatch.setattr(releasing, "verify", verify)
    monkeypatch.setattr(releasing, "WRITERS", {"float32": writer, "int8": writer})
    monkeypatch.setattr(releasing, "model_card", lambda embedder, **options: noted.card.append(options) or "The card.")
    return noted


def test_a_release_passes_on_what_it_was_asked_for(written, any_size, tmp_path, monkeypatch):
    monkeypatch.setattr(releasing, "image_size_of", lambda embedder: (1, 1))
    images, labels = np.zeros((3, 1, 1, 3), np.float32), np.arange(3)
    calibration = np.arange(401.0)[:, None, None, None] * np.ones((1, 1, 1, 3))
    options = {"limits": {"int8": verification.Limits(0.5, 1.0)}, "progress": False}
    done = releasing.release(
        any_size,
        tmp_path / "bird",
        images,
        labels,
        formats=["int8"],
        calibration=calibration,
        version=6,
        class_names=["a"],
        card={"license": "MIT"},
        **options,
    )
    ((stem, chosen, names),) = written.writer
    # Two hundred from all over the set, its last included.
    assert chosen[:, 0, 0, 0].tolist() == np.linspace(0, 400, 200).astype(int).tolist() and chosen.shape[1:] == (
        1,
        1,
        3,
    )
    assert (stem, names) == ("bird-int8", ["a"])
    ((given, known),) = written.verify
    assert given[0] is images and given[1] is labels and known == options
    assert written.card == [{"verification": done.verification, "license": "MIT"}]
    assert done.paths == {"int8": tmp_path / "bird" / "lite-6" / "lite" / "bird-int8.tflite"}
    assert done.card.read_text() == "The card." and publishing.check_version(done.card.parent)
    unchecked = releasing.release(any_size, tmp_path / "bird", images, formats=["float32"], check=False)
    assert unchecked.verification is None and len(written.verify) == 1
    assert [path.name for path in (tmp_path / "bird").iterdir() if path.name.startswith("lite-")].count("lite-7") == 1


def test_a_run_is_released_with_what_it_knows(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(export_runs, "release", lambda *given, **options: asked.append((given, options)))
    monkeypatch.setattr(export_runs, "run_results", lambda directory: {"evaluation": str(directory)})

    def images(count, names):
        return datasets.ImageSet(
            np.arange(count) % len(names), names, np.zeros((count, 1, 1, 3), np.uint8), name="birds/train"
        )

    splits = datasets.Splits(images(6, list("abc")), images(4, list("de")), images(2, list("fg")))
    run = types.SimpleNamespace(
        embedder="embedder",
        directory=tmp_path / "run",
        splits=lambda: splits,
        config=types.SimpleNamespace(to_dict=lambda: {"seed": 3}),
    )
    export_runs.export_run(
        run, tmp_path / "models", formats=["int8"], card={"license": "MIT", "recipe": {}}, progress=False
    )
    export_runs.export_run(run, tmp_path / "models", splits, name="bird", check=False)
    (first, options), (second, others) = asked
    assert first == ("embedder", tmp_path / "models" / "run", splits.test)
    assert second == ("embedder", tmp_path / "models" / "bird", None)
    assert options["calibration"] is splits.train and tuple(options["class_names"]) == ("a", "b", "c")
    assert (options["formats"], options["check"], options["progress"]) == (["int8"], True, False)
    assert (others["formats"], others["check"], others["progress"]) == (None, False, None)
    assert others["card"]["recipe"] == {"seed": 3}
    assert options["card"] == {
        "name": "run",
        "data": "birds: 6 images of 3 classes for training, 4 images of 2 classes for validation, "
        "2 images of 2 classes for test.",
        "recipe": {},
        "evaluation": str(tmp_path / "run"),
        "license": "MIT",
    }
