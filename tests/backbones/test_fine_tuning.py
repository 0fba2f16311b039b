"""What of a backbone trains: blocks, freezing from below, low-rank factors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg import backbones, heads, losses, training
from tf_detreg.backbones.blocks import block_names, layer_factors
from tf_detreg.backbones.drop_path import with_drop_path
from tf_detreg.callbacks import GradualUnfreezing
from tf_detreg.export.inference import inference_model


@keras.saving.register_keras_serializable("test_fine_tuning")
class Block(keras.layers.Layer):
    """A block of a transformer: attention and two dense layers, in a layer that holds others."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = keras.layers.LayerNormalization(name="norm")
        self.attention = keras.layers.MultiHeadAttention(2, 4, name="attention")
        self.wide = keras.layers.Dense(16, activation="gelu", name="wide")
        self.narrow = keras.layers.Dense(8, name="narrow")

    def build(self, shape):
        self.norm.build(shape)
        self.attention.build(shape, shape)
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], 16))
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        y = self.norm(x)
        x = x + self.attention(y, y)
        return x + self.scale * self.narrow(self.wide(x))


def transformer(blocks=3):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 4, 4, name="patches")(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.Reshape((4, 8))(x)
    for number in range(blocks):
        x = Block(name=f"transformer_block_{number}")(x)
    x = keras.layers.LayerNormalization(name="last_norm")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling1D()(x), name="tiny_vit")


def images(count=6):
    return np.random.default_rng(0).uniform(0, 255, (count, 8, 8, 3)).astype("float32")


def metric_model(backbone):
    embedder = keras.Sequential([keras.Input((8, 8, 3)), backbone, heads.Linear(4)])
    model = training.MetricModel(embedder, losses.ProxyAnchor(3))
    model.compile(training.optimizer(1e-2, 1e-2, 10))
    return model


BLOCKS = {
    "conv1_conv/kernel conv2_block1_1_conv/kernel conv2_block2_0_bn/gamma": "stem conv2_block1 conv2_block2",
    "Conv1/kernel block_1_expand/kernel block_2_project_BN/beta Conv_1/kernel": "stem block_1 block_2 top",
    "vit/transformer_block_1/mha/query/kernel vit/transformer_block_2/mlp/dense_1/bias": (
        "vit/transformer_block_1 vit/transformer_block_2"
    ),
    "embeddings/cls_token encoder/layers_0/norm1/beta encoder/layers_1/norm1/beta layernorm/gamma": (
        "stem encoder/layers_0 encoder/layers_1 top"
    ),
    "a_stem/a_stem_conv/kernel a_stage_0_block_0_conv/kernel a_downsampling/x/kernel a_stage_1_block_0_n/bias": (
        "stem a_stage_0_block_0 a_stage_0_block_0 a_stage_1_block_0"
    ),
    "block1_conv1/kernel block1_conv2/kernel block2_conv1/bias": "block1 block1 block2",
    "conv2d_1/kernel conv2d_1/bias conv2d_2/kernel": "part1 part1 part7",
}


@pytest.mark.parametrize("paths", BLOCKS)
def test_blocks_go_by_the_names_of_layers(paths):
    assert block_names(paths.split()) == BLOCKS[paths].split()


def test_lite0_has_its_sixteen_blocks():
    names = list(backbones.blocks(backbones.build("efficientnet_lite0", 32)))
    assert (names[0], names[1], names[-2], names[-1], len(names)) == ("stem", "block1a", "block7a", "top", 18)


def test_deep_models_share_rates():
    factors = layer_factors([f"block{number}/kernel" for number in range(48)], 0.5)
    assert len(set(factors)) == 24 and factors[-1] == factors[-2] == 1.0 and factors == sorted(factors)


def test_freeze_until_holds_against_unfreezing():
    net = transformer()
    assert list(backbones.blocks(net)) == ["stem", *(f"transformer_block_{n}" for n in range(3)), "top"]
    backbones.freeze_until(net, "transformer_block_1")
    names = {weight.path.split("/")[0] for weight in net.trainable_weights}
    assert names == {"transformer_block_1", "transformer_block_2", "last_norm"}
    # Also the weight that a block owns beside those of its layers.
    assert "transformer_block_1/scale" in [weight.path for weight in net.trainable_weights]
    before = len(net.trainable_weights)
    backbones.unfreeze(net, 1.0)
    assert len(net.trainable_weights) == before
    backbones.unfreeze(net, 0.0)
    assert not net.trainable_weights
    by_number = transformer()
    backbones.freeze_until(by_number, 2)
    assert len(by_number.trainable_weights) == before


