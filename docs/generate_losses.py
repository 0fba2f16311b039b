"""Writes a page for every loss from its docstring, the table that compares them with other libraries, and the miners.

python docs/generate_losses.py            # writes docs/losses/*.md
python docs/generate_losses.py --check    # fails if a page is out of date
python docs/generate_losses.py --peer     # compares the page with the installed pytorch-metric-learning (extra bench)
"""

import argparse
import inspect
import os
import re
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FOLDER = Path(__file__).parent / "losses"
SECTIONS = ("Args", "Call arguments", "Returns", "Raises", "Example", "Reference", "References")
LIBRARIES = (
    "pytorch-metric-learning 2.9",
    "tensorflow-similarity",
    "OML",
    "authors' code that we read or a peer names",
)
# What each of the libraries above has: "✓" a loss of that kind, "-" none among its losses, or what differs.
ELSEWHERE = {
    "Contrastive": ("✓, not squared", "-", "-", ""),
    "Triplet": ("✓", "✓", "✓", ""),
    "TripletSemiHard": ("another set", "triplet with mining, not compared", "-", "TensorFlow Addons (retired)"),
    "TripletBatchHard": (
        "as a miner",
        "triplet with mining, not compared",
        "as a miner",
        "TensorFlow Addons (retired)",
    ),
    "Margin": ("✓", "-", "-", "chaoyuaw/incubator-mxnet"),
    "NPairs": ("✓", "-", "-", "TensorFlow Addons (retired)"),
    "NPairsMultilabel": ("-", "-", "-", "TensorFlow Addons (retired)"),
    "LiftedStructure": ("✓", "another loss", "-", "TensorFlow Addons (retired)"),
    "GeneralizedLiftedStructure": ("✓", "-", "-", ""),
    "MultiSimilarity": ("✓", "✓, on distances", "-", "msight-tech"),
    "Circle": ("✓", "✓", "-", ""),
    "SupCon": ("✓", "-", "-", "HobbitLong/SupContrast"),
    "NTXent": ("✓", "simclr, not compared", "-", ""),
    "FastAP": ("✓", "-", "-", "kunhe/FastAP-metric-learning"),
    "CrossBatchMemory": ("✓", "✓", "as a miner", ""),
    "ProxyNCA": ("target in the denominator", "-", "-", "euwern, dichotomies"),
    "ProxyNCAPlusPlus": ("ProxyNCA with scale 9", "-", "-", "euwern"),
    "ProxyAnchor": ("✓", "-", "-", "tjddus9597"),
    "SoftTriple": ("τ term as an option", "-", "-", "idstcv"),
    "NormalizedSoftmax": ("✓", "-", "-", ""),
    "CosFace": ("✓", "-", "-", ""),
    "ArcFace": ("✓", "✓", "✓", ""),
    "SubCenterArcFace": ("✓", "-", "-", ""),
    "ProxyGML": ("-", "-", "-", "YuehuaZhu"),
}
# pytorch-metric-learning's classes behind the first column, where the name is not the loss's own.
PEER_NAMES = {"Triplet": "TripletMargin", "ProxyNCAPlusPlus": "ProxyNCA", "TripletSemiHard": "TripletMargin"}
ONLY_THERE = (
    "Angular (here a miner)",
    "DynamicSoftMargin",
    "Histogram",
    "Instance",
    "IntraPairVariance",
    "LargeMarginSoftmax",
    "Manifold",
    "NCA",
    "P2SGrad",
    "PNP",
    "RankedList",
    "SignalToNoiseRatioContrastive",
    "SmoothAP",
    "SphereFace",
    "ThresholdConsistentMargin",
    "TupletMargin",
    "VICReg",
)
FIELD = (
    "A sample of the green class is moved around the circle; each arrow shows where gradient descent on this loss",
    "moves it from there.",
    "Dots are the other samples of the batch, triangles the proxies (`python docs/gradient_fields.py`).",
)
BASES = ("PairLoss", "ProxyLoss")
WHERE_TO_BEGIN = (
    "**Where to begin.** In the [studies](../results.md) `MultiSimilarity` and `ProxyAnchor` (with α = 16 rather",
    "than 32) were ahead on frozen features, `SupCon` from scratch, and the settings of a loss moved it as much as the",
    "choice of the loss. Proxy losses want many classes in a batch; pair losses want two images of a class. The",
    "learning rate comes before all of this.",
)
ABOUT_MINERS = (
    "Pair losses (but `NPairsMultilabel`) and `Margin` take `miner=`, as in",
    "`losses.Contrastive(miner=miners.MultiSimilarity(epsilon=0.1))`; in the configuration of a run,",
    '`loss = { name = "Contrastive", miner = { name = "MultiSimilarity" } }`. Proxy losses use all pairs of samples',
    "and proxies. Any function `(labels, embeddings)` → two boolean masks or three index vectors will do, too.",
)


def all_losses() -> dict[str, type]:
    """Every public loss by name."""
    from tf_detreg import losses

    found = {name: getattr(losses, name) for name in losses.__all__ if name not in BASES}
    return {name: value for name, value in found.items() if inspect.isclass(value)}


def page_name(name: str) -> str:
    """The file of a loss's page."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower() + ".md"


def picture_name(name: str) -> str:
    """The file of a loss's picture, which `docs/gradient_fields.py` draws."""
    return page_name(name).replace(".md", ".png")


def picture(name: str) -> list[str]:
    """Lines that show a loss's gradient field, where there is a picture of it."""
    if not (FOLDER.parent / "pictures" / "losses" / picture_name(name)).is_file():
        return []
    return [
        "",
        f"![Where gradient descent moves a sample on the circle](../pictures/losses/{picture_name(name)})",
        "",
        *FIELD,
    ]


