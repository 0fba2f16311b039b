"""What the code of a page takes as given: an embedder, embeddings, a small run of the demo."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]

COMMON = """
import keras, numpy as np, pathlib, tensorflow as tf
import tf_detreg as dr
from tf_detreg import backbones, callbacks, datasets, heads, losses, miners, regularizers, retrieval, training
"""
SMALL = """
keras.utils.set_random_seed(0)
splits = datasets.digits()
train, validation, test = images, validation, test_set = splits
train_set, class_names = train, train.class_names
def small_embedder(head=None):
    backbone = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(16)])
    return keras.Sequential([backbone, head or heads.RealNVP(8, depth=2, hidden=8)])
embedder = small_embedder()
backbone = embedder.layers[0]
features = backbone(train.images[:32].astype("float32"))
embeddings, labels = training.embed(embedder, test).embeddings, test.labels
num_classes = train.num_classes
"""
RUN = """
import contextlib, os
training.train(training.RunConfig.from_dict({
    "data": "digits", "backbone": {"name": "small_cnn", "width": 4, "blocks": 1}, "head": {"name": "Linear", "dim": 8},
    "epochs": 1}), "runs/demo", verbose=0)
"""
INDEX = """
os.makedirs("galleries", exist_ok=True)
_run = training.load_run("runs/demo")
_found = training.embed(_run.embedder, _run.splits().test)
dr.index.Index(_found.embeddings, fingerprint=retrieval.fingerprint(_run.embedder)).save("galleries/characters")
"""
DECISIONS = """
_seen = {}
paths = []
for _label in labels:
    _seen[_label] = _seen.get(_label, 0) + 1
    paths.append(f"{_label}/{_label}_{_seen[_label]:04}.jpg")
_a, _b = list(_seen)[:2]
_lines = [f"{_a}\\t{n}\\t{n + 1}" for n in range(1, 21)] + [f"{_a}\\t{n}\\t{_b}\\t{n}" for n in range(1, 21)]
pathlib.Path("pairs.txt").write_text("\\n".join(["1\\t20", *_lines]) + "\\n")
def _classes(seed):
    draw = np.random.default_rng(seed).normal
    rows = np.repeat(draw(size=(150, 8)), 10, axis=0) + draw(size=(1500, 8)) / 8
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.repeat(np.arange(150), 10)
(validation_embeddings, validation_labels), (test_embeddings, test_labels) = _classes(0), _classes(1)
"""
REGULARIZERS = """
embedder = small_embedder(heads.RealNVP(128, depth=2, hidden=8))
batches, encoder = train.batches(4, 4).take(3), lambda names: np.eye(len(names), 8, dtype="float32")
"""
RETRIEVAL = """
paths = [f"{n}.png" for n in range(len(labels))]
names, prices = ["mug" if label % 2 else "cup" for label in labels], list(range(len(labels)))
photos = test.images[:3].astype("float32")
_random = np.random.default_rng(0)
for _path in ["query.jpg", *(f"PICTURES/{n}.png" for n in range(6))]:
    pathlib.Path("PICTURES").mkdir(exist_ok=True)
    keras.utils.save_img(_path, _random.uniform(0, 255, (32, 32, 3)))
"""
PHOTOGRAPHS = """
_random = np.random.default_rng(0)
for _label in range(40):
    _folder = pathlib.Path("photographs", f"class{_label:02}")
    _folder.mkdir(parents=True)
    for _n in range(2):
        keras.utils.save_img(_folder / f"{_n}.png", _random.uniform(0, 255, (8, 8, 3)))
"""
# What the script that a page names writes into the folder that it names.
SCRIPT = """
import pathlib, runpy
import tests.given
runpy.run_path(str(tests.given.ROOT / "examples" / {script!r}))[{function!r}](*{arguments})
"""
VIEWS = SCRIPT.format(script="photo_folder.py", function="write", arguments='(pathlib.Path("PHOTOS"), 4, 0)')
DRAWN = {
    f"{kind}.md": SCRIPT.format(
        script="draw_sets.py", function="write", arguments=f'("{kind}", pathlib.Path("{kind.upper()}"), {sizes})'
    )
    for kind, sizes in {"shop": "100, 5", "faces": "100, 5", "logos": "80, 6", "parts": "90, 3"}.items()
}
# By the page's name.
GIVEN = {
    "heads.md": COMMON + SMALL + "labels = train.labels[:32]\n",
    "regularizers.md": COMMON + SMALL + REGULARIZERS,
    "decisions.md": COMMON + SMALL + DECISIONS,
    "mobile.md": COMMON + RUN + INDEX,
    "serving.md": COMMON + RUN + INDEX + "run = _run\n",
    "data.md": COMMON + PHOTOGRAPHS,
    "retrieval.md": COMMON + SMALL + RETRIEVAL,
    "your_photos.md": VIEWS,
    "choosing_a_backbone.md": VIEWS,
    "duplicates.md": SCRIPT.format(
        script="photo_folder.py", function="write_tiles", arguments='(pathlib.Path("PHOTOS"),)'
    ),
    **DRAWN,
}
