"""Training without tracing, for runs of a few steps."""

import contextlib

import tensorflow as tf


@contextlib.contextmanager
def eagerly():
    """Run every `tf.function` step by step.

    Of a run of a few steps most of the time goes into tracing its step; from about a dozen steps on, tracing takes
    less. Where a test is about what surrounds the steps (files, commands, resuming, messages) they are run one
    operation after the other; traced steps are tested in `training/test_resume.py`, `test_fine_tuning.py`,
    `test_metric_model.py` and `test_optimizers.py`.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
