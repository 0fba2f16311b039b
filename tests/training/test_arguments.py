"""Each entry of a configuration arrives where it counts; nothing trains here."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import backbones, datasets, heads, losses, training
from tf_detreg._compat import is_op_determinism_enabled
from tf_detreg.training import RunConfig, assembly, distribution, metric_model, moved_data, stages

SMALL = {
    "data": "digits",
    "backbone": {"name": "small_cnn", "width": 2, "blocks": 1},
    "head": {"name": "Linear", "dim": 4},
    "classes": 3,
    "images": 2,
}


def image_set(count=12):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return datasets.ImageSet(np.arange(count) % 4, list("abcd"), pixels)


@pytest.fixture(scope="module")
def splits():
    return datasets.Splits(image_set(), image_set(8), image_set(8))


def test_switches_of_the_process_are_put_back_also_after_an_error():
    def now():
        return keras.config.dtype_policy().name, is_op_determinism_enabled()

    before = now()
    assert before == ("float32", False)
    with pytest.raises(KeyError), stages.settings(RunConfig(precision="float64")):
        assert now() == ("float64", True)
        # What is on already is left on.
        with stages.settings(RunConfig(precision="float64")):
            pass
        assert now() == ("float64", True)
        raise KeyError
    assert now() == before
    with stages.settings(RunConfig(deterministic=False)):
        assert now() == before


@pytest.fixture
def assembled(splits, monkeypatch):
    """Assemble with changes; return the parts and what `compile` was given."""
    compiled = []
    build = training.MetricModel.compile

    def compile(self, *given, **options):
        compiled.append(options)
        build(self, *given)

    monkeypatch.setattr(training.MetricModel, "compile", compile)
    return lambda **changes: (training.assemble(RunConfig.from_dict({**SMALL, **changes}), splits), compiled[-1])


def test_batches_callbacks_and_compile_get_their_numbers(assembled, splits, monkeypatch):
    watched = []
    monkeypatch.setattr(stages.Health, "of", lambda *given, **options: watched.append((given, options)) or "health")
    changes = {"seed": 7, "health": True, "unfreezing": {"start": 2, "stages": 3}, "jit_compile": True}
    parts, compiled = assembled(**changes, steps_per_execution=50)
    assert parts.batches.args == (3, 2)
    assert parts.batches.keywords == {"seed": 7, "augment": None}
    assert watched == [((splits.train,), {"seed": 7})]
    unfreezing, health = parts.callbacks
    assert (unfreezing.start, unfreezing.stages, health) == (2, 3, "health")
    # An epoch is two steps: more in one call would run over its end.
    assert parts.steps == 2 and compiled == {"jit_compile": True, "steps_per_execution": 2}


def test_fit_goes_on_at_an_epoch_with_the_callers_callbacks_last(assembled, monkeypatch):
    parts, compiled = assembled(epochs=5, prefetch_to_device=3)
    assert compiled == {"jit_compile": False, "steps_per_execution": 1} and parts.callbacks == []
    asked = []
    monkeypatch.setattr(distribution, "_on_device", lambda *given: given)
    model = types.SimpleNamespace(fit=lambda *given, **options: asked.append((given, options)) or "history")
    changed = {"model": model, "callbacks": ["ours"], "batches": lambda first_epoch: ("batches", first_epoch)}
    parts = stages.Assembled(**{**vars(parts), **changed})
    assert parts.fit(["theirs"], 0, first_epoch=2) == "history"
    options = {"epochs": 5, "initial_epoch": 2, "steps_per_epoch": None, "shuffle": False, "verbose": 0}
    assert asked == [(((("batches", 2), 3),), {**options, "callbacks": ["ours", "theirs"]})]


def test_features_that_are_there_are_not_computed_again():
    data = stages.Data(RunConfig(), types.SimpleNamespace(train=types.SimpleNamespace(features="there")), "place")
    assert stages.with_features(data, None) is data


def test_weights_of_a_backbone_are_looked_for_as_data_are(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(backbones, "build", lambda name, size, **options: asked.append((name, size, options)))
    monkeypatch.setenv("TF_DETREG_DATA", str(tmp_path))
    (tmp_path / "weights.npz").touch()
    config = RunConfig.from_dict({"backbone": {"name": "ResNet50", "weights": "weights.npz", "trainable": False}})
    for size in ((32, 32), (32, 48)):
        assembly.build_backbone(config, size)
    given = {"weights": str(tmp_path / "weights.npz"), "trainable": False}
    assert asked == [("ResNet50", 32, given), ("ResNet50", (32, 48), given)]


def test_texts_of_a_file_are_those_of_the_train_classes_in_their_order(tmp_path):
    np.savez(tmp_path / "texts.npz", a=[1.0, 2.0], b=[3.0, 4.0], c=[5.0, 6.0])
    part = {"name": "LanguageGuidance", "texts": str(tmp_path / "texts.npz")}
    found = assembly._texts(part, types.SimpleNamespace(class_names=("c", "a")))
    assert found["texts"].tolist() == [[5, 6], [1, 2]]
    with pytest.raises(ValueError, match="`texts` must be"):
        assembly._texts(part, types.SimpleNamespace(class_names=("d",)))


def test_another_head_keeps_the_width_and_data_have_an_address():
    config = RunConfig.from_dict(SMALL)
    assert config.replace(head="NICE").head == {"name": "NICE", "dim": 4}
    with pytest.raises(ValueError, match="`data` must say where cub is; received no path"):
        assembly.load_splits(config.replace(data={"name": "cub"}))
    with pytest.raises(ValueError, match="`data` must say where the images are"):
        moved_data.moved(config, "")


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "first"),
    [
        (["worker"], "worker", 0, True),
        (["worker"], "worker", "0", True),
        (["worker"], "worker", 1, False),
        (["chief", "worker"], "worker", 0, False),
        (["chief", "worker"], "chief", 0, True),
        (["worker"], "ps", 0, False),
    ],
)
def test_one_process_of_a_cluster_writes(cluster, kind, index, first, monkeypatch):
    text = f'{{"cluster": {{{", ".join(f"{chr(34)}{name}{chr(34)}: []" for name in cluster)}}}, '
    text += f'"task": {{"type": "{kind}", "index": {f"{chr(34)}{index}{chr(34)}" if index == "0" else index}}}}}'
    monkeypatch.setenv("TF_CONFIG", text)
    assert distribution._is_first() is first


@pytest.fixture(scope="module")
def model():
    embedder = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), heads.Linear(4)])
    parts = {"rival": heads.Linear(4, name="rival"), "rival_loss_weight": 0.5, "rival_proxies": "own"}
    return training.MetricModel(embedder, losses.ProxyAnchor(3), **parts, interpolation=0.25)


def test_a_model_is_made_again_with_all_its_settings(model):
    again = training.MetricModel.from_config(model.get_config())
    for one in (model, again):
        assert (one.rival_loss_weight, one.rival_proxies, one.interpolation.epsilon) == (0.5, "own", 0.25)
        assert one.rival.name == "rival" and one.rival_loss is not one.loss_function
    assert model.compute_output_shape((7, 4, 4, 3)) == (7, 4)


def test_what_is_exported_has_its_low_rank_factors_merged(model, monkeypatch):
    asked = []
    merged = types.SimpleNamespace(export=lambda *given, **options: ("exported", given, options))
    monkeypatch.setattr(metric_model, "merge_lora", lambda embedder: asked.append(embedder) or merged)
    assert model.export("there", format="tf_saved_model") == ("exported", ("there",), {"format": "tf_saved_model"})
    assert asked == [model.embedder]


def test_metrics_of_single_batches_are_refused(model):
    for name in ("metrics", "weighted_metrics"):
        with pytest.raises(ValueError, match=r"`metrics` must be left out, .*RetrievalEvaluation"):
            model.compile("sgd", **{name: ["mae"]})
    assert tf.executing_eagerly()