def test_unfreezing_of_layers_in_layers():
    """A block's own weight does not decide on the layers inside it."""
    net = transformer()
    backbones.unfreeze(net, 1 / len(list(backbones.leaf_layers(net))))
    assert [weight.path for weight in net.trainable_weights] == ["last_norm/gamma", "last_norm/beta"]
    backbones.unfreeze(net, 1.0)
    assert len(net.trainable_weights) == len(net.weights)


def test_lora_leaves_the_base_alone():
    net = transformer()
    whole, x = len(net.weights), images()
    before, kernels = net.predict(x, verbose=0), {weight.path: weight.numpy() for weight in net.weights}
    adapted = backbones.enable_lora(net, 2)
    assert adapted == 3 * 6 and len(net.trainable_weights) == 2 * adapted
    np.testing.assert_array_equal(net.predict(x, verbose=0), before)
    model = metric_model(net)
    model.fit(x, np.array([0, 0, 1, 1, 2, 2]), batch_size=6, epochs=2, verbose=0)
    for weight in net.weights:
        if weight.path in kernels:
            np.testing.assert_array_equal(weight.numpy(), kernels[weight.path], err_msg=weight.path)
    # What was "12 → 42 trainable weights".
    assert backbones.unfreeze(net, 1.0) == adapted and len(net.trainable_weights) == 2 * adapted
    assert backbones.unfreeze(net, 0.5) == adapted // 2 and len(net.trainable_weights) == adapted
    merged = inference_model(model)
    assert len(merged.weights) == whole + 2 and not backbones.has_lora(merged)
    assert backbones.has_lora(model.embedder)
    np.testing.assert_allclose(merged(x), model.embedder(x), atol=1e-5)
    assert np.abs(merged.layers[0](x) - before).max() > 1e-3


def test_a_merged_model_is_saved_without_factors(tmp_path):
    net = transformer()
    backbones.enable_lora(net, 2)
    for weight in net.trainable_weights:
        weight.assign(tf.random.stateless_normal(weight.shape, (1, 2)) / 4)
    backbones.merge_lora(net).save(tmp_path / "merged.keras")
    loaded = keras.models.load_model(tmp_path / "merged.keras")
    assert len(loaded.weights) == len(transformer().weights)
    np.testing.assert_allclose(loaded(images()), net(images()), atol=1e-4)


def test_gradual_unfreezing_with_lora():
    model = metric_model(backbones.restrict(transformer(), lora_rank=1))
    factors = [weight.numpy() for weight in model.backbone.trainable_weights]
    x, y = images(), np.array([0, 0, 1, 1, 2, 2])
    model.fit(x, y, batch_size=6, epochs=1, verbose=0, callbacks=[GradualUnfreezing(start=1, stages=1)])
    assert not model.backbone.trainable_weights
    model.fit(x, y, batch_size=6, epochs=3, verbose=0, callbacks=[GradualUnfreezing(start=1, stages=1)])
    assert len(model.backbone.trainable_weights) == len(factors)
    assert any(np.any(a != b.numpy()) for a, b in zip(factors, model.backbone.trainable_weights, strict=True))


