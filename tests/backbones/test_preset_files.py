"""The folder of a preset is whole, or refused before anything is loaded from it."""

import types

import pytest

from tf_detreg.backbones import hub
from tf_detreg.backbones.preset_files import Source, source

CONFIG = {"registered_name": "keras_hub>ViTBackbone"}


@pytest.mark.parametrize("weights", ["model.weights.h5", "model.weights.json"])
def test_a_folder_of_keras_hub_needs_weights(weights, tmp_path):
    preset = Source("hub:mine", str(tmp_path), str(tmp_path))
    with pytest.raises(ValueError, match=r"hub:mine is incomplete: it has no model\.weights\.h5"):
        preset.require_weights(CONFIG)
    preset.require_weights({"model_type": "vit"})  # of Hugging Face, whose files have other names
    (tmp_path / weights).mkdir()
    with pytest.raises(ValueError, match="incomplete"):
        preset.require_weights(CONFIG)
    (tmp_path / weights).rmdir()
    (tmp_path / weights).write_bytes(b"weights")
    preset.require_weights(CONFIG)


@pytest.mark.parametrize("location", ["kaggle://keras/vit/keras/base", "hf://google/vit"])
def test_what_must_be_downloaded_is_not_looked_for_before(location):
    Source(location, location, location).require_weights(CONFIG)


def test_a_source_knows_its_site_and_its_files(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "list.json").write_text("[1]")
    folder = Source("hub:mine", str(tmp_path), str(tmp_path))
    assert not folder.remote and folder.file("a.json") == tmp_path / "a.json" and folder.file("b.json") is None
    assert folder.json("a.json") == {"a": 1} and folder.json("b.json") is None
    with pytest.raises(ValueError, match=r"list\.json of hub:mine holds no table"):
        folder.json("list.json")
    for location, site in (("kaggle://a/b/c/d", "Kaggle"), ("hf://a/b", "Hugging Face")):
        source = Source("x", location, location)
        assert source.remote and source.site == site


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, ""),
        ("{}", ""),
        ('{"keras_version": "3.1"}', " (saved by Keras 3.1)"),
        ('{"keras_version": "3.1", "keras_hub_version": "0.2"}', " (saved by keras-hub 0.2 and Keras 3.1)"),
    ],
)
def test_the_versions_that_saved_it_are_named(metadata, said, tmp_path):
    if metadata is not None:
        (tmp_path / "metadata.json").write_text(metadata)
    assert Source("x", str(tmp_path), str(tmp_path)).saved_by() == said


def test_a_size_that_a_model_cannot_take_is_refused_before_its_weights_are_looked_for(tmp_path, monkeypatch):
    def refuse(label, kind, config, size):
        raise ValueError(f"{label}: {kind} with {config} does not take {size}")

    monkeypatch.setattr(hub, "_source", lambda name: Source(name, str(tmp_path), str(tmp_path)))
    monkeypatch.setattr(hub, "_announce", lambda found: None)
    monkeypatch.setattr(hub, "_config", lambda found: {**CONFIG, "config": {"patch_size": 8}})
    monkeypatch.setattr(hub.families, "check_size", refuse)
    with pytest.raises(ValueError, match=r"hub:mine: ViTBackbone with \{'patch_size': 8\} does not take \(33, 32\)"):
        hub.load("hub:mine", (33, 32))
    with pytest.raises(ValueError, match="incomplete"):
        hub.load("hub:mine")


@pytest.mark.parametrize(
    ("scale", "offset", "factors", "offsets"),
    [
        (None, None, [1.0] * 3, [0.0] * 3),
        (2, 0.5, [2.0] * 3, [0.5] * 3),
        ([1, 2, 3], None, [1.0, 2.0, 3.0], [0.0] * 3),
        (None, (4, 5, 6), [1.0] * 3, [4.0, 5.0, 6.0]),
    ],
)
def test_a_converter_that_leaves_out_a_number_changes_nothing_by_it(scale, offset, factors, offsets, monkeypatch):
    monkeypatch.setattr(hub, "_converter", lambda *_: types.SimpleNamespace(scale=scale, offset=offset))
    assert hub._scaling(None, {}) == {"mode": "given", "factor": factors, "offset": offsets}
    monkeypatch.setattr(hub, "_converter", lambda *_: None)
    assert hub._scaling(None, {}) is None


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("kaggle://a/b/keras", "kaggle://USER/MODEL/keras/VARIANT"),
        ("kaggle://a//keras/d", "kaggle://USER/MODEL/keras/VARIANT"),
        ("kaggle://a/b/keras/d/1/2", "kaggle://USER/MODEL/keras/VARIANT"),
        ("hf://a", "hf://USER/MODEL"),
        ("hf://a/", "hf://USER/MODEL"),
        ("hub:hf:///b", "hf://USER/MODEL"),
        ("hf://a/b/c", "hf://USER/MODEL"),
    ],
)
def test_a_handle_of_another_form_is_refused(name, form):
    with pytest.raises(ValueError, match=f"`backbone` must have the form {form}; received '{name}'"):
        source(name, {})


@pytest.mark.parametrize("name", ["kaggle://a/b/keras/d", "kaggle://a/b/keras/d/2", "hf://a/b"])
def test_a_handle_says_where_a_preset_is(name):
    for asked in (name, f"hub:{name}"):
        assert source(asked, {}) == Source(asked, name, name)
    assert source("hub:vit", {"vit": name}) == Source("hub:vit", "vit", name)
