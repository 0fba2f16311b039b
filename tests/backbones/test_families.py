"""What is known of keras-hub's architectures, of which a few only can be built in a test: sizes, tokens, towers."""

import types

import pytest

from tf_detreg.backbones import families
from tf_detreg.backbones.families import FAMILIES, Family


def refused(kind, config, size, what):
    with pytest.raises(ValueError) as caught:
        families.check_size("hub:x", kind, config, size)
    assert str(caught.value) == f"`image_size` must {what}; received {size[0]} × {size[1]}."


def allowed(kind, config, *sizes):
    for size in sizes:
        families.check_size("hub:x", kind, config, size)


def test_square_ones_take_squares():
    for kind in ("CLIPVisionEncoder", "DINOV2Backbone", "DINOV3Backbone", "SigLIPVisionEncoder", "MiTBackbone"):
        refused(kind, {}, (64, 32), "be square for hub:x")
        allowed(kind, {}, (64, 64))
    for kind in ("ViTBackbone", "ResNetBackbone", "DeiTBackbone"):
        allowed(kind, {}, (64, 32))


def test_fixed_ones_take_their_size_alone():
    made = {"image_shape": (224, 192, 3)}
    refused("SwinTransformerBackbone", made, (224, 224), "be 224 × 192 for hub:x, which takes no other")
    allowed("SwinTransformerBackbone", made, (224, 192))
    for unknown in ({}, {"image_shape": (None, None, 3)}):
        allowed("SwinTransformerBackbone", unknown, (99, 98))
    allowed("ViTBackbone", made, (99, 98))


def test_patches_divide_the_image():
    config = {"patch_size": [16, 14]}
    allowed("ViTBackbone", config, (32, 28), (16, 14))
    tail = "whose patches divide the image, such as"
    refused("ViTBackbone", config, (33, 28), f"be a multiple of 16 × 14 for hub:x, {tail} 32 × 28 or 48 × 28")
    refused("ViTBackbone", config, (32, 13), f"be a multiple of 16 × 14 for hub:x, {tail} 32 × 14 or 32 × 14")
    allowed("MiTBackbone", {}, (64, 64))
    refused("MiTBackbone", {}, (48, 48), f"be a multiple of 32 × 32 for hub:x, {tail} 32 × 32 or 64 × 64")
    allowed("CSPNetBackbone", {}, (33, 47))


@pytest.mark.parametrize(
    ("config", "patch", "made"),
    [
        ({}, None, None),
        ({"patch_size": 14, "image_shape": [98, 70, 3]}, (14, 14), (98, 70)),
        ({"patch_size": (4, 8), "input_shape": (32, 64, 3)}, (4, 8), (32, 64)),
        ({"image_shape": (None, None, 3)}, None, None),
    ],
)
def test_sizes_in_a_configuration(config, patch, made):
    assert (families.patch(config), families.made_for(config)) == (patch, made)


def test_tokens_before_those_of_the_patches_and_pooling():
    one, two, none = FAMILIES["DINOV2Backbone"], FAMILIES["DeiTBackbone"], FAMILIES["SigLIPVisionEncoder"]
    assert (one.prefix({}), one.prefix({"num_register_tokens": 4}), two.prefix({})) == (1, 5, 2)
    assert one.prefix({"use_class_token": False, "num_register_tokens": 4}) == 0 and none.prefix({}) == 0
    assert (one.pooling({}), one.pooling({"use_class_token": False}), none.pooling({})) == ("class", "avg", "attention")
    assert Family().pooling({}) == "avg"


def test_every_architecture_is_one_of_keras_hub():
    hub = pytest.importorskip("keras_hub", reason="the extra `hub` is not installed")
    modules = [hub.models, __import__("keras_hub.src.models.clip.clip_vision_encoder", fromlist=["x"])]
    known = {name for module in modules for name in dir(module)}
    # Towers are no public names of keras-hub.
    towers = set(families.TWO_TOWERS.values())
    missing = (set(FAMILIES) | set(families.TWO_TOWERS)) - towers - known
    assert not missing


def test_two_towers_are_told_from_one():
    assert families.TWO_TOWERS == {
        "CLIPBackbone": "CLIPVisionEncoder",
        "MetaCLIP2Backbone": "MetaCLIP2VisionEncoder",
        "SigLIPBackbone": "SigLIPVisionEncoder",
    }
    for whole, tower in families.TWO_TOWERS.items():
        assert families.vision_class(whole) == families.vision_class(tower) == tower
        inner = {"patch_size": 16}
        assert families.vision_config(whole, {"vision_encoder": {"config": inner}}) == inner
        found = type(whole, (), {"vision_encoder": "the tower"})()
        assert families.vision_tower(found) == "the tower"
    assert families.vision_config("ViTBackbone", {"patch_size": 8}) == {"patch_size": 8}
    alone = types.SimpleNamespace(vision_encoder="no tower")
    assert families.vision_tower(alone) is alone
    both = types.SimpleNamespace(vision_projection="second", vision_post_layer_norm="first")
    assert families.projection(both) == ["first", "second"] and families.projection(alone) == []
