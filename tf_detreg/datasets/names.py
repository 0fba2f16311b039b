"""Class names as people write them: one class has one spelling."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tf_detreg.datasets.image_set import Splits

logger = logging.getLogger(__name__)

_SHOWN = 5


def normal_name(text: str) -> str:
    r"""Return a name in Unicode's form NFC, without white space around it and with single spaces inside.

    Example:
        >>> normal_name(" Cafe\u0301\u00a0 noir ") == "Caf\u00e9 noir"
        True
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def normal_names(names: Iterable[str], what: str) -> list[str]:
    """Return names by `normal_name`, and log which were joined.

    Args:
        names: The name of each item.
        what: What the log calls them.
    """
    names = list(names)
    new = {name: normal_name(name) for name in dict.fromkeys(names)}
    spellings = defaultdict(list)
    for name, one in new.items():
        spellings[one].append(name)
    joined = [group for group in spellings.values() if len(group) > 1]
    if joined:
        logger.warning(
            "%s: %d names differ from another in white space or Unicode form only and are one class with it: %s%s",
            *(what, sum(len(group) - 1 for group in joined)),
            "; ".join(" = ".join(map(ascii, group)) for group in joined[:_SHOWN]),
            "; …" if len(joined) > _SHOWN else "",
        )
    return [new[name] for name in names]


def report_cases(splits: Splits, what: str) -> None:
    """Log classes whose names differ in upper and lower case only.

    They stay apart, as `Polish` and `polish` may both be meant. One class under two names, though, is trained on in one
    part of a split and tested in another.

    Args:
        splits: All sets of the data.
        what: What the log calls the data.
    """
    images: Counter[str] = Counter()
    for part in splits:
        for name, count in zip(part.class_names, np.bincount(part.labels, minlength=part.num_classes), strict=True):
            images[name] += int(count)
    cases = defaultdict(list)
    for name in sorted(images):
        cases[name.casefold()].append(name)
    alike = [group for group in cases.values() if len(group) > 1]
    if alike:
        logger.warning(
            "%s: %d classes differ from another in upper and lower case only, and are kept apart: %s%s. Give them one "
            "name if they are one class, or training sees what the test holds.",
            *(what, sum(len(group) - 1 for group in alike)),
            "; ".join(" and ".join(f"{name!r} ({images[name]})" for name in group) for group in alike[:_SHOWN]),
            "; …" if len(alike) > _SHOWN else "",
        )
