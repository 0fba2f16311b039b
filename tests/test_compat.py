"""Private hooks of Keras and TensorFlow stand in one module, and each does what it is used for."""

import ast
import collections
import gc
import pathlib
import re
import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_detreg
from tf_detreg import _compat, heads, inference, training

PACKAGE = pathlib.Path(tf_detreg.__file__).parent
PRIVATE = r"(tensorflow\.(lite\.)?python|keras\.src)\b"
CHANGED = "This Keras or TensorFlow has changed the hook {}: see tf_detreg/_compat.py for what it is used for."


def sources():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "_compat.py":
            yield path.relative_to(PACKAGE), ast.parse(path.read_text(encoding="utf-8"))


def _is_stored_on_self(node):
    of = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "")
    return of in ("self", "cls", "made", "taken", "store")


def test_no_other_module_uses_one():
    trees = dict(sources())
    nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]
    own = {node.name for _, node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {node.attr for _, node in nodes if _is_stored_on_self(node)}
    own |= {node.id for _, node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {
        node.target.id for _, node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    own |= {path.stem for path in trees} | {"_compat", "_fields", "_replace"}
    keras_own = {
        name for kind in (keras.Model, keras.optimizers.MultiOptimizer, keras.metrics.Mean) for name in dir(kind)
    }
    found = []
    for path, node in nodes:
        if isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            found += [
                f"{path}:{node.lineno} {m}"
                for m in modules
                if re.match(r"(tensorflow\.(lite\.)?python|keras\.src)\b", m)
            ]
        name = getattr(node, "attr", None) or (node.name if isinstance(node, ast.FunctionDef) else "")
        if re.fullmatch(r"_[a-z]\w*", name):
            # What the server overrides is uvicorn's, and tested with the server.
            foreign = isinstance(node, ast.Attribute) and name not in own and path.parts[0] != "serving"
            overridden = isinstance(node, ast.FunctionDef) and name in keras_own
            if foreign or overridden:
                found.append(f"{path}:{node.lineno} {name}")
    assert not found, "\n".join(found)


@pytest.fixture
def hook(request):
    """Turns whatever a changed hook raises into a sentence that names it."""

    class Named:
        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            if error is not None:
                pytest.fail(CHANGED.format(request.node.name.removeprefix("test_")) + f" ({kind.__name__}: {error})")

    return Named()


def test_compiled_by_xla(hook):
    with hook:
        seen = []
        for compiled in (False, True):
            tf.function(lambda x: seen.append(_compat.compiled_by_xla()) or x, jit_compile=compiled)(tf.ones(2))
        assert seen == [False, True] and not _compat.compiled_by_xla()


def test_op_determinism(hook):
    with hook:
        before = _compat.is_op_determinism_enabled()
        tf.config.experimental.enable_op_determinism()
        assert _compat.is_op_determinism_enabled()
        _compat.disable_op_determinism()
        assert not _compat.is_op_determinism_enabled()
        if before:
            tf.config.experimental.enable_op_determinism()


def test_last_layer(hook):
    with hook:
        shared = keras.layers.Dense(2)
        images = keras.Input((3,))
        one = keras.Model(images, shared(images))
        two = keras.Model(images, shared(keras.layers.Rescaling(2.0)(images)))
        for model in (one, two):
            layer, features = _compat.last_layer(model)
            assert layer is shared
            part = keras.Model(model.inputs[0], features)
            np.testing.assert_allclose(shared(part(np.ones((1, 3)))), model(np.ones((1, 3))))
        assert _compat.last_layer(keras.Sequential([keras.Input((3,)), shared]))[0] is shared


def test_owns_weights_and_inner_layers(hook):
    with hook:
        inner = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(2, name="a"), keras.layers.BatchNormalization(name="b")]
        )
        outer = keras.Sequential([keras.Input((3,)), inner])
        assert _compat.owns_weights(inner.layers[0]) and not _compat.owns_weights(outer)
        assert not _compat.owns_weights(keras.layers.ReLU())
        names = [layer.name for layer in _compat.inner_layers(inner)]
        assert names.index("a") < names.index("b")
        assert {"a", "b", inner.name} <= {layer.name for layer in _compat.inner_layers(outer, recursive=True)}


def test_own_trainable_variables(hook):
    with hook:
        outer = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        assert _compat.own_trainable_variables(outer) == []
        outer.layers[0].trainable = False
        assert [v.name for v in _compat.own_trainable_variables(outer.layers[0])] == ["kernel", "bias"]


def test_takes_training(hook):
    with hook:
        assert _compat.takes_training(keras.layers.Dropout(0.5)) and not _compat.takes_training(keras.layers.ReLU())


def test_clear_losses(hook):
    with hook:
        layer = keras.layers.ActivityRegularization(l2=1.0)
        layer(tf.ones((1, 2)))
        assert len(layer.losses) == 1
        _compat.clear_losses(layer)
        assert not layer.losses


def test_loss_tracker(hook):
    with hook:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(loss="mse")
        tracker = _compat.loss_tracker(model)
        tracker.total.assign(6.0)
        tracker.count.assign(2.0)
        assert {key: float(value) for key, value in model.get_metrics_result().items()} == {"loss": 3.0}


def test_in_compiled_loss(hook):
    with hook:
        seen = []
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", loss=lambda y, x: seen.append(_compat.in_compiled_loss()) or tf.reduce_sum(x))
        model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
        model.evaluate(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
        assert seen and all(seen)
        assert not _compat.in_compiled_loss()


def test_optimizer_for_and_optimized(hook):
    with hook:
        one, two = keras.optimizers.SGD(), keras.optimizers.Adam()
        multi = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(one, {"b.*": two}))
        variables = [keras.Variable([1.0], name="a"), keras.Variable([1.0], name="b")]
        multi.build(variables)
        assert [_compat.optimizer_for(multi)(v) for v in variables] == [one, two]
        assert _compat.optimized(one) == variables[:1] and _compat.optimized(two) == variables[1:]
        assert _compat.optimized(multi) == variables


def test_moving_averages(hook):
    with hook:
        variable = keras.Variable([1.0])
        optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)
        assert _compat.moving_averages(optimizer) == []
        optimizer.build([variable])
        optimizer.apply([tf.constant([2.0])])
        ((held, average),) = _compat.moving_averages(optimizer)
        assert held is variable and float(variable[0]) == -1.0
        assert average is not variable and tuple(average.shape) == (1,)
        assert _compat.moving_averages(keras.optimizers.SGD()) == []