def test_an_adapter_carries_what_was_trained(tmp_path):
    def made():
        keras.utils.set_random_seed(3)
        return metric_model(backbones.restrict(transformer(), lora_rank=2))

    model = made()
    x = images()
    model.fit(x, np.array([0, 0, 1, 1, 2, 2]), batch_size=6, verbose=0)
    backbones.save_adapter(model.embedder, tmp_path / "adapter.npz")
    other = made()
    assert np.abs(other.embedder(x) - model.embedder(x)).max() > 1e-4
    backbones.load_adapter(other.embedder, tmp_path / "adapter.npz")
    np.testing.assert_array_equal(other.embedder(x), model.embedder(x))
    with pytest.raises(ValueError, match="another backbone, rank or head"):
        backbones.load_adapter(
            metric_model(backbones.restrict(transformer(), lora_rank=3)).embedder, tmp_path / "adapter.npz"
        )
    (tmp_path / "half.npz").write_bytes((tmp_path / "adapter.npz").read_bytes()[:500])
    with pytest.raises(ValueError, match="which is damaged"):
        backbones.load_adapter(other.embedder, tmp_path / "half.npz")
    with pytest.raises(ValueError, match="no low-rank factors"):
        backbones.save_adapter(transformer(), tmp_path / "none.npz")


def test_an_adapter_with_code_in_it_is_refused_without_running_it(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path / "ran").mkdir, ()

    embedder = metric_model(backbones.restrict(transformer(blocks=1), lora_rank=1)).embedder
    backbones.save_adapter(embedder, tmp_path / "adapter.npz")
    with np.load(tmp_path / "adapter.npz") as file:
        arrays = dict(file)
    arrays[next(name for name in arrays if "lora" in name)] = np.array(Evil(), dtype=object)
    np.savez(tmp_path / "evil.npz", **arrays)
    with pytest.raises(ValueError):
        backbones.load_adapter(embedder, tmp_path / "evil.npz")
    assert not (tmp_path / "ran").exists()


def test_all_of_a_backbone_trains_unless_told_otherwise():
    net = backbones.restrict(backbones.small_cnn(16, width=4))
    assert len(net.trainable_weights) == len(backbones.small_cnn(16, width=4).trainable_weights)
    norms = [layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and all(layer.trainable for layer in norms)
    assert not backbones.restrict(backbones.small_cnn(16, width=4), trainable=False).trainable_weights


def test_every_contradiction_is_one_sentence():
    cnn = backbones.small_cnn(16, width=4)
    for options, message in [
        ({"lora_rank": 4}, "`lora_rank` needs a backbone with dense layers"),
        ({"lora_rank": 0}, "`lora_rank` must be a whole number"),
        ({"freeze_until": "block9"}, "received 'block9'. Blocks: block1, block2, block3, top"),
        ({"freeze_until": 4}, "must leave one of the 4 blocks"),
        ({"freeze_until": 1, "lora_rank": 2, "trainable": False}, "be true with freeze_until and lora_rank"),
    ]:
        with pytest.raises(ValueError, match=message):
            backbones.restrict(cnn, **options)
    for rate, message in [(1.0, "`drop_path` must be"), (0.1, "None but for efficientnet_lite0")]:
        with pytest.raises(ValueError, match=message):
            with_drop_path(cnn, rate)
    with pytest.raises(ValueError, match="low-rank factors already"):
        backbones.restrict(backbones.restrict(transformer(), lora_rank=1), lora_rank=1)


def test_nothing_left_to_train_is_one_sentence():
    model = metric_model(transformer())
    model.trainable = False
    with pytest.raises(ValueError, match="Nothing is left to train"):
        model.fit(images(), np.array([0, 0, 1, 1, 2, 2]), verbose=0)
    with pytest.raises(ValueError, match="Nothing is left to train"):
        training.optimizer().build([])


def test_drop_path_of_lite0():
    x = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    keras.utils.set_random_seed(0)
    without = backbones.build("efficientnet_lite0", 32, drop_path=0.0, freeze_batch_norm=True)
    np.testing.assert_allclose(without(x, training=True), without(x), atol=1e-5)
    much = backbones.build("efficientnet_lite0", 32, drop_path=0.9, freeze_batch_norm=True)
    much.set_weights(without.get_weights())
    np.testing.assert_allclose(much(x), without(x), atol=1e-5)
    assert np.abs(much(x, training=True) - without(x)).max() > 1e-3


def test_an_adapter_holds_the_factors_also_while_they_are_frozen():
    from tf_detreg.backbones import lora

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="dense")])
    backbones.enable_lora(model, 2)
    kept = set(lora._adapter(model))
    assert len(kept) == 2 and all("lora" in name for name in kept)
    model.trainable = False
    assert set(lora._adapter(model)) == kept
