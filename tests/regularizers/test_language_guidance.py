"""Language guidance against a float64 reference with loops, on batches and on proxies."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_detreg.regularizers import Context, LanguageGuidance, embed_names, top_class_names

CLASSES = 5


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(row):
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def formula(texts, labels, points, divergence, shift=1.0, temperature=1.0):
    points, texts = unit(points), unit(texts if texts.ndim == 3 else texts[:, None])
    size, names = len(labels), texts.shape[1]
    total = 0.0
    for i in range(size):
        image, text = np.zeros(size), np.zeros(size)
        for j in range(size):
            if labels[i] == labels[j]:
                image[j] = text[j] = 1 + shift
            else:
                image[j] = points[i] @ points[j]
                text[j] = np.mean([texts[labels[i], k] @ texts[labels[j], k] for k in range(names)]) + shift
        image, text = softmax(image / temperature), softmax(text / temperature)
        p, q = (text, image) if divergence == "forward" else (image, text)
        total += np.sum(p * np.log(p / q))
    return temperature**2 * total / size


def expert(seed=0):
    return np.random.default_rng(seed).normal(size=(CLASSES, 7)).astype("float32")


def pseudo():
    return np.random.default_rng(1).normal(size=(CLASSES, 3, 7)).astype("float32")


def measured(guide, points, **context):
    points = tf.convert_to_tensor(points)
    with tf.GradientTape() as tape:
        tape.watch(points)
        value = guide.penalty(Context(**{name: points if part is ... else part for name, part in context.items()}))
    return value.numpy(), tape.gradient(value, points).numpy()


@pytest.mark.parametrize("texts", [expert(), pseudo()], ids=["expert", "pseudo"])
@pytest.mark.parametrize("divergence", ["forward", "backward"])
@pytest.mark.parametrize("options", [{}, {"shift": 0.3, "temperature": 0.5}], ids=["paper", "other"])
@pytest.mark.parametrize("place", ["batch", "proxies"])
def test_value_and_gradient_follow_the_formula(texts, divergence, options, place):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, CLASSES, 8) if place == "batch" else np.repeat(np.arange(CLASSES), 2)
    points = rng.normal(size=(len(labels), 4))
    names = ("labels", "embeddings") if place == "batch" else ("proxy_labels", "proxies")
    guide = LanguageGuidance(texts, divergence, place, dtype="float64", **options)
    value, gradient = measured(guide, points, **dict(zip(names, (tf.constant(labels), ...), strict=True)))
    wide = texts.astype("float64")
    np.testing.assert_allclose(value, formula(wide, labels, points, divergence, **options), rtol=1e-7)
    v, h = rng.normal(size=points.shape), 1e-6
    ahead, behind = (formula(wide, labels, points + d * v, divergence, **options) for d in (h, -h))
    np.testing.assert_allclose(np.sum(gradient * v), (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-8)


def test_images_that_agree_with_language_cost_nothing():
    """S is not shifted and T is, so T - 1 = S must hold between classes with shift 0 only."""
    texts = expert()
    guide = LanguageGuidance(texts, shift=0.0)
    labels = tf.range(CLASSES)
    assert abs(float(guide.penalty(Context(labels=labels, embeddings=tf.constant(texts))))) < 1e-6
    assert float(guide.penalty(Context(labels=labels, embeddings=tf.constant(expert(9))))) > 1e-3


def test_descent_makes_class_similarities_follow_the_names():
    texts = unit(np.array([[1, 0, 0], [0.95, 0.3, 0], [0, 0, 1]], "float32"))
    guide = LanguageGuidance(texts, on="proxies", shift=0.0)
    proxies = tf.Variable(np.random.default_rng(3).normal(size=(3, 4)).astype("float32"))
    optimizer = keras.optimizers.Adam(0.05)
    for _ in range(150):
        with tf.GradientTape() as tape:
            value = guide.penalty(Context(proxies=tf.convert_to_tensor(proxies), proxy_labels=tf.range(3)))
        optimizer.apply([tape.gradient(value, proxies)], [proxies])
    found = unit(proxies.numpy()) @ unit(proxies.numpy()).T
    assert found[0, 1] > found[0, 2] + 0.5 and found[0, 1] > found[1, 2] + 0.3


def test_auto_takes_proxies_where_there_are_any():
    guide = LanguageGuidance(expert())
    labels, embeddings = tf.range(CLASSES), tf.constant(expert(4))
    proxies = tf.constant(expert(5))
    on_batch = LanguageGuidance(expert(), on="batch").penalty(Context(labels=labels, embeddings=embeddings))
    on_proxies = LanguageGuidance(expert(), on="proxies").penalty(Context(proxies=proxies, proxy_labels=labels))
    assert float(on_batch) != float(on_proxies)
    np.testing.assert_allclose(guide.penalty(Context(labels=labels, embeddings=embeddings)), on_batch)
    both = Context(labels=labels, embeddings=embeddings, proxies=proxies, proxy_labels=labels)
    np.testing.assert_allclose(guide.penalty(both), on_proxies)


def test_many_proxies_are_sampled():
    texts = np.random.default_rng(6).normal(size=(50, 4)).astype("float32")
    guide = LanguageGuidance(texts, max_rows=8)
    context = Context(proxies=tf.constant(texts[:, ::-1].copy()), proxy_labels=tf.range(50))
    assert len({float(guide.penalty(context)) for _ in range(4)}) > 1


@pytest.mark.parametrize(
    "labels, points",
    [
        ([0], np.ones((1, 4))),
        ([0, 0, 0], np.ones((3, 4))),
        ([0, 1, 2], np.zeros((3, 4))),
        ([0, 1], [[1, 0], [-1, 0]]),
    ],
)
@pytest.mark.parametrize("divergence", ["forward", "backward"])
def test_degenerate_batches_are_finite(labels, points, divergence):
    guide = LanguageGuidance(expert(), divergence, on="batch")
    for result in measured(guide, np.asarray(points, "float32"), labels=tf.constant(labels), embeddings=...):
        assert np.isfinite(result).all()


@pytest.mark.parametrize("texts", [expert(), pseudo()], ids=["expert", "pseudo"])
def test_configuration_and_texts_survive(texts, tmp_path):
    guide = LanguageGuidance(texts, "forward", "batch", 0.5, 2.0, 99, weight=0.7)
    copy = LanguageGuidance.from_config(guide.get_config())
    copy.set_weights(guide.get_weights())
    assert copy.get_config() == guide.get_config()
    context = Context(labels=tf.range(CLASSES), embeddings=tf.constant(expert(7)))
    np.testing.assert_allclose(copy.penalty(context), guide.penalty(context))
    assert not guide.trainable_weights


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({}, "texts"),
        ({"texts": np.zeros(3)}, "texts"),
        ({"texts": np.full((2, 2), np.nan)}, "texts"),
        ({"texts": np.eye(2), "divergence": "sideways"}, "divergence"),
        ({"texts": np.eye(2), "on": "moon"}, "`on` must"),
        ({"texts": np.eye(2), "temperature": 0}, "temperature"),
    ],
)
def test_wrong_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        LanguageGuidance(**arguments)


@pytest.mark.parametrize("labels", [[0, 2], [0, -1]])
def test_a_label_without_text_raises_eagerly_and_in_a_graph(labels):
    guide = LanguageGuidance(np.eye(2), on="batch")
    labels, embeddings = tf.constant(labels), tf.eye(2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="texts has 2 rows"):
        guide.penalty(Context(labels=labels, embeddings=embeddings))
    with pytest.raises(tf.errors.InvalidArgumentError, match="texts has 2 rows"):
        tf.function(lambda y, x: guide.penalty(Context(labels=y, embeddings=x)))(labels, embeddings)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint32", "int64"])
def test_labels_may_be_integers_of_any_size(kind):
    guide, embeddings = LanguageGuidance(np.eye(300), on="batch"), tf.eye(2, 4)
    found, wanted = (
        guide.penalty(Context(labels=tf.constant([0, 201], dtype), embeddings=embeddings)) for dtype in (kind, "int32")
    )
    assert float(found) == float(wanted)


def test_pseudo_names_and_their_embeddings():
    scores = [[5.0, 0.0, 1.0], [1.0, 0.0, 9.0], [0.0, 7.0, 1.0]]
    assert top_class_names(scores, [0, 0, 1], ["a, alpha", "b", "c"], k=2) == [["c", "a"], ["b", "c"]]
    with pytest.raises(ValueError, match="class 1"):
        top_class_names(scores, [0, 0, 2], ["a", "b", "c"], k=1)
    with pytest.raises(ValueError, match="scores"):
        top_class_names(scores, [0, 1], ["a", "b", "c"])
    with pytest.raises(ValueError, match="`k` must"):
        top_class_names(scores, [0, 0, 1], ["a", "b", "c"], k=4)
    seen = []

    class Encoder:
        def encode(self, texts):
            seen.extend(texts)
            return np.arange(2 * len(texts)).reshape(-1, 2)

    vectors = embed_names([["c", "a"], ["b", "c"]], Encoder(), "photo: {}")
    assert vectors.shape == (2, 2, 2) and vectors[1, 0].tolist() == [4, 5]
    assert seen == ["photo: c", "photo: a", "photo: b", "photo: c"]