def test_between_machines(hook):
    with hook:
        assert not _compat.between_machines()
        strategy = tf.distribute.MirroredStrategy(["CPU:0"])
        with strategy.scope():
            assert not _compat.between_machines()
        extended = tf.distribute.MultiWorkerMirroredStrategy.__init__.__globals__["CollectiveAllReduceExtended"]
        assert callable(extended._in_multi_worker_mode)


def test_built_beforehand(hook):
    with hook:
        seen = []

        class Model(_compat.BuiltBeforehand, keras.Model):
            def __init__(self, dense):
                super().__init__()
                self.dense, self.built = dense, True

            def call(self, x):
                seen.append(x.shape)
                return self.dense(x)

        dense = keras.layers.Dense(1)
        dense.build((None, 2))
        model = Model(dense)
        model.compile("sgd", loss="mse")
        model.fit(np.ones((4, 2)), np.ones((4, 1)), batch_size=4, verbose=0)
        # Keras' own would have called the model once more, with a symbolic batch, before the first step.
        assert len(seen) == 1 and model.optimizer.built


def test_calibrate_only_and_mlir_quantize(hook):
    with hook:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([np.ones((1, 4), np.float32) * i] for i in range(3))
        _compat.calibrate_only(converter)
        measured = converter.convert()
        types = {detail["dtype"] for detail in tf.lite.Interpreter(model_content=measured).get_tensor_details()}
        assert np.int8 not in types
        rounded = _compat.mlir_quantize(measured)
        types = {detail["dtype"] for detail in tf.lite.Interpreter(model_content=rounded).get_tensor_details()}
        assert np.int8 in types


def test_forgetting_gradients(hook):
    with hook:

        @tf.custom_gradient
        def tripled(x):
            return 3 * x, lambda slope: 3 * slope

        def traced():
            step = tf.function(lambda x: tripled(x))
            step(tf.constant(1.0))
            return weakref.ref(step.get_concrete_function(tf.constant(1.0)).graph), step

        with _compat.forgetting_gradients():
            graph, step = traced()
            with tf.GradientTape() as tape:
                tape.watch(x := tf.constant(2.0))
                y = step(x)
            assert float(tape.gradient(y, x)) == 3.0
        assert float(step(tf.constant(2.0))) == 6.0  # what was traced still runs
        del step, tape, y
        gc.collect()
        assert graph() is None


def custom():
    """Return the gradients of `tf.custom_gradient` that TensorFlow keeps."""
    from tensorflow.python.framework import ops

    return {name for name in ops.gradient_registry._registry if name.startswith("CustomGradient-")}


def trace():
    tf.function(tf.custom_gradient(lambda x: (x, lambda slope: slope))).get_concrete_function(tf.constant(1.0))


def test_blocks_that_forget_gradients_wait_for_those_of_other_threads(monkeypatch):
    # Without the block that the tests of a file run in.
    monkeypatch.setattr(_compat, "_under_way", collections.Counter())
    before, inside, ended = custom(), threading.Event(), threading.Event()

    def other():
        with _compat.forgetting_gradients():
            trace()
            inside.set()
            ended.wait(60)

    thread = threading.Thread(target=other)
    with _compat.forgetting_gradients():
        with _compat.forgetting_gradients():
            trace()
        assert custom() == before  # a block in a block forgets at its end
        thread.start()
        assert inside.wait(60)
        trace()
        kept = custom()
        assert len(kept - before) == 2
    assert custom() == kept  # the other thread may be about to take a gradient
    ended.set()
    thread.join()
    assert custom() == before


def test_a_loss_that_is_a_graph_itself_trains_one_model_after_the_other():
    """What was traced in the first training is part of the second one's steps, and gradients are taken through it."""

    @tf.custom_gradient
    def doubled(x):
        return 2 * x, lambda slope: 2 * slope

    @tf.function
    def graph(x):
        return tf.reduce_mean(doubled(x) ** 2)

    class Loss(keras.losses.Loss):
        def call(self, labels, embeddings):
            return graph(embeddings)

    x, y = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32), np.arange(8) // 2
    before, ends = custom(), []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        embedder = keras.Sequential([keras.Input((4,)), heads.Linear(3)])
        model = training.MetricModel(embedder, Loss())
        model.compile(keras.optimizers.SGD(0.1))
        ends.append(model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"])
        inference.traced(embedder)(x)
        assert custom() == before
    assert ends[0] == ends[1]
