"""All formats at once, published together or not at all, with a card beside them, under a number of their own."""

import json
import pathlib
import shutil
import threading
import types

import numpy as np
import pytest

from tf_detreg import export, manifests
from tf_detreg.export import publishing, releasing, verification
from tf_detreg.serving.model import ModelDirectory


def test_a_release_is_verified_and_carries_its_card(embedder, images, labels, tmp_path, counted, monkeypatch):
    """By default; a rounded file below its limits is left out."""
    facts = {"name": "Colours", "data": "48 pictures", "recipe": {"loss": "proxy_anchor"}, "license": "CC0"}
    strict = {"dynamic": export.Limits(cosine=1.1, recall_points=0.0)}
    done = export.release(embedder, tmp_path / "m", images, labels, limits=strict, class_names=["a"], card=facts)
    assert not done.verification.passed and "m-dynamic.tflite: cosine" in done.verification.reasons()
    assert {name: path.name for name, path in done.paths.items()} == {
        "saved_model": "1",
        **{name: f"m-{name}.tflite" for name in ("float32", "float16", "int8")},
    }
    assert [p.name for p in (tmp_path / "m").iterdir()] == ["1"]
    assert done.paths["int8"] == tmp_path / "m" / "1" / "lite" / "m-int8.tflite"
    assert not list((tmp_path / "m").rglob("*dynamic*"))
    assert publishing.check_version(done.paths["saved_model"])
    assert {"saved_model.pb", "variables", "lite", "README.md", "manifest.json"} <= {
        p.name for p in done.paths["saved_model"].iterdir()
    }
    card = done.card.read_text()
    assert done.card == done.paths["saved_model"] / "README.md"
    rows = "| SavedModel |", "| m-float32.tflite | litert |"
    for text in ("# Colours", "48 pictures", "proxy_anchor", "CC0", "left out", *rows):
        assert text in card
    writing, checking = counted["Writing the files"], counted["Checking the files"]
    assert writing == checking == [(5, 5)]
    # By default the exact ones must be there. The others were written above; a SavedModel takes most of the time.
    for name in ("DEFAULT", "EXACT"):
        monkeypatch.setattr(releasing, name, getattr(releasing, name)[1:2])
    with pytest.raises(ValueError, match=r"Not published.*m-float32\.tflite.*below 1\.1"):
        export.release(embedder, tmp_path / "m", images, limits={"float32": export.Limits(1.1, 0.0)})


def test_nothing_is_published_below_the_limits(embedder, images, tmp_path):
    strict = {"dynamic": export.Limits(cosine=1.1, recall_points=0.0)}
    with pytest.raises(ValueError, match=r"Not published.*below 1\.1"):
        export.release(embedder, tmp_path / "m", images, formats=["float32", "dynamic"], limits=strict)
    assert not list(tmp_path.iterdir())


def test_images_are_needed_to_verify_and_to_calibrate(embedder, images, tmp_path, monkeypatch):
    for options in ({}, {"formats": ["float32"]}, {"formats": ["int8"], "check": False}):
        with pytest.raises(ValueError, match="`images` are needed to verify the files, and to calibrate int8"):
            export.release(embedder, tmp_path / "m", None, **options)
    given = []
    monkeypatch.setattr(releasing, "_spread", lambda images, size: given.append(images) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export.release(embedder, tmp_path / "m", None, formats=["int8"], check=False, calibration=images)
    assert given[0] is images


def test_bad_settings(embedder, images, tmp_path):
    with pytest.raises(ValueError, match="`formats` must be some of"):
        export.release(embedder, tmp_path, images, formats=["onnx"])
    (tmp_path / "4").mkdir()
    with pytest.raises(ValueError, match="next free one"):
        export.release(embedder, tmp_path, images, formats=["float32"], version=4, check=False)
    for version in (0, True, "5"):
        with pytest.raises(ValueError, match="must be a whole number, 1 or more"):
            export.release(embedder, tmp_path, images, formats=["float32"], version=version, check=False)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="Cannot write here"):
        export.release(embedder, tmp_path / "file", images, formats=["float32"])


def write_text(text):
    def write(path):
        path.mkdir()
        (path / "saved_model.pb").write_text(text)

    return write


def test_a_number_is_never_given_twice(plain, images, tmp_path):
    directory = tmp_path / "m"
    for taken in ("1", "3"):
        (directory / taken).mkdir(parents=True)
    assert publishing.publish(directory, None, write_text("a")).name == "4"
    (directory / "m-v6-float16.tflite").write_bytes(b"of version 0.1.0")
    assert publishing.free_version(directory, None) == 7
    with pytest.raises(ValueError, match=r"`version` must be one that is not in .* the next free one is 7; received 6"):
        publishing.publish(directory, 6, write_text("b"))
    done = export.release(plain, directory, images, formats=["float32"], check=False)
    assert done.paths["float32"] == directory / "lite-7" / "lite" / "m-float32.tflite"
    before = done.paths["float32"].read_bytes()
    again = export.release(plain, directory, None, formats=["float32"], check=False)
    assert again.paths["float32"].parts[-3] == "lite-8"
    assert done.paths["float32"].read_bytes() == before
    assert publishing.publish(directory, None, write_text("c")).name == "9"
    assert publishing.versions(directory) == [1, 3, 4, 9]  # what TensorFlow Serving sees
    with pytest.raises(ValueError, match="next free one is 10; received 8"):
        publishing.publish(directory, 8, write_text("d"))


