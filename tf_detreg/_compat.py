"""Every private hook of Keras and TensorFlow that the package uses, each with its reason.

A hook is private where its name begins with an underscore, or where it is imported from `tensorflow.python` or
`keras.src`. Nothing else in the package may use one: `tests/test_compat.py` reads the source for that, and tests each
hook below so that a Keras or TensorFlow that changed it fails by its name.
"""

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf


def compiled_by_xla() -> bool:
    """Return whether XLA compiles the graph that is being traced.

    Private: `tensorflow.python.ops.control_flow_util`. TensorFlow has no public question for it, and two things need
    the answer: lists made from lists lose entries under XLA, and code of the host cannot be called from there.
    """
    from tensorflow.python.ops import control_flow_util

    return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


_lock = threading.Lock()
_under_way: "collections.Counter[int]" = collections.Counter()  # blocks of `forgetting_gradients`, by thread
_forgettable: set[str] = set()


@contextlib.contextmanager
def forgetting_gradients() -> Iterator[None]:
    """Forget the gradients that `tf.custom_gradient` registers in a block, and with them the graphs that they hold.

    Private: `tensorflow.python.framework.ops.gradient_registry`. A traced call of such a function enters its gradient
    there for good, and nothing public takes it out. Keras' optimizers trace one in every training step (the sum over
    replicas), so that a process that trains many models keeps the graphs of them all. What was traced in the block
    still runs afterwards; only new gradients through its graphs cannot be taken.

    Blocks may be nested, and may run in several threads: what was registered meanwhile may be of another thread, so the
    last of them forgets for all.
    """
    from tensorflow.python.framework import ops

    registered, thread = ops.gradient_registry._registry, threading.get_ident()
    with _lock:
        before = set(registered)
        _under_way[thread] += 1
    try:
        yield
    finally:
        with _lock:
            _under_way[thread] -= 1
            _forgettable.update(name for name in set(registered) - before if name.startswith("CustomGradient-"))
            if not any(count for other, count in _under_way.items() if other != thread):
                for name in _forgettable & set(registered):
                    del registered[name]
                _forgettable.clear()


def is_op_determinism_enabled() -> bool:
    """Return whether TensorFlow must take reproducible kernels.

    Private: `tensorflow.python.framework.config`. Public is only `tf.config.experimental.enable_op_determinism`, so
    that a run could not set the switch back to what it was.
    """
    from tensorflow.python.framework import config

    result: bool = config.is_op_determinism_enabled()
    return result


def disable_op_determinism() -> None:
    """Undo `tf.config.experimental.enable_op_determinism`; private for the reason of `is_op_determinism_enabled`."""
    from tensorflow.python.framework import config

    config.disable_op_determinism()


def last_layer(model: keras.Model) -> tuple[keras.layers.Layer, keras.KerasTensor]:
    """Return the layer that makes a functional model's only output, and the tensor that it takes.

    Private: `KerasTensor._keras_history` and `Layer._inbound_nodes`. Public is `layer.input` alone, which raises for a
    layer that several models share, as heads do.
    """
    layer, node, _ = model.outputs[0]._keras_history
    return layer, layer._inbound_nodes[node].input_tensors[0]


def owns_weights(layer: keras.layers.Layer) -> bool:
    """Return whether a layer has weights beside those of the layers inside it.

    Private: `Layer._trainable_variables` and `_non_trainable_variables`. The public lists hold the inner layers' too.
    """
    return bool(layer._trainable_variables or layer._non_trainable_variables)


