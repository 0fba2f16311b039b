"""The dueling objective on handwritten digits, in a minute: two heads that pull the backbone in opposite directions.

    python examples/train_dueling.py [EPOCHS]

Digits 0..9 are few classes, so this shows how the parts fit together, not what the method is worth.
"""

import sys

import keras

from tf_detreg import backbones, callbacks, datasets, heads, losses, training

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
digits = datasets.digits()
batches = digits.train.batches(classes=10, images=8, seed=0)

keras.utils.set_random_seed(0)
side = digits.train.image_size[0]
embedder = keras.Sequential(
    [
        keras.Input((side, side, 3)),
        backbones.small_cnn(side, width=8, blocks=2),
        heads.RealNVP(32, depth=4, hidden=64, penalty=0.05, measure="shifted"),  # λ₁: this head's R goes down
    ]
)
model = training.MetricModel(
    embedder,
    losses.ProxyAnchor(digits.train.num_classes),
    rival=heads.RealNVP(32, depth=4, hidden=64, penalty=-0.05, measure="shifted"),  # −λ₂: this one's goes up
    interpolation=training.Interpolation(epsilon=0.4),
)
model.compile(training.optimizer(3e-3, 3e-3, proxy_factor=10, steps=epochs * len(batches)))
history = model.fit(
    batches,
    epochs=epochs,
    verbose=2,
    callbacks=[callbacks.NaNGuard(), callbacks.RetrievalEvaluation(digits.validation, k=(1, 2))],
).history

print(f"R of the head {history['determinant'][-1]:+.4f}, of the rival {history['rival_determinant'][-1]:+.4f}")
print(f"Recall@1 on held-back images: {100 * history['val_recall@1'][-1]:.1f} %")
