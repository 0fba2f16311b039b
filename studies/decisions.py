"""Do thresholds keep their promise on classes that were never seen, and which score detects unknown classes best?

    python studies/decisions.py glyphs --out studies/results/decisions
    python studies/decisions.py emoji --emoji emoji_styles_96.npz --out studies/results/decisions
    python studies/decisions.py page --out studies/results/decisions

A RealNVP head is trained on the train classes (glyphs: with a small CNN; emoji: on frozen features of
EfficientNet-Lite0). The other classes are split at random, 20 times, into validation and test classes: thresholds are
fitted on the first and checked on the second. Scores are compared on all of them, with intervals over classes. `page`
writes the tables and the picture of docs/decisions.md.
"""

import argparse
import json
import pathlib

import numpy as np
from tf_detreg.experiments.emoji_set import emoji

from tf_detreg import backbones, datasets, heads, losses, retrieval, training
from tf_detreg.files import write_text
from tf_detreg.retrieval import calibration, curves, intervals, trials

SPLITS, TARGETS, SCORES = 20, (0.05, 0.01), ("nearest", "margin", "mean", "normalized", "density")
RESAMPLES = 400
BOUNDS = {"point estimate": (None, 0.5), "upper bound": (2, 0.95)}  # draws of C / n classes, quantile


def glyphs(_: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, labels and whether each is of a train class."""
    images = [part for part in datasets.glyphs()]
    pixels = np.concatenate([np.broadcast_to(part.images, (*part.images.shape[:3], 3)) for part in images])
    offsets = np.cumsum([0, *(part.num_classes for part in images)])
    labels = np.concatenate([part.labels + start for part, start in zip(images, offsets, strict=False)])
    return pixels, labels, labels < offsets[1]


def emojis(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return frozen features, labels and whether each is of a train class: the first half of a random order."""
    images = emoji(path, without=("fluent-emoji-flat", "fluent-3d"))
    backbone = backbones.build("efficientnet_lite0", 96, weights="imagenet")
    found = training.embed(backbone, images, progress=None)
    order = np.random.default_rng(0).permutation(images.num_classes)
    train = order[found.labels] < images.num_classes // 2
    scale = found.embeddings[train].mean(axis=0), found.embeddings[train].std()
    return (found.embeddings - scale[0]) / scale[1], found.labels, train


def train(inputs: np.ndarray, labels: np.ndarray, steps: int) -> tuple:
    """Train a flow head, on images with a small CNN, with SupCon on batches of 32 classes × 4; return (body, head)."""
    import keras

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    frozen = keras.Sequential([keras.Input(inputs.shape[1:]), keras.layers.Identity()])
    body = backbones.small_cnn(inputs.shape[1]) if inputs.ndim == 4 else frozen
    head = heads.RealNVP(64, penalty=1.0)
    model = keras.Sequential([body, head])
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4), loss=losses.SupCon())
    order, (_, starts, sizes) = np.argsort(labels, kind="stable"), np.unique(np.sort(labels), True, return_counts=True)
    for _ in range(steps):
        chosen = rng.choice(np.flatnonzero(sizes >= 4), 32, replace=False)
        rows = np.concatenate([order[starts[c] + rng.choice(sizes[c], 4, replace=False)] for c in chosen])
        model.train_on_batch(inputs[rows].astype(np.float32), labels[rows])
    return body, head


