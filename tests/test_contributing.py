"""The examples of CONTRIBUTING: each is a part, named in one line, that passes what all of its kind must pass."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from tests.heads import table as head_table
from tests.heads import test_layer_contract, test_mathematics
from tests.losses import table as loss_table
from tests.losses import test_every_loss
from tf_detreg import backbones, datasets, export, heads, losses, retrieval, training
from tf_detreg.backbones.build import NAMED
from tf_detreg.export import formats
from tf_detreg.retrieval import engines
from tf_detreg.training import assembly

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"### An? ([\w ]+)\n```python\n(.*?)```", TEXT, re.DOTALL))


def example(name: str) -> dict:
    """What the block of code under a heading defines."""
    found = {"__name__": f"example_{name.replace(' ', '_')}"}
    exec(compile(EXAMPLES[name], f"CONTRIBUTING.md: {name}", "exec"), found)
    return found


def test_each_kind_has_an_example():
    assert list(EXAMPLES) == ["loss", "head", "data set", "backbone", "engine", "export format"]


def test_every_folder_and_table_that_is_named_is_there():
    table = re.search(r"\| you add \|.*?\n\n", TEXT, re.DOTALL)[0]
    for name in re.findall(r"`(tf_detreg/\w+/|tests/[\w/]+\.py)`", table):
        assert (ROOT / name).exists(), name
    for table_name, file in re.findall(r"in `(\w+)` of `([\w/.]+)`", table):
        assert re.search(rf"^{table_name}: dict", (ROOT / "tf_detreg" / file).read_text(encoding="utf-8"), re.M)


def test_a_loss(monkeypatch):
    found = example("loss")
    kind = found["PairLogistic"]
    row = loss_table.row("pair-logistic", kind, found["pair_logistic"])
    test_every_loss.test_value_follows_the_formula(row)
    test_every_loss.test_gradients_follow_finite_differences_of_the_formula(row)
    test_every_loss.test_degenerate_batches_are_finite(row, "float32")
    test_every_loss.test_configuration_round_trip(row)
    monkeypatch.setattr(losses, "PairLogistic", kind, raising=False)
    config = training.RunConfig.from_dict({"data": "digits", "loss": {"name": "PairLogistic", "scale": 2.0}})
    assert assembly.parts(config)["loss"] is kind


def test_a_head(monkeypatch):
    kind = example("head")["LowRank"]
    monkeypatch.setattr(heads, "LowRank", kind, raising=False)
    monkeypatch.setitem(head_table.ALL, "low_rank", (kind, {"rank": 2}))
    test_layer_contract.test_config_round_trip_keeps_every_argument("low_rank")
    test_layer_contract.test_shapes_and_unit_length("low_rank", 4, 9, 2)
    test_layer_contract.test_bad_features_are_refused_eagerly("low_rank", float("nan"))
    test_mathematics.test_gradients_agree_with_finite_differences_and_none_is_missing("low_rank")
    config = training.RunConfig.from_dict({"data": "digits", "head": {"name": "LowRank", "dim": 6, "rank": 3}})
    embedder = assembly.build_embedder(config, 32)
    assert embedder.output_shape == (None, 6) and isinstance(embedder.layers[-1], kind)


def test_a_data_set(monkeypatch, tmp_path):
    pets = example("data set")["pets"]
    with pytest.raises(ValueError, match=r"^`directory` must hold images/"):
        pets(tmp_path)
    (tmp_path / "images").mkdir()
    for breed in ("Abyssinian", "great_pyrenees", "pug", "Sphynx", "beagle"):
        for number in (1, 12):
            Image.new("RGB", (9, 7), "gray").save(tmp_path / "images" / f"{breed}_{number}.jpg")
    monkeypatch.setattr(datasets, "pets", pets, raising=False)
    monkeypatch.setattr(datasets, "LOADERS", (*datasets.LOADERS, "pets"))
    config = training.RunConfig.from_dict({"data": {"name": "pets", "path": str(tmp_path)}, "image_size": 8})
    splits = assembly.load_splits(config)
    assert [len(part) for part in splits] == [4, 2, 4]
    assert "great_pyrenees" in {name for part in splits for name in part.class_names}
    (images, _), *_ = splits.train.ordered(4)
    assert images.shape == (4, 8, 8, 3)


def test_a_backbone(monkeypatch):
    monkeypatch.setitem(NAMED, "one_convolution", example("backbone")["one_convolution"])
    model = backbones.build("one-convolution", image_size=16)
    assert model.output_shape == (None, 8)
    assert model.get_layer("scaling").mode == "symmetric"
    config = training.RunConfig.from_dict({"data": "digits", "backbone": "one_convolution"})
    assert assembly.build_embedder(config, 16).output_shape == (None, 128)


@pytest.mark.parametrize("rules", ["leave-one-out", "query-gallery", "cross-group"])
def test_an_engine(monkeypatch, rules):
    monkeypatch.setitem(engines.ENGINES, "sorting", example("engine")["by_sorting"])
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 60)
    points = rng.normal(size=(7, 6))[labels] + rng.normal(size=(60, 6))
    task = {"queries": points, "labels": labels, "k": (1, 2, 4), "resamples": 0}
    if rules == "query-gallery":
        task |= {"queries": points[:20], "labels": labels[:20], "gallery": points[20:], "gallery_labels": labels[20:]}
    if rules == "cross-group":
        task["groups"] = np.arange(60) % 3
    found, wanted = (retrieval.evaluate(**task, engine=engine) for engine in ("sorting", "exact"))
    assert found.engine == "sorting" and found.protocol == rules
    assert found.metrics == pytest.approx(wanted.metrics)


def test_an_export_format(monkeypatch, tmp_path):
    monkeypatch.setitem(formats.WRITERS, "any_batch", example("export format")["any_batch"])
    embedder = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), heads.Linear(4)])
    images = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)).astype("float32")
    done = export.release(embedder, tmp_path / "pets", images, formats=["any_batch"], progress=False)
    assert done.paths["any_batch"].name == "pets-any_batch.tflite"
    assert done.verification.passed and [check.engine for check in done.verification.checks] == ["litert"]


# File of each example, the file that names it, and the name; then the table in that file, and what is put there.
FILES = {
    "loss": ("losses/pair_logistic.py", "losses/__init__.py", "PairLogistic"),
    "head": ("heads/low_rank.py", "heads/__init__.py", "LowRank"),
    "data set": ("datasets/pets.py", "datasets/__init__.py", "pets"),
    "backbone": ("backbones/one_convolution.py", "backbones/build.py", "one_convolution"),
    "engine": ("retrieval/sorting.py", "retrieval/engines.py", "by_sorting"),
    "export format": ("export/any_batch.py", "export/formats.py", "any_batch"),
}
TABLES = {
    "data set": ("LOADERS", '"pets", '),
    "backbone": ("NAMED", '"one_convolution": one_convolution, '),
    "engine": ("ENGINES", '"sorting": by_sorting, '),
    "export format": ("WRITERS", '"any_batch": any_batch, '),
}
USE = """
import json, sys
from tf_detreg import analysis, export, training
where, config = sys.argv[1], json.loads(sys.argv[2])
run = training.train(training.RunConfig.from_dict(config), where + "/run", verbose=0)
found = analysis.evaluate_run(run, engine="sorting", progress=False)
done = export.export_run(run, where + "/model", formats=["any_batch"], check=False, progress=False)
print(json.dumps([found.report.engine, type(run.embedder.layers[-1]).__name__, done.paths["any_batch"].name]))
"""


def test_all_of_them_together_in_a_copy_of_the_package(tmp_path):
    """Each as a contributor would add it: a file, and the lines that name it. Imports in a circle show here alone."""
    package = tmp_path / "tf_detreg"
    shutil.copytree(ROOT / "tf_detreg", package, ignore=shutil.ignore_patterns("__pycache__"))
    for kind, (file, names, name) in FILES.items():
        (package / file).write_text(EXAMPLES[kind].partition("# For the row")[0], encoding="utf-8")
        text = (package / names).read_text(encoding="utf-8")
        module = "tf_detreg." + file.removesuffix(".py").replace("/", ".")
        first = re.search(r"^from tf_detreg", text, re.M).start()
        text = f"{text[:first]}from {module} import {name}\n{text[first:]}"
        if kind in TABLES:
            table, entry = TABLES[kind]
            text, count = re.subn(rf"^({table}\b.*? = [({{])", rf"\1{entry}", text, flags=re.M)
            assert count == 1, (kind, table)
        (package / names).write_text(text, encoding="utf-8")
    photos = tmp_path / "pets" / "images"
    photos.mkdir(parents=True)
    random = np.random.default_rng(0)
    for breed in ("Abyssinian", "great_pyrenees", "pug", "Sphynx", "beagle"):
        for number in range(3):
            pixels = random.integers(0, 256, (9, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(photos / f"{breed}_{number}.jpg")
    config = {
        "data": {"name": "pets", "path": str(tmp_path / "pets")},
        "image_size": 8,
        "backbone": "one_convolution",
        "head": {"name": "LowRank", "dim": 4},
        "loss": {"name": "PairLogistic", "scale": 2.0},
        "classes": 2,
        "images": 2,
        "epochs": 1,
    }
    command = [sys.executable, "-c", USE, str(tmp_path), json.dumps(config)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == ["sorting", "LowRank", "run-any_batch.tflite"]
