"""How long a training will take."""

import contextlib
from typing import Any

import keras

from tf_detreg.progress import ticker


class TimeLeft(keras.callbacks.Callback):
    """Show how much of the whole training is done, and the time left.

    Keras' own bar starts anew in each epoch and knows nothing of the epochs to come. This one counts the batches of all
    epochs: a bar in a terminal, a line every ten seconds in a log. Give `fit` `verbose=2` or 0 beside it. Used as a
    context manager, it also ends where training fails.

    Args:
        title: What is going on. Default `"Training"`.
        show: False shows nothing. Default None, which shows progress.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(loss="mse")
        >>> with TimeLeft(show=False) as time_left:
        ...     history = model.fit(np.ones((8, 2)), np.ones(8), epochs=2, verbose=0, callbacks=[time_left])
        >>> time_left.done
        2
    """

    def __init__(self, title: str = "Training", show: bool | None = None) -> None:
        super().__init__()
        self.title, self.show = title, show
        self.done = 0  # batches since training began, those of epochs before a resumption not counted
        self._tick: Any = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "TimeLeft":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def on_train_begin(self, logs: Any = None) -> None:
        self._tick, self.done = None, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        steps = self.params.get("steps")
        # A generator's length is known after its first epoch only.
        if self._tick is None and steps:
            left = (self.params["epochs"] - epoch) * steps
            self._tick = self._open.enter_context(ticker(self.title, left, self.show))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.done += 1
        if self._tick is not None:
            self._tick(1)

    def on_train_end(self, logs: Any = None) -> None:
        self._open.close()
