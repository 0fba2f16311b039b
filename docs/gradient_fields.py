"""Draws the gradient of every loss on the circle, for the pages in docs/losses.

    python docs/gradient_fields.py [NAME ...]     # such as SupCon; all of them by default

Five samples stand still, three of class 0 (green) and two of class 1 (red); proxies, where a loss has them, stand at
60°, 180° and 300° (triangles). A sixth sample of class 0 is moved around. An arrow is the direction in which gradient
descent moves it from there, its length the size of the gradient, relative to the largest of that loss.
"""

import os
import pathlib
import sys

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FOLDER = pathlib.Path(__file__).parent / "pictures" / "losses"
STANDING = np.radians([75, 100, 130, 215, 330])
LABELS = np.array([0, 0, 0, 1, 1, 0])
PROXIES = np.radians([60, 180, 300])
# The first takes rows of labels; the second compares the first two samples of a class alone; the third has a past.
WITHOUT = ("NPairsMultilabel", "NPairs", "CrossBatchMemory")
ANGLES = np.radians(np.arange(0, 360, 10))


def on_circle(angles):
    """Unit vectors (N, 2)."""
    return np.stack([np.cos(angles), np.sin(angles)], -1).astype("float32")


def build(name):
    """The loss, with proxies of class 0, 1 and 2 where it has them; None where a picture says nothing."""
    import keras

    from tf_detreg import losses

    if name in WITHOUT:
        return None
    if name == "Margin":
        return losses.Margin()
    kind = getattr(losses, name)
    if not issubclass(kind, losses.ProxyLoss):
        return kind()
    try:
        return kind(3, dim=2, proxies_per_class=1, initializer=keras.initializers.Constant(on_circle(PROXIES)))
    except TypeError:
        return kind(3, dim=2)


def field(loss):
    """The tangential part of minus the gradient at each angle, (A,), and the loss, (A,)."""
    import tensorflow as tf

    pushes = []
    for angle in ANGLES:
        moved = tf.Variable(on_circle(np.array([angle])))
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(loss(LABELS, tf.concat([on_circle(STANDING), moved], 0)))
        gradient = tape.gradient(value, moved)
        gradient = np.zeros(2) if gradient is None else gradient.numpy()[0]
        pushes.append(-gradient @ np.array([-np.sin(angle), np.cos(angle)]))
    return np.array(pushes)


def draw(name, loss, path):
    """Write the picture of one loss."""
    from matplotlib.figure import Figure

    pushes = field(loss)
    figure = Figure(figsize=(2.6, 2.6))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-1.5, 1.5), ylim=(-1.5, 1.5))
    axes.set_axis_off()
    axes.plot(*on_circle(np.linspace(0, 2 * np.pi, 200)).T, color="#9aa5b4", linewidth=0.8)
    size = 0.45 * pushes / max(np.abs(pushes).max(), 1e-12)
    tangents = np.stack([-np.sin(ANGLES), np.cos(ANGLES)], -1) * size[:, None]
    axes.quiver(*on_circle(ANGLES).T, *tangents.T, angles="xy", scale_units="xy", scale=1, width=0.008, color="#3457b2")
    for place, label in zip(on_circle(STANDING), LABELS, strict=False):
        axes.scatter(*place, s=45, c="#1d8a52" if label == 0 else "#c8413b", zorder=3)
    if hasattr(loss, "proxies") and np.shape(loss.proxies) == (3, 2):
        for place, color in zip(on_circle(PROXIES), ("#1d8a52", "#c8413b", "#9aa5b4"), strict=True):
            axes.scatter(*(1.25 * place), s=45, c=color, marker="^", zorder=3)
    figure.savefig(path, dpi=90)


def main() -> None:
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    from generate_losses import all_losses, picture_name
    from PIL import Image

    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or sorted(all_losses()):
        loss = build(name)
        if loss is None:
            continue
        path = FOLDER / picture_name(name)
        draw(name, loss, path)
        Image.open(path).convert("RGB").quantize(16).save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.1f} kB", flush=True)


if __name__ == "__main__":
    main()
