"""What of a backbone trains: all of it, its upper blocks, low-rank factors beside it, or nothing."""

from __future__ import annotations

import keras

from tf_detreg import checks
from tf_detreg.backbones.freezing import freeze_batch_norm as freeze_norms
from tf_detreg.backbones.freezing import freeze_until as freeze_below
from tf_detreg.backbones.lora import enable_lora


def restrict(
    model: keras.Model,
    trainable: bool = True,
    freeze_batch_norm: bool = False,
    freeze_until: str | int | None = None,
    lora_rank: int | None = None,
) -> keras.Model:
    """Freeze what is not to be fine-tuned, and return the model; do it before `compile`.

    Args:
        model: The backbone.
        trainable: False freezes all of it. Default True.
        freeze_batch_norm: Keep batch normalization at its stored statistics. Default False.
        freeze_until: The lowest block that trains, see `backbones.freeze_until`. Default None: all.
        lora_rank: Freeze the weights and train low-rank factors beside them, see `backbones.enable_lora`. Default None.

    Raises:
        ValueError: If two of these contradict each other, or ask for what the model does not have.

    Example:
    >>> from tf_detreg import backbones
    >>> net = restrict(backbones.small_cnn(image_size=16, width=4), freeze_batch_norm=True, freeze_until="block3")
    >>> [weight.path for weight in net.trainable_weights]
    ['block3_1_conv/kernel', 'block3_2_conv/kernel']
    """
    if not trainable:
        given = {"freeze_until": freeze_until, "lora_rank": lora_rank}
        asked = [name for name, value in given.items() if value is not None]
        if asked:
            raise checks.invalid("trainable", f"be true with {' and '.join(asked)}", "False, which freezes all")
        model.trainable = False
    if freeze_batch_norm:
        freeze_norms(model)
    if freeze_until is not None:
        freeze_below(model, freeze_until)
    if lora_rank is not None:
        enable_lora(model, lora_rank)
    return model