def test_exports_at_once_get_numbers_of_their_own(tmp_path):
    barrier, done = threading.Barrier(8), []

    def export_one(number):
        def write(path):
            write_text(str(number))(path)
            barrier.wait(30)

        done.append((publishing.publish(tmp_path / "m", None, write), str(number)))

    threads = [threading.Thread(target=export_one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path, _ in done) == [str(number) for number in range(1, 9)]
    for path, text in done:
        assert (path / "saved_model.pb").read_text() == text


def test_the_second_of_two_that_ask_for_a_number_is_refused(tmp_path):
    def write(path):
        write_text("second")(path)
        publishing.publish(tmp_path, 5, write_text("first"))

    with pytest.raises(ValueError, match=r"next free one is .*; received 5"):
        publishing.publish(tmp_path, 5, write)
    assert (tmp_path / "5" / "saved_model.pb").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["5"]


@pytest.fixture(scope="module")
def whole(plain, images, tmp_path_factory):
    """A version with a SavedModel and a file for phones."""
    return export.release(
        plain, tmp_path_factory.mktemp("m") / "m", images, formats=["saved_model", "float32"], check=False
    )


def test_a_flipped_bit_in_any_file_of_a_version_is_found(whole, plain, images, tmp_path):
    version = shutil.copytree(whole.paths["saved_model"], tmp_path / "m" / "1")
    assert publishing.check_version(version)
    files = [path for path in version.rglob("*") if path.is_file()]
    assert len(files) >= 7
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-2] + bytes([content[-2] ^ 4]) + content[-1:])
        with pytest.raises(ValueError, match="is damaged") as caught:
            publishing.check_version(version)
        assert file.name in str(caught.value)
        file.write_bytes(content)
    file = version / "variables" / "variables.data-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    for load in (lambda: ModelDirectory(tmp_path / "m"), lambda: export.verify(plain, version, images)):
        with pytest.raises(ValueError, match=r"damaged .*variables\.data.*export it again"):
            load()
    file.unlink()
    with pytest.raises(ValueError, match=r"variables\.data-00000-of-00001 is missing"):
        publishing.check_version(version)


def test_a_flipped_bit_of_a_phone_file_is_found_wherever_it_was_copied_to(whole, plain, images, tmp_path):
    alone = tmp_path / "app.tflite"
    content = whole.paths["float32"].read_bytes()
    alone.write_bytes(content)
    verification.check_artifact(alone)
    facts = verification.facts_of(alone)
    assert 0 < facts["model_bytes"] < len(content)
    for at in np.random.default_rng(0).integers(0, facts["model_bytes"], 40):
        alone.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        with pytest.raises(ValueError, match=r"app\.tflite is damaged .*export it again"):
            verification.check_artifact(alone)
    with pytest.raises(ValueError, match=r"app\.tflite is damaged"):
        export.verify(plain, alone, images)
    beside = whole.paths["float32"]
    beside.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.raises(ValueError, match=r"lite/m-float32\.tflite does not match its checksum"):
        export.verify(plain, beside, images)
    beside.write_bytes(content)


def test_a_manifest_that_was_changed_is_told(whole, tmp_path):
    version = shutil.copytree(whole.paths["saved_model"], tmp_path / "1")
    manifest = json.loads((version / "manifest.json").read_text())
    for changed in ({**manifest, "files": {}}, {"format": 1}, manifests.sealed({"files": {"x": {}}})):
        (version / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match="is damaged"):
            publishing.check_version(version)
    (version / "manifest.json").unlink()
    assert not publishing.check_version(version)  # as version 0.1.0 wrote it


def test_a_kill_in_the_middle_leaves_no_version(tmp_path):
    def write(path):
        write_text("half")(path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publishing.publish(tmp_path / "m", None, write)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("better", [False, True])
def test_a_change_of_recall_is_refused_in_both_directions(better, embedder, images, monkeypatch):
    good = np.asarray(embedder(images))
    labels = np.arange(len(images)) // 2
    swapped = good.copy()
    swapped[::2] = np.roll(good[::2], 1, axis=0)
    exact = np.repeat(np.eye(len(images) // 2, good.shape[1]), 2, axis=0) + 1e-3
    monkeypatch.setattr(verification, "check_artifact", lambda path: None)
    monkeypatch.setattr(verification, "engine_of", lambda path: "litert")
    monkeypatch.setattr(verification, "facts_of", lambda path: {})
    monkeypatch.setattr(verification, "run_artifact", lambda *_, **__: (exact if better else swapped, {"latency": {}}))
    (check,) = export.verify(embedder, __file__, images, labels, limits={"float32": export.Limits(-2.0, 0.1)}).checks
    assert (check.recall_points > 0) == better and check.recall_points != 0
    assert not check.passed and "R@1 changes by" in check.failures[0]


def test_what_is_within_its_limits_is_published_and_what_must_be_there_is():
    def verification(**passed):
        checks = tuple(types.SimpleNamespace(passed=each) for each in passed.values())

        def require():
            raise ValueError("Not published")

        return types.SimpleNamespace(checks=checks, require=require)

    staged = {name: pathlib.Path(name) for name in ("saved_model", "float32", "int8")}
    within = releasing._within_limits
    assert within(staged, None, ("saved_model", "float32")) is staged
    everything = verification(saved_model=True, float32=True, int8=True)
    assert within(staged, everything, ("saved_model", "float32")) == staged
    less = verification(saved_model=True, float32=True, int8=False)
    assert within(staged, less, ("saved_model", "float32")) == {
        name: staged[name] for name in ("saved_model", "float32")
    }
    with pytest.raises(ValueError, match="Not published"):
        within(staged, less, ("int8",))
    with pytest.raises(ValueError, match="Not published"):
        within(staged, verification(saved_model=False, float32=True, int8=True), ("saved_model", "float32"))
