"""Moving a model to another image size, on models that are made for this: what is taken over, and what is refused."""

import types

import numpy as np
import pytest

from tf_detreg.backbones import positions


class Weight:
    """A variable with a path."""

    def __init__(self, path, value):
        self.path, self.name = path, path.rpartition("/")[2]
        self.value = np.asarray(value, np.float32)

    @property
    def shape(self):
        return self.value.shape

    def numpy(self):
        return self.value

    def assign(self, value):
        value = np.asarray(getattr(value, "value", value))
        assert value.shape == self.shape
        self.value = value


class ViTBackbone:
    """Patches of 2 pixels, a class token, positions with three numbers each."""

    name = "small"

    def __init__(self, config, kernel=(2, 3)):
        self.config = config
        height, width, _ = config.get("position_embedding_shape") or config["image_shape"]
        count = height // 2 * (width // 2)
        ramp = np.arange(count, dtype=np.float32)[:, None] * np.ones(3, np.float32)
        self.weights = [
            Weight("body/dense/kernel", np.full(kernel, 7.0)),
            Weight("body/position_embedding/embeddings", np.concatenate([np.full((1, 3), -1.0), ramp])[None]),
            Weight("body/position_ids", np.arange(count + 1)[None]),
            Weight("body/interpolated_position_embeddings", np.zeros((1, 1))),
        ]

    def get_config(self):
        return dict(self.config)

    @classmethod
    def from_config(cls, config):
        made = cls(config, kernel=(2, 3 + config.get("grown", 0)))
        made.weights[0].value = np.zeros_like(made.weights[0].value)
        made.weights[1].value = np.zeros_like(made.weights[1].value)
        return made


@pytest.mark.parametrize(
    "config",
    [
        {"patch_size": 2, "image_shape": (None, None, 3), "position_embedding_shape": (8, 8, 3)},
        {"patch_size": 2, "image_shape": (8, 4, 3)},
        {"patch_size": 2, "image_shape": (8, 4, 3), "position_embedding_shape": (8, 4, 3)},
    ],
)
def test_what_takes_this_size_comes_back_as_it_is(config):
    body = ViTBackbone(config)
    assert positions.at_size(body, (8, 4)) is body


def test_weights_are_taken_over_and_positions_moved():
    body = ViTBackbone({"patch_size": 2, "image_shape": (8, 8, 3), "antialias_in_interpolation": False})
    moved = positions.at_size(body, (4, 8))
    assert moved is not body and moved.config["image_shape"] == (4, 8, 3)
    assert "position_embedding_shape" not in moved.config
    kernel, embeddings, ids, computed = (weight.value for weight in moved.weights)
    assert (kernel == 7.0).all() and ids.tolist() == [list(range(9))] and (computed == 0).all()
    wanted = positions.interpolate(body.weights[1].value, 1, (4, 4), (2, 4), antialias=False)
    np.testing.assert_array_equal(embeddings, wanted)
    assert embeddings[0, 0].tolist() == [-1.0] * 3


def test_stored_positions_of_another_size_are_moved_too():
    # The images have this size already, and what is stored does not.
    config = {"patch_size": 2, "image_shape": (4, 8, 3), "position_embedding_shape": (8, 8, 3)}
    moved = positions.at_size(ViTBackbone(config), (4, 8))
    assert moved.config["position_embedding_shape"] == (4, 8, 3) and moved.weights[1].shape == (1, 9, 3)


def test_other_weights_that_depend_on_the_size_are_named():
    body = ViTBackbone({"patch_size": 2, "image_shape": (8, 6, 3), "grown": 1})
    message = (
        r"^`image_size` must be 8 × 6 for small, whose weight 'body/dense/kernel' depends on it; received 4 × 8\.$"
    )
    with pytest.raises(ValueError, match=message):
        positions.at_size(body, (4, 8))


def test_positions_are_known_by_their_name():
    for path, holds in (
        ("a/position_embedding", True),
        ("position_embeddings/kernel", True),
        ("position_embedding/layer/kernel", False),
        ("a/my_position_embedding", False),
    ):
        assert positions._holds_positions(types.SimpleNamespace(path=path)) is holds


def test_both_positions_of_one_size_are_made_equal():
    def body(computed, stored):
        layer = types.SimpleNamespace(
            interpolated_position_embeddings=Weight("a", computed), position_embeddings=Weight("b", stored)
        )
        return types.SimpleNamespace(embeddings=layer)

    first = body([[1.0]], [[2.0]])
    positions.share_positions(first)
    assert first.embeddings.interpolated_position_embeddings.value.tolist() == [[2.0]]
    second = body([[1.0]], [[2.0]])
    positions.store_positions(second)
    assert second.embeddings.position_embeddings.value.tolist() == [[1.0]]
    third = body([[1.0]], [[2.0], [3.0]])
    positions.store_positions(third)
    positions.share_positions(third)
    assert third.embeddings.interpolated_position_embeddings.value.tolist() == [[1.0]]
    positions.share_positions(types.SimpleNamespace())  # a model of another kind