def split(docstring: str) -> tuple[str, dict[str, str]]:
    """The text before the first section, and each section's text."""
    pattern = re.compile(rf"^({'|'.join(SECTIONS)}):[ ]*", re.MULTILINE)
    pieces = pattern.split(docstring)
    return pieces[0].strip(), {key: value.strip("\n") for key, value in zip(pieces[1::2], pieces[2::2], strict=True)}


def items(text: str) -> list[str]:
    """`name: meaning` lines, with continuation lines joined, as a Markdown list."""
    found = []
    for line in inspect.cleandoc(text).splitlines():
        name, colon, meaning = line.partition(":")
        if line.startswith(" ") or not colon:
            found[-1:] = [f"{found[-1] if found else '-'} {line.strip()}"]
        else:
            found.append(f"- `{name}`: {meaning.strip()}")
    return found


def page(name: str, loss: type) -> str:
    """The page of one loss in Markdown."""
    summary, sections = split(inspect.getdoc(loss))
    parameters = [each.replace(annotation=each.empty) for each in inspect.signature(loss).parameters.values()]
    signature = inspect.Signature(parameters)
    paragraphs = re.sub(r"^(Paper settings|Other code):", r"**\1.**", summary, flags=re.MULTILINE)
    paragraphs = paragraphs.replace("\n**Other code.**", "\n\n**Other code.**")
    lines = [f"# {name}", "", paragraphs, "", "```python", f"tf_detreg.losses.{name}{signature}", "```"]
    lines += picture(name)
    for title in ("Args", "Call arguments", "Raises"):
        if title in sections:
            lines += ["", f"## {title}", "", *items(sections[title])]
    if "Example" in sections:
        lines += ["", "## Example", "", "```python", sections["Example"].strip(), "```"]
    for title in ("Reference", "References"):
        if title in sections:
            entries = inspect.cleandoc(sections[title]).splitlines()
            whole = [" ".join(entries)] if title == "Reference" else entries
            lines += ["", f"## {title}", "", *(f"- {entry}" for entry in whole)]
    return "\n".join(lines) + "\n\n[All losses](README.md)\n"


def overview(found: dict[str, type]) -> str:
    """The table of all losses."""
    lines = [
        "# Losses",
        "",
        "Pair losses are `keras.losses.Loss`, for any `compile(loss=…)`. Losses marked *layer* own weights (proxies, a",
        "boundary, a memory) and are trained by `training.MetricModel`. Every one is tested against a numpy float64",
        "reference with finite-difference gradients, and against frozen values of other libraries where they have it.",
        "tensorflow-similarity and OML: from the files in their `losses` and `miners` folders, not run.",
        "",
        *WHERE_TO_BEGIN,
        "",
        "| loss | kind | " + " | ".join(LIBRARIES) + " |",
        "|---|---|" + "---|" * len(LIBRARIES),
    ]
    for name, loss in sorted(found.items()):
        kind = "layer" if hasattr(loss, "add_weight") else "loss"
        lines.append(f"| [{name}]({page_name(name)}) | {kind} | " + " | ".join(ELSEWHERE[name]) + " |")
    lines += ["", f"pytorch-metric-learning also has, and this library has not: {', '.join(ONLY_THERE)}."]
    return "\n".join([*lines, "", *miners_table()]) + "\n"


def miners_table() -> list[str]:
    """What the miners keep, from the first sentence of each docstring."""
    from tf_detreg import miners

    lines = ["## Miners", "", *ABOUT_MINERS, "", "| miner | which pairs or triplets count |", "|---|---|"]
    for name in (name for name in miners.__all__ if name != "Miner"):
        miner = getattr(miners, name)
        options = ", ".join(f"{key}={value.default!r}" for key, value in inspect.signature(miner).parameters.items())
        lines.append(f"| `{name}({options})` | {' '.join(inspect.getdoc(miner).split(chr(10) * 2)[0].split())} |")
    return lines


def check_peer() -> None:
    """Exits where the page is wrong about what pytorch-metric-learning has."""
    from pytorch_metric_learning import losses as peer

    theirs = {name.removesuffix("Loss") for name in dir(peer) if name.endswith("Loss")} | {"CrossBatchMemory"}
    claimed = {
        PEER_NAMES.get(name, name): name for name, entry in ELSEWHERE.items() if entry[0] not in ("-", "as a miner")
    }
    wrong = [
        *(claimed.keys() - theirs),
        *(name for name, entry in ELSEWHERE.items() if entry[0] == "-" and name in theirs),
    ]
    wrappers = {"GenericPair", "SelfSupervised"}
    wrong += {name.split()[0] for name in ONLY_THERE} ^ (theirs - claimed.keys() - wrappers)
    if wrong:
        sys.exit(f"The page is wrong about pytorch-metric-learning's {sorted(wrong)}.")
    print(f"The page agrees with the {len(theirs)} losses of pytorch-metric-learning.")


def pages() -> dict[str, str]:
    """File name → text of everything in docs/losses."""
    found = all_losses()
    return {"README.md": overview(found)} | {page_name(name): page(name, loss) for name, loss in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    parser.add_argument("--peer", action="store_true", help="write nothing; compare with pytorch-metric-learning")
    arguments = parser.parse_args()
    if arguments.peer:
        check_peer()
        return
    check = arguments.check
    FOLDER.mkdir(exist_ok=True)
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"Out of date, run `python docs/generate_losses.py`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
