"""Small presets of keras-hub with random weights, saved to folders as `save_to_preset` does."""

import keras
import numpy as np

SIZE = 32
SCALE, OFFSET = [0.015, 0.016, 0.017], [-2.0, -1.9, -1.8]
_VISION = {"patch_size": 8, "hidden_dim": 16, "num_layers": 2, "num_heads": 2, "intermediate_dim": 24}
_TEXT = {"vocabulary_size": 20, "embedding_dim": 16, "hidden_dim": 16, "num_layers": 1, "num_heads": 2}
_SHAPE = (SIZE, SIZE, 3)


def _vit(hub):
    return hub.models.ViTBackbone(
        image_shape=_SHAPE, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24
    )


def _deit(hub):
    return hub.models.DeiTBackbone(image_shape=_SHAPE, **_VISION)


def _dinov2(hub):
    # Made for 48 px, as the real ones are made for 518, with registers, as some of them have.
    return hub.models.DINOV2Backbone(
        image_shape=_SHAPE, position_embedding_shape=(48, 48, 3), num_register_tokens=2, **_VISION
    )


def _dinov3(hub):
    return hub.models.DINOV3Backbone(image_shape=_SHAPE, num_register_tokens=2, **_VISION)


def _two_towers(hub, name, **more):
    vision = getattr(hub.models, f"{name}VisionEncoder")(image_shape=_SHAPE, **_VISION)
    text = getattr(hub.models, f"{name}TextEncoder")(**_TEXT, intermediate_dim=24)
    backbone = getattr(hub.models, f"{name}Backbone")(vision, text, **more)
    for weight in backbone.weights:
        # keras-hub takes these from the preset's weights alone.
        if weight.name == "position_ids":
            weight.assign(np.arange(weight.shape[-1])[None])
    return backbone


def _clip(hub):
    return _two_towers(hub, "CLIP", projection_dim=12)


def _metaclip2(hub):
    return _two_towers(hub, "MetaCLIP2", projection_dim=12)


def _siglip(hub):
    return _two_towers(hub, "SigLIP")


def _resnet(hub):
    return hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        use_pre_activation=False,
    )


def _mobilenetv5(hub):
    one = [[0], [0, 0]]
    return hub.models.MobileNetV5Backbone(
        stackwise_block_types=[["er"], ["uir", "uir"]],
        stackwise_num_blocks=[1, 2],
        stackwise_num_filters=[[8], [16, 16]],
        stackwise_strides=[[2], [2, 1]],
        stackwise_act_layers=[["relu"], ["relu", "relu"]],
        stackwise_exp_ratios=[[4.0], [6.0, 6.0]],
        stackwise_se_ratios=[[0.0], [0.0, 0.0]],
        stackwise_dw_kernel_sizes=[[0], [5, 5]],
        stackwise_dw_start_kernel_sizes=one,
        stackwise_dw_end_kernel_sizes=one,
        stackwise_exp_kernel_sizes=[[3], [0, 0]],
        stackwise_pw_kernel_sizes=[[1], [0, 0]],
        stackwise_num_heads=one,
        stackwise_key_dims=one,
        stackwise_value_dims=one,
        stackwise_kv_strides=one,
        stackwise_use_cpe=[[False], [False, False]],
        use_msfa=False,
    )


def _swin(hub):
    return hub.models.SwinTransformerBackbone(
        image_shape=_SHAPE, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, drop_path=0.0
    )


def _mit(hub):
    return hub.models.MiTBackbone(
        layerwise_depths=[1, 1],
        image_shape=_SHAPE,
        hidden_dims=[8, 16],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.0,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
    )


# name -> (maker, features by default)
MAKERS = {
    "vit": (_vit, 16),
    "deit": (_deit, 16),
    "dinov2": (_dinov2, 16),
    "dinov3": (_dinov3, 16),
    "clip": (_clip, 16),
    "metaclip2": (_metaclip2, 16),
    "siglip": (_siglip, 16),
    "resnet": (_resnet, 64),
    "mobilenetv5": (_mobilenetv5, 16),
    "swin": (_swin, 16),
    "mit": (_mit, 16),
}


def converter_class(backbone):
    """Return keras-hub's image converter for a backbone."""
    import keras_hub

    kinds = keras_hub.layers.ImageConverter.__subclasses__()
    return next(kind for kind in kinds if kind.backbone_cls is type(backbone))


def save(name, folder, size=SIZE):
    """Write the preset `name` to a folder, and return the model."""
    import keras_hub

    keras.utils.set_random_seed(7)
    backbone = MAKERS[name][0](keras_hub)
    for weight in backbone.weights:
        added = "token" in weight.path or "position_embedding" in weight.path
        if weight.name == "interpolated_position_embeddings" or not (weight.trainable or added):
            continue  # keras-hub computes the first when the preset is loaded
        # Zeros, as of class tokens and biases, would hide what is lost; what is added to patches is of their size.
        weight.assign_add(keras.random.normal(weight.shape, stddev=0.5 if added else 0.05, seed=len(weight.path)))
    backbone.save_to_preset(str(folder))
    converter = converter_class(backbone)(image_size=(size, size), scale=SCALE, offset=OFFSET)
    converter.save_to_preset(str(folder))
    # DINOv2 computes its position embeddings anew when it is loaded.
    return keras_hub.models.Backbone.from_preset(str(folder)) if name == "dinov2" else backbone
