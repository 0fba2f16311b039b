"""Former names keep working for a version, with a `DeprecationWarning` that says the new one."""

import importlib
import inspect

import numpy as np
import pytest

from tf_detreg import datasets, deprecated, export, index, regularizers, retrieval

ARGUMENTS = [
    *((loader, "path", "directory") for loader in (datasets.cub, datasets.cars, datasets.sop, datasets.in_shop)),
    (datasets.folder, "path", "directory"),
    *(
        (made, "path", "directory")
        for made in (index.Index.load.__func__, index.Index.create.__func__, index.Index.save)
    ),
    (index.Index.check_directory, "path", "directory"),
    (datasets.csv, "root", "directory"),
    (datasets.tfds, "data_dir", "directory"),
    (datasets.cache_features, "folder", "directory"),
    (regularizers.SentenceEncoder.__init__, "folder", "directory"),
    (regularizers.embed_names, "names", "class_names"),
    (regularizers.top_class_names, "names", "class_names"),
    (export.model_card, "licence", "license"),
    (export.retrieval_saved_model, "neighbour_recall", "neighbor_recall"),
    (export.verify, "artefacts", "artifacts"),
    (export.saved_model, "labels", "class_names"),
    (export.litert, "labels", "class_names"),
]
MODULES = [
    ("tf_detreg.analysis.neighbours", "Neighbours", "tf_detreg.analysis.neighbors", "Neighbors"),
    ("tf_detreg.analysis.neighbours", "within", "tf_detreg.analysis.neighbors", "within"),
    ("tf_detreg.datasets.decode", "RandomCrop", "tf_detreg.images", "RandomCrop"),
    ("tf_detreg.export.decoding", "decode_batch", "tf_detreg.images.graph", "decode_batch"),
    ("tf_detreg.retrieval", "Index", "tf_detreg.index", "Index"),
]


@pytest.mark.parametrize(("function", "old", "new"), ARGUMENTS)
def test_a_former_argument_is_handed_on(function, old, new, monkeypatch):
    assert new in inspect.signature(function).parameters and old not in inspect.signature(function).parameters
    inner = inspect.unwrap(function)
    cell = next(cell for cell in function.__closure__ if cell.cell_contents is inner)
    seen = {}
    cell.cell_contents = lambda **options: seen.update(options)
    try:
        with pytest.warns(DeprecationWarning, match=rf"{old}=.* is .*{new}=.* goes in version {deprecated.REMOVED_IN}"):
            function(**{old: "given"})
    finally:
        cell.cell_contents = inner
    assert seen == {new: "given"}


def test_both_names_at_once_are_refused(tmp_path):
    with pytest.raises(TypeError, match="`directory` twice"):
        datasets.folder(tmp_path, path=tmp_path)


@pytest.mark.parametrize(("module", "old", "new_module", "new"), MODULES)
def test_a_former_name_is_the_new_one(module, old, new_module, new):
    with pytest.warns(DeprecationWarning, match=f"{old}` is `{new_module}.{new}` now"):
        found = getattr(importlib.import_module(module), old)
    assert found is getattr(importlib.import_module(new_module), new)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        importlib.import_module(module).other  # noqa: B018


def test_former_attributes():
    points = np.eye(3)[[0, 0, 1, 2]] + 0.01
    report = retrieval.evaluate(points, [0, 0, 1, 2], k=1, resamples=0)
    with pytest.warns(DeprecationWarning, match="lone_queries"):
        assert report.lone_queries == report.queries_without_positives == 2
    with pytest.warns(DeprecationWarning, match="as_dict"):
        assert report.as_dict() == report.to_dict()
    assert report.to_dict()["queries_without_positives"] == 2
    found = index.Index(points).search(points[:1], k=2)
    with pytest.warns(DeprecationWarning, match="neighbour_recall"):
        assert found.neighbour_recall == found.neighbor_recall == 1.0
    with pytest.warns(DeprecationWarning, match="places"):
        assert found.places is found.positions
    with pytest.warns(DeprecationWarning, match="check_place"):
        assert index.Index.check_place is index.Index.check_directory


def test_the_warning_names_the_line_of_the_caller():
    with pytest.warns(DeprecationWarning) as caught:
        getattr(importlib.import_module("tf_detreg.datasets.decode"), "decode")  # noqa: B009
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning) as caught, pytest.raises(FileNotFoundError):
        datasets.folder(path="nowhere")
    assert caught[0].filename == __file__
