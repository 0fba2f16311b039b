"""Damage files at random and hold the readers together: no crash, no hang, no disagreement.

    python -m tests.images.fuzz [--files 5000] [--seed 0]

A file counts as a disagreement where one reader reads it and another does not, or where graph and reference read other
pixels. Formats that only the reference reads are asked of it alone.
"""

import argparse
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np

from tests.images import corpus, readers

SIZE = (32, 24)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with bytes changed, cut out, put in, doubled, or swapped with those of its header."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(1, len(data) if rng.random() < 0.5 else min(len(data), 120))))
        length = int(rng.integers(1, 9))
        kind = rng.integers(0, 6)
        if kind == 0:
            data[at : at + 1] = bytes([int(rng.integers(0, 256))])
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = rng.bytes(length)
        elif kind == 4:
            data[at : at + length] = bytes([int(rng.choice([0, 255, 127, 1]))]) * length
        else:
            data[at:at] = data[at : at + length]
    return bytes(data)


def files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(seed)
    sources = [(name, content) for name, content, _ in corpus.everything() if len(content) < 20_000]
    for number in range(count):
        name, content = sources[int(rng.integers(len(sources)))]
        yield f"{number} {name}", damaged(content, rng)


def disagreements(count: int, seed: int, report=lambda *_: None) -> dict[str, str]:
    """Name and kind of what the readers do not agree on."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "file.jpg")
        for name, content in files(count, seed):
            path.write_bytes(content)
            reference = readers.reference(content, SIZE)
            (graph,) = readers.graphs([content], SIZE)
            (training,) = readers.trainings([str(path)], SIZE)
            if (reference is None) != (training is None):
                found[name] = f"reference {reference is not None}, training {training is not None}"
            elif graph is not None and reference is None:
                found[name] = "the graph reads what the reference refuses"
            elif graph is None and reference is not None and not reference_alone(content):
                found[name] = "the graph refuses what the reference reads"
            elif graph is not None and np.abs(graph - reference).max() > (2 if "cmyk" in name else 0):
                found[name] = f"pixels {np.abs(graph - reference).max()} apart"
            if name in found:
                report(name, found[name], content)
    return found


def reference_alone(content: bytes) -> bool:
    """Whether a file is of a kind that the graph does not read, as the package states."""
    if content[:2] == b"BM":
        header, depth = int.from_bytes(content[14:18], "little"), int.from_bytes(content[28:30], "little")
        return header == 12 or depth == 16 or content[30:34] != bytes(4)
    animated = content[12:16] == b"VP8X" and content[20] & 2
    return bool(animated) or content[:2] in (b"II", b"MM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000, help="how many (default 5000)")
    parser.add_argument("--seed", type=int, default=0, help="of what is damaged where (default 0)")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the files that the readers do not agree on")
    options = parser.parse_args()

    def report(name, what, content):
        print(f"{name}: {what}", flush=True)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / name.replace("/", "_").replace(" ", "_")[:80]).write_bytes(content)

    found = disagreements(options.files, options.seed, report)
    print(f"{options.files} files, {len(found)} disagreements")


if __name__ == "__main__":
    main()
