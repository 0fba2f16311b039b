"""One trial: build a recipe's embedder, train it with `MetricModel.fit`, measure it on unseen classes."""

import resource
import time
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from tf_detreg.experiments import collapse, data, texts
from tf_detreg.experiments.data import Arrays


def run(recipe: Mapping, train: Arrays, evaluation: Arrays, seed: int, protocol: Mapping) -> dict[str, float]:
    """Train one recipe and measure it.

    Args:
        recipe: see `experiments.study.RECIPE`.
        train: classes to learn from.
        evaluation: classes that training never sees.
        seed: of weights, order and dropout.
        protocol: `recall_at`; `smoothness` for the Lipschitz numbers, `health` for the signs of collapse.

    Returns:
        Metrics by name: `recall@k` and `map@r` in percent; `cross_recall@1` where there are groups; `train_recall@1`;
        `seconds` of training, `parameters` of the embedder, `peak_memory_mb` of the process, final `metric_loss` and
        `determinant`; with `smoothness` the numbers of `smoothness`, with `health` those of `collapse.summary`.

    Raises:
        ValueError: for an unknown head, loss or regularizer.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model, rows = build(recipe, train), len(train.labels)
    batch = min(int(recipe["batch"]), rows)
    steps = rows // batch
    model.compile(_optimizer(recipe, steps * recipe["epochs"]), steps_per_execution=min(8, steps))
    start = time.perf_counter()
    batches = _batches(train, batch, seed, recipe["classes"])
    watched = [collapse.watch(train, seed)] if protocol.get("health") else []
    history = model.fit(batches, epochs=recipe["epochs"], shuffle=False, verbose=0, callbacks=watched).history
    seconds = time.perf_counter() - start
    if not np.isfinite(history["loss"][-1]):
        raise ValueError(f"training diverged: loss {history['loss'][-1]} with recipe {dict(recipe)}.")
    metrics = {name: float(history[name][-1]) for name in ("metric_loss", "determinant") if name in history}
    metrics |= measure(model.embedder, train, evaluation, protocol["recall_at"])
    metrics |= {
        "seconds": seconds,
        "parameters": int(model.embedder.count_params()),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if protocol.get("smoothness"):
        metrics |= smoothness(model, train, evaluation, seed)
    return metrics | (collapse.summary(watched[0], history) if watched else {})


def build(recipe: Mapping, train: Arrays):
    """The `MetricModel` of a recipe for these data."""
    from tf_detreg import heads, losses, miners
    from tf_detreg.training import MetricModel

    inputs = keras.Input(train.inputs.shape[1:], name="inputs")
    if train.inputs.ndim == 2:
        features = keras.layers.Identity(name="features")(inputs)
    else:
        from tf_detreg import backbones

        options = {"name": "small_cnn", **recipe["backbone"]}
        name, size = options.pop("name"), train.inputs.shape[1]
        # As in a run: with its own options, and features that are normalised before the head.
        if name == "small_cnn":
            features = backbones.small_cnn(size, **options)(inputs)
        else:
            options["weights"] = data.weights(options.get("weights"))
            features = backbones.build(name, size, **options)(inputs)
    head = make(heads, recipe["head"], dim=recipe["dim"], name="head")
    embedder = keras.Model(inputs, head(features))
    more = {}
    if rival := dict(recipe["rival"]):
        more["rival_loss_weight"] = rival.pop("loss_weight", 0.0)
        more["rival_proxies"] = rival.pop("proxies", "shared")
        more["rival"] = make(heads, {**recipe["head"], **rival}, dim=recipe["dim"], name="rival")
    loss = dict(recipe["loss"])
    if issubclass(_named(losses, loss["kind"]), losses.ProxyLoss):
        loss = {"num_classes": train.num_classes, "dim": recipe["dim"], **loss}
    if "miner" in loss:
        loss["miner"] = make(miners, loss["miner"])
    return MetricModel(
        embedder,
        make(losses, loss),
        interpolation=recipe["interpolation"],
        regularizers=[_regularizer(entry, train) for entry in recipe["regularizers"]],
        **more,
    )


def make(room, table: Mapping, **more):
    """An object of a room by its class name: `{"kind": "RealNVP", "depth": 12}` of `heads`."""
    options = dict(table)
    return _named(room, options.pop("kind"))(**more, **options)


def _regularizer(entry: Mapping, train: Arrays):
    """A regularizer; where `texts` names a source, it gets the text embeddings of the train classes."""
    from tf_detreg import regularizers

    more = {"texts": texts.embeddings(entry["texts"], train.names)} if isinstance(entry.get("texts"), str) else {}
    return make(regularizers, {**entry, **more})


def measure(embedder: keras.Model, train: Arrays, evaluation: Arrays, recall_at) -> dict[str, float]:
    """Retrieval numbers in percent on the evaluation classes, and R@1 on the train classes."""
    from tf_detreg import retrieval

    z = embedder.predict(evaluation.inputs, batch_size=512, verbose=0)
    plain = retrieval.evaluate(z, evaluation.labels, k=tuple(recall_at), engine="exact")
    result = {f"recall@{k}": 100.0 * plain.recall[k] for k in recall_at} | {"map@r": 100.0 * plain.map_at_r}
    if evaluation.groups is not None:
        crossed = retrieval.evaluate(z, evaluation.labels, groups=evaluation.groups, k=(1,), engine="exact")
        result["cross_recall@1"] = 100.0 * crossed.recall[1]
    z = embedder.predict(train.inputs, batch_size=512, verbose=0)
    seen = retrieval.evaluate(z, train.labels, k=(1,), engine="exact")
    return result | {"train_recall@1": 100.0 * seen.recall[1]}


def smoothness(model, train: Arrays, evaluation: Arrays, seed: int, count: int = 256) -> dict[str, float]:
    """How steep the head's flow `g` is, at its own inputs `z` of unseen classes.

    Means of what `analysis.lipschitz` measures: `spectral`, the largest singular value of g's Jacobian; `frobenius`,
    `‖J‖_F / √d` (1 for an isometry); `log_det`, `log|det J| / d`; `secant_*`, `‖g(a) − g(b)‖ / ‖a − b‖` for pairs
    within a class and between classes, of seen and of unseen classes. And `abs_log_scale`, the mean of |s| over all
    triangular factors.
    """
    from tf_detreg.analysis import lipschitz

    head, backbone = model.head, model.backbone
    rng = np.random.default_rng(seed)
    flow = tf.function(lambda z: head.flow(z, training=False)[0])
    project = tf.function(lambda x: head.project(backbone(x, training=False), training=False))

    def sample(arrays):
        rows = np.sort(rng.choice(len(arrays.labels), min(count, len(arrays.labels)), replace=False))
        mates = np.array([rng.choice(_mates(arrays.labels, row)) for row in rows])
        others = rng.permutation(rows)
        points = [project(tf.constant(arrays.inputs[i], tf.float32)) for i in (rows, mates, others)]
        return points, rows != mates, arrays.labels[rows] != arrays.labels[others]

    result = {}
    for name, arrays in (("seen", train), ("unseen", evaluation)):
        (a, b, c), has_mate, differs = sample(arrays)
        for kind, mates, chosen in (("within", b, has_mate), ("between", c, differs)):
            ratios = lipschitz.secant_ratios(flow, a[chosen], mates[chosen])
            result[f"secant_{kind}_{name}"] = float(np.mean(ratios)) if len(ratios) else float("nan")
    scales = [tf.reduce_mean(tf.abs(s)) for s in head.flow(a, training=False)[1]]
    log_det = lipschitz.log_determinant(head, a)
    return result | {
        "abs_log_scale": float(tf.reduce_mean(scales)) if scales else 0.0,
        "log_det": 0.0 if log_det is None else float(np.mean(log_det)) / head.dim,
        "spectral": float(np.mean(lipschitz.spectral_norm(flow, a, iterations=13))),
        "frobenius": float(np.mean(lipschitz.frobenius_norm(flow, a, probes=8))) / head.dim**0.5,
    }


def _mates(labels: np.ndarray, row: int) -> np.ndarray:
    """Rows of the same class, without the row itself where there are others."""
    mates = np.flatnonzero(labels == labels[row])
    return mates[mates != row] if len(mates) > 1 else mates


def _batches(train: Arrays, batch: int, seed: int, classes: int = 0) -> tf.data.Dataset:
    """Shuffled batches over all rows; with `classes`, so many classes a batch and an equal number of rows of each."""
    rows = len(train.labels)
    if classes:
        # One generator for all epochs, so that each draws other batches.
        rng = np.random.default_rng(seed + 1)
        order = tf.data.Dataset.from_generator(
            lambda: _balanced(train.labels, classes, batch // classes, rows // batch, rng),
            output_signature=tf.TensorSpec((None,), tf.int64),
        ).apply(tf.data.experimental.assert_cardinality(rows // batch))
    else:
        order = tf.data.Dataset.range(rows).shuffle(rows, seed=seed).batch(batch, drop_remainder=True)
    inputs, labels = np.ascontiguousarray(train.inputs), train.labels

    def fetch(index):
        x = tf.numpy_function(lambda i: inputs[i].astype("float32"), [index], tf.float32)
        x.set_shape((None, *inputs.shape[1:]))
        return x, tf.gather(labels, index)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    return order.map(fetch).prefetch(2).with_options(options)


def _balanced(labels, classes: int, images: int, steps: int, rng: np.random.Generator):
    """Rows of batches of `classes` × `images`, drawn with replacement only in classes that are too small."""
    rows = [np.flatnonzero(labels == c) for c in range(labels.max() + 1)]
    for _ in range(steps):
        chosen = rng.choice(len(rows), min(classes, len(rows)), replace=False)
        yield np.concatenate([rng.choice(rows[c], images, replace=len(rows[c]) < images) for c in chosen])


def _optimizer(recipe: Mapping, steps: int):
    from tf_detreg import training

    return training.optimizer(steps=max(steps, 1), **recipe["rates"])


def _named(room, kind: str):
    found = getattr(room, kind, None)
    if not isinstance(found, type):
        raise ValueError(f"kind={kind!r} is not a class of {room.__name__}.")
    return found
