"""Pairs of images: which to compare, drawn in bounded memory, or as a published list names them."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tf_detreg.files import existing

_CELLS = 1 << 24


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of rows of an array of embeddings.

    Args:
        first: (P,) row of one item.
        second: (P,) row of the other.
        same: (P,) whether they are of one class.
        weights: (P,) how many pairs of the population each stands for; None, the default, for one.
        folds: (P,) fold of each pair in a list with folds; None, the default.
        of: How many pairs of one class, and of two, there are in the population. Default (0, 0): as many as listed.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    weights: np.ndarray | None = None
    folds: np.ndarray | None = None
    of: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.first)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Return (P,) cosines of the pairs, of unit rows (N, dim); computed in bounded memory."""
        found = np.empty(len(self), np.float32)
        step = max(1, _CELLS // embeddings.shape[1])
        for start in range(0, len(self), step):
            part = slice(start, start + step)
            found[part] = np.einsum("nd,nd->n", embeddings[self.first[part]], embeddings[self.second[part]])
        return found


def draw(classes: np.ndarray, groups: np.ndarray | None, most: int, seed: int = 0) -> Pairs:
    """Return all pairs of items, or where there are too many a sample that is stratified by class.

    Args:
        classes: (N,) integers from 0.
        groups: (N,) integers: a pair of one class *and* one group (camera, style) is left out. None for no groups.
        most: Pairs of one class at most, and of two classes at most.
        seed: Of the draw. Default 0.
    """
    rng = np.random.default_rng(seed)
    genuine = _genuine(classes, groups, most, rng)
    impostor, of = _impostor(classes, most, rng)
    parts = [genuine[:2], impostor]
    first, second = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    same = np.arange(len(first)) < len(genuine[0])
    weights = np.concatenate([genuine[2], np.full(len(impostor[0]), of / max(len(impostor[0]), 1))])
    return Pairs(first, second, same, weights, None, (round(genuine[2].sum()), of))


def _genuine(
    classes: np.ndarray, groups: np.ndarray | None, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs of one class: (first, second, weight); of each class, all or as many as its share of all pairs."""
    order = np.argsort(classes, kind="stable")
    sizes = np.bincount(classes)
    starts = np.cumsum(sizes) - sizes
    counts = sizes.astype(np.int64) * (sizes - 1) // 2
    share = min(1.0, most / max(counts.sum(), 1))
    found = []
    for start, size, count in zip(starts[counts > 0], sizes[counts > 0], counts[counts > 0], strict=True):
        taken = max(1, round(share * count))
        if taken == count:
            one, other = np.triu_indices(size, 1)
        else:  # pair number n in 0..count-1, as in a triangle's rows
            number = rng.choice(count, taken, replace=False) if count < 8 * taken else rng.integers(count, size=taken)
            other = np.floor((1 + np.sqrt(1 + 8.0 * number)) / 2).astype(np.int64)
            other -= other * (other - 1) // 2 > number
            one = number - other * (other - 1) // 2
        found.append((order[start + one], order[start + other], np.full(len(one), count / len(one))))
    if not found:
        empty = np.empty(0, np.int64)
        return empty, empty, np.empty(0)
    first, second, weight = (np.concatenate(column) for column in zip(*found, strict=True))
    if groups is not None:
        kept = groups[first] != groups[second]
        first, second, weight = first[kept], second[kept], weight[kept]
    return first, second, weight


def _impostor(classes: np.ndarray, most: int, rng: np.random.Generator) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Return pairs of two classes, ((first, second), how many there are): all, or each class as often as its share."""
    items, sizes = len(classes), np.bincount(classes)
    of = (items * items - int((sizes.astype(np.int64) ** 2).sum())) // 2
    if of <= most and items * items <= 4 * most + 1024:
        one, other = np.triu_indices(items, 1)
        differ = classes[one] != classes[other]
        return (one[differ], other[differ]), of
    # Ends of pairs fall on a class in proportion to n·(N − n): strata by the class of the first end.
    order = np.argsort(classes, kind="stable")
    starts = np.cumsum(sizes) - sizes
    ends = sizes * (items - sizes).astype(np.float64)
    edges = np.concatenate([[0.0], np.cumsum(ends / ends.sum())])
    stratum = np.clip(
        np.searchsorted(edges, (np.arange(most) + rng.random()) / most, side="right") - 1, 0, len(ends) - 1
    )
    one = starts[stratum] + rng.integers(sizes[stratum])
    skip = rng.integers(items - sizes[stratum])  # the number of an item among those of all other classes
    other = np.where(skip < starts[stratum], skip, skip + sizes[stratum])
    return (order[one], order[other]), of


def read_pairs(path: str | os.PathLike[str], names: Sequence[str]) -> Pairs:
    """Return a published list of pairs in the format of Labeled Faces in the Wild (`pairs.txt`).

    The first line holds the number of folds and of pairs of each kind in a fold (or the number alone, for one fold).
    Then for each fold come lines `name  n1  n2` (two pictures of one person) and as many lines `name1  n1  name2  n2`.
    Picture n of a name is the file `name/name_000n.jpg`.

    Args:
        path: The list.
        names: (N,) of the embedded images: their paths or file names, such as `lfw/Ann_Ek/Ann_Ek_0001.jpg`.

    Returns:
        `Pairs` of rows, with folds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line does not fit the format, or a picture of the list is not among `names`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "pairs.txt")
        ...     _ = file.write_text("1\\t1\\nAnn\\t1\\t2\\nAnn\\t1\\tBo\\t1\\n")
        ...     pairs = read_pairs(file, ["Ann_0001.jpg", "Ann_0002.jpg", "Bo_0001.jpg"])
        >>> pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist()
        ([0, 0], [1, 2], [True, False])
    """
    rows = {pathlib.PurePath(name).stem: row for row, name in enumerate(names)}
    file = existing(path, "path", "Give a list of pairs as LFW's `pairs.txt`.")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is no text in UTF-8 ({error}): expected a list of pairs as LFW's.") from None
    try:
        folds, size = [int(number) for number in (["1", *lines[0].split()])[-2:]]
    except (IndexError, ValueError):
        raise ValueError(
            f"{str(path)!r}, line 1: expected the numbers of folds and pairs; a list of pairs as LFW's."
        ) from None
    body = [(number, line.split("\t")) for number, line in enumerate(lines[1:], 2) if line.strip()]
    if len(body) != 2 * folds * size:
        raise ValueError(f"{str(path)!r} announces {folds} × 2 × {size} pairs and holds {len(body)}.")
    found = [_pair(path, number, line, rows) for number, line in body]
    first, second, same = (np.array(column) for column in zip(*found, strict=True))
    return Pairs(first, second, same, folds=np.arange(len(found)) // (2 * size) if folds > 1 else None)


def _pair(
    path: str | os.PathLike[str], number: int, words: list[str], rows: Mapping[str, int]
) -> tuple[int, int, bool]:
    words = words if len(words) in (3, 4) else " ".join(words).split()
    if len(words) == 3:
        words = [words[0], words[1], words[0], words[2]]
    try:
        stems = [f"{words[at]}_{int(words[at + 1]):04d}" for at in (0, 2)]
    except (IndexError, ValueError):
        raise ValueError(f"{str(path)!r}, line {number}: expected `name n1 n2` or `name1 n1 name2 n2`.") from None
    missing = [stem for stem in stems if stem not in rows]
    if missing:
        raise ValueError(f"{str(path)!r}, line {number}: {missing[0]!r} is not among `names`.")
    return rows[stems[0]], rows[stems[1]], words[0] == words[2]