def study(name: str, inputs: np.ndarray, labels: np.ndarray, trained_on: np.ndarray, steps: int, most: int) -> dict:
    """Train, split 20 times, and compare the scores."""
    body, head = train(inputs[trained_on], labels[trained_on], steps)
    held = np.unique(labels[~trained_on])
    rows = np.isin(labels, held[:: max(1, -(-len(held) // most))] if most else held)
    inputs, classes = inputs[rows], np.unique(labels[rows], return_inverse=True)[1]
    features = np.concatenate([body.predict_on_batch(inputs[at : at + 512]) for at in range(0, len(inputs), 512)])
    density = retrieval.FlowDensity.of_head(head, features)
    embeddings = np.concatenate([np.asarray(head(features[at : at + 512])) for at in range(0, len(features), 512)])
    recall = retrieval.evaluate(embeddings, classes, k=1, metrics="recall", resamples=0, progress=False).recall[1]
    count = int(classes.max()) + 1
    print(f"{name}: {len(classes):,} images of {count:,} unseen classes, R@1 {100 * recall:.1f} %", flush=True)
    rates = [split_once(embeddings, classes, density, seed) for seed in range(SPLITS)]
    scores = compare(embeddings, classes, density)
    return {"data": name, "classes": count, "images": len(classes), "recall": recall, "splits": rates, "scores": scores}


def split_once(embeddings, classes, density, seed: int) -> list[dict]:
    """Fit thresholds on one half of the classes and measure them on the other."""
    count = int(classes.max()) + 1
    first = np.random.default_rng(seed).permutation(count) < count // 2
    done = []
    for part in (first[classes], ~first[classes]):
        some = np.flatnonzero(part)
        likely = retrieval.FlowDensity(density.outputs[some], density.log_determinants[some])
        codes = np.unique(classes[some], return_inverse=True)[1]
        done.append(trials.run(embeddings[some], codes, SCORES, density=likely, seed=seed))
    validation, test = done
    fitted = int(validation.classes.max()) + 1
    half = calibration.draws(fitted, fitted // 2, RESAMPLES, seed)
    found = []
    for score in SCORES:
        for target in TARGETS:
            for bound, (divisor, quantile) in BOUNDS.items():
                drawn = half if divisor else np.ones((1, fitted))
                try:
                    threshold = calibration.lowest_threshold(validation, score, target, drawn, quantile)
                except ValueError:
                    continue  # no threshold reaches the target with this score
                span = intervals.central(calibration.shares(validation, validation.unknown[score] >= threshold, half))
                false = float((test.unknown[score] >= threshold).mean())
                right = float((test.right & (test.known[score] >= threshold))[test.has_positive].mean())
                found.append(
                    {"score": score, "target": target, "bound": bound, "interval": span, "false": false, "right": right}
                )
    return found


def compare(embeddings, classes, density) -> dict[str, dict]:
    """AUROC and DIR at FPIR 1 % of each score, and their differences to the nearest cosine, with 95 % intervals."""
    done = trials.run(embeddings, classes, SCORES, density=density)
    count, asked = int(classes.max()) + 1, done.has_positive
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    table = np.empty((RESAMPLES + 1, len(SCORES), 2))
    for n, weights in enumerate([np.ones(count), *drawn]):
        each = weights[classes]
        for m, score in enumerate(SCORES):
            known = done.known[score][asked]
            curve = curves.roc(known, done.unknown[score], each[asked], each)
            hit = done.right[asked] & (known >= curve.at_far(0.01)[0])
            table[n, m] = curve.auc, each[asked] @ hit / each[asked].sum()
    found = {}
    for m, score in enumerate(SCORES):
        found[score] = {}
        for column, what in enumerate(("auroc", "dir")):
            values, differences = table[:, m, column], table[:, m, column] - table[:, 0, column]
            found[score][what] = [float(values[0]), *intervals.central(values[1:])]
            found[score][f"{what} - nearest"] = [float(differences[0]), *intervals.central(differences[1:])]
    return found


def rates_table(results: list[dict]) -> str:
    """Return Markdown: how many of the splits kept the promise."""
    lines = [
        "| data | score | target | threshold by | kept the target | within the interval | "
        "false accepts, mean (largest) | accepted rightly |",
        "|---|---|---:|---|---:|---:|---:|---:|",
    ]
    for result in results:
        for score in SCORES:
            for target in TARGETS:
                for bound in BOUNDS:
                    key = (score, target, bound)
                    each = [
                        row for split in result["splits"] for row in split
                        if (row["score"], row["target"], row["bound"]) == key
                    ]  # fmt: skip
                    if not each:
                        continue
                    kept = sum(row["false"] <= target for row in each)
                    inside = sum(row["interval"][0] <= row["false"] <= row["interval"][1] for row in each)
                    false = [100 * row["false"] for row in each]
                    lines.append(
                        f"| {result['data']} | {score} | {100 * target:g} % | {bound} | {kept} of {len(each)} | "
                        f"{inside} of {len(each)} | {np.mean(false):.2f} ({max(false):.2f}) % | "
                        f"{100 * np.mean([row['right'] for row in each]):.1f} % |"
                    )
    return "\n".join(lines) + "\n"


def scores_table(results: list[dict]) -> str:
    """Return Markdown: how well each score detects unknown classes."""
    lines = [
        "| data | score | AUROC | − nearest | DIR@FPIR=1 % | − nearest |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for result in results:
        for score, found in result["scores"].items():
            cells = [
                "{:+.1f} ({:+.1f} – {:+.1f})".format(*(100 * x for x in found[what])) if "nearest" in what
                else "{:.1f} ({:.1f} – {:.1f})".format(*(100 * x for x in found[what]))
                for what in ("auroc", "auroc - nearest", "dir", "dir - nearest")
            ]  # fmt: skip
            lines.append(f"| {result['data']} | {score} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(results: list[dict], path: pathlib.Path) -> None:
    """Draw the false accepts on test classes of every split, by target and bound, for the nearest cosine."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        labels = []
        for target in TARGETS:
            for bound in BOUNDS:
                each = [
                    100 * row["false"] for split in result["splits"] for row in split
                    if (row["score"], row["target"], row["bound"]) == ("nearest", target, bound)
                ]  # fmt: skip
                axes.plot(np.full(len(each), len(labels)) + np.linspace(-0.25, 0.25, len(each)), each, ".")
                axes.hlines(100 * target, len(labels) - 0.4, len(labels) + 0.4, color="black", linewidth=0.8)
                labels.append(f"{100 * target:g} %\n{bound}")
        axes.set_xticks(range(len(labels)), labels, fontsize=7)
        axes.set(title=result["data"], ylabel="false accepts on test classes, %", ylim=(0, None))
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["glyphs", "emoji", "page"])
    parser.add_argument("--emoji", default="emoji_styles_96.npz", help="the emoji set")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("studies/results/decisions"))
    parser.add_argument("--steps", type=int, default=600, help="of training the head")
    parser.add_argument("--most", type=int, default=0, help="unseen classes at most; 0 for all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what != "page":
        load = {"glyphs": glyphs, "emoji": emojis}[options.what]
        result = study(options.what, *load(options.emoji), options.steps, options.most)
        write_text(options.out / f"{options.what}.json", json.dumps(result, indent=1) + "\n")
    results = [json.loads(path.read_text()) for path in sorted(options.out.glob("*.json"))]
    write_text(options.out / "rates.md", rates_table(results))
    write_text(options.out / "scores.md", scores_table(results))
    picture(results, options.out / "decisions.svg")
    print(rates_table(results) + "\n" + scores_table(results))


if __name__ == "__main__":
    main()