def own_trainable_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the weights that a layer made trainable when it was built, without those of the layers inside it.

    Private: `Layer._trainable_variables`. The public `trainable` of a layer holds for the layers inside it, too, and
    `trainable_variables` lists theirs.
    """
    return list(layer._trainable_variables)


def inner_layers(layer: keras.layers.Layer, recursive: bool = False) -> Iterator[keras.layers.Layer]:
    """Yield the layers inside a layer, in order.

    Private: `Layer._flatten_layers`. Public is `Model.layers` alone, which a layer that holds others does not have. Not
    recursive by itself: Keras turns the order of nested layers round.
    """
    result: Iterator[keras.layers.Layer] = layer._flatten_layers(include_self=False, recursive=recursive)
    return result


class BuiltBeforehand:
    """Mix-in of a model whose weights all exist before `fit`.

    Private: `Model._maybe_symbolic_build`. Keras draws a batch and runs it through the model to create weights, which
    costs a batch of a dataset and fails between machines. The optimizer is built here on all weights that may train
    now, so that those frozen later keep their state.
    """

    def _maybe_symbolic_build(self: Any, iterator: Any = None, data_batch: Any = None) -> None:
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)


def takes_training(layer: keras.layers.Layer) -> bool:
    """Return whether a layer's call has the argument `training`.

    Private: `Layer._call_has_training_arg`. The signature of `call` does not tell where a layer hands it on in
    `**kwargs`.
    """
    result: bool = layer._call_has_training_arg
    return result


def in_compiled_loss() -> bool:
    """Return whether Keras calls a loss that was given to `compile(loss=…)`.

    Private: the name `compile_loss` of the scope in which Keras does so. A layer in the place of a loss is called as
    any function, and nothing public tells it that no optimizer knows of its weights.
    """
    return any(scope.startswith("compile_loss") for scope in tf.get_current_name_scope().split("/"))


def clear_losses(layer: keras.layers.Layer) -> None:
    """Forget what layers added to `losses` in earlier calls.

    Private: `Layer._clear_losses`. Keras calls it in its own training step, which a model with a step of its own
    replaces.
    """
    layer._clear_losses()


def loss_tracker(model: keras.Model) -> keras.metrics.Mean:
    """Return the running mean that a model logs as `loss`.

    Private: `Model._loss_tracker`. A second metric of the name `loss` is refused, so that a training step of one's own
    has to fill this one.
    """
    return model._loss_tracker


def optimizer_for(optimizer: keras.optimizers.MultiOptimizer) -> Callable[[keras.Variable], keras.optimizers.Optimizer]:
    """Return the map from a variable to its optimizer.

    Private: `MultiOptimizer._optimizer_map`. Public is the list `optimizers` alone.
    """
    result: Callable[[keras.Variable], keras.optimizers.Optimizer] = optimizer._optimizer_map
    return result


def optimized(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """Return the variables that an optimizer was built on, in order.

    Private: `Optimizer._trainable_variables`. Public are only the optimizer's own `variables`.
    """
    result: list[keras.Variable] = optimizer._trainable_variables
    return result


def moving_averages(optimizer: keras.optimizers.Optimizer) -> list[tuple[keras.Variable, keras.Variable]]:
    """Return each variable of an optimizer with its moving average.

    Private: `Optimizer._model_variables_moving_average`. Public is `finalize_variable_values`, which overwrites the
    weights for good: an evaluation in the middle of training wants them back.
    """
    if not (optimizer.use_ema and optimizer.built):
        return []
    return list(zip(optimized(optimizer), optimizer._model_variables_moving_average, strict=True))


def between_machines() -> bool:
    """Return whether the replicas of the current step are on several machines.

    Private: `strategy.extended._in_multi_worker_mode`. The strategy's class alone does not tell: with one machine in
    `TF_CONFIG` it runs like a mirrored one.
    """
    strategy = tf.distribute.get_strategy()
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and strategy.extended._in_multi_worker_mode()


def calibrate_only(converter: tf.lite.TFLiteConverter) -> None:
    """Make a LiteRT converter measure the ranges of a model without rounding it.

    Private: `TFLiteConverter._experimental_calibrate_only`. Public conversion rounds all operators; a model whose first
    operators stay in float is rounded by `mlir_quantize`, which needs the measured ranges.
    """
    converter._experimental_calibrate_only = True


def mlir_quantize(model: bytes, **options: object) -> bytes:
    """Round a calibrated `.tflite` model to 8 bits, but for named operators.

    Private: `tensorflow.lite.python.convert.mlir_quantize`. Public is the whole conversion alone, without a list of
    operators that stay in float.
    """
    from tensorflow.lite.python.convert import mlir_quantize as quantize

    result: bytes = quantize(model, **options)
    return result
