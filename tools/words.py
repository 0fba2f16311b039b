"""The words that the project no longer uses, and what to write; `docs/glossary.md` is the list of those it uses."""

import re

# Retired word → what to write. Matched without regard to case, in code, comments, messages and pages.
RETIRED = {
    r"houses?": "package",
    r"rooms?": "package, directory or space",
    r"roads?": "way, or the name of the function",
    r"crowd(?:s|ed)?": "many, or batch",
    r"shel(?:f|ves)": "package",
    r"(?:class.?)?mates?": "positive, or sample of the same class",
    r"from nothing": "from scratch",
    r"learns? on": "fine-tune",
    r"lone": "without positives",
    r"right answers?": "relevant item",
    r"neighbour\w*": "neighbor",
    r"centres?": "center",
    r"licences?": "license",
}
PATTERN = re.compile(rf"(?<!\w)(?:{'|'.join(RETIRED)})(?!\w)", re.IGNORECASE)
# British → American, in pages: the beginning of a word, and how it is to begin.
AMERICAN = {
    "analyse": "analyze",
    "artefact": "artifact",
    "behaviour": "behavior",
    "catalogue": "catalog",
    "centred": "centered",
    "colour": "color",
    "favour": "favor",
    "generalis": "generaliz",
    "grey": "gray",
    "initialis": "initializ",
    "labell": "label",
    "maximis": "maximiz",
    "minimis": "minimiz",
    "normalis": "normaliz",
    "optimis": "optimiz",
    "organis": "organiz",
    "penalis": "penaliz",
    "quantis": "quantiz",
    "recognis": "recogniz",
    "regularis": "regulariz",
    "serialis": "serializ",
    "summaris": "summariz",
    "tokenis": "tokeniz",
    "utilis": "utiliz",
}
BRITISH = re.compile(rf"\b({'|'.join(AMERICAN)})", re.IGNORECASE)


def retired(text: str) -> list[tuple[str, int]]:
    """Return the retired words of a text, with their lines."""
    return [(match[0], text.count("\n", 0, match.start()) + 1) for match in PATTERN.finditer(text)]
