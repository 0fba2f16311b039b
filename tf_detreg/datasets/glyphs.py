"""Three thousand classes of images without a download: characters, as the fonts in the matplotlib wheel draw them."""

from __future__ import annotations

import hashlib
import json
import logging
import pathlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_detreg import checks, extras
from tf_detreg.datasets.cache import cache_folder
from tf_detreg.datasets.drawing import draw, mask
from tf_detreg.datasets.image_set import ImageSet, Splits, split_by_class
from tf_detreg.files import replacing

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the cache's name: raise it whenever other pixels or other classes come out
FAMILIES = ("DejaVu Sans", "DejaVu Sans Mono", "DejaVu Serif", "STIX General", "Computer Modern")
# (file, family). Computer Modern's files number only their letters and digits as Unicode does.
FACES = (
    *((f"DejaVuSans{style}", 0) for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *((f"DejaVuSansMono{style}", 1) for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *((f"DejaVuSerif{style}", 2) for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *((f"STIXGeneral{style}", 3) for style in ("", "Bol", "Italic", "BolIta")),
    *((name, 4) for name in ("cmr10", "cmb10", "cmss10", "cmtt10", "cmti10", "cmmi10")),
)
MIN_FACES = 8
# Two drawings are one when their squared difference is below this share of the paler one's ink,
# and two characters are one when that holds in this share of the faces that have both.
SAME_INK, SAME_FACES = 0.05, 0.65
_COMPARED_EM, _COMPARED_BOX = 20, 32  # pixels a drawing is compared at
_MISSING = chr(0x10FFFF)  # a code point without a character: what a face draws for it is its missing-glyph box


def glyphs(image_size: int = 32, validation: float = 0.2, test: float = 0.3, seed: int = 0) -> Splits:
    """Load characters as classes, font faces as images: over 3,000 classes of at least 8 images.

    Every image is its character as one of 22 faces draws it, moved, scaled, turned, slanted and made a little noisy at
    random. Characters that look the same in (nearly) every face, such as the Latin, Greek and Cyrillic A, are one
    class. `groups` is the font family (`glyphs.FAMILIES`). Drawn once in some 20 seconds, then read from the cache
    folder (`$TF_DETREG_CACHE`, else the platform's); the same versions of matplotlib and Pillow draw the same pixels.

    Args:
        image_size: Side in pixels, 16 to 128. Default 32.
        validation: Share of the classes for validation. Default 0.2.
        test: Share of the classes for testing. Default 0.3.
        seed: Of the random placement and of the split. Default 0.

    Returns:
        `Splits` by class of gray images (three equal channels, one in memory).

    Raises:
        ValueError: For a size or shares out of range.
    """
    image_size = checks.integer("image_size", image_size, 16, 128)
    return split_by_class(_cached(image_size, int(seed)), validation, test, seed)


def _cached(size: int, seed: int) -> ImageSet:
    path = cache_folder() / f"glyphs-v{FORMAT}-{size}px-seed{seed}-{_fingerprint()}.npz"
    try:
        return _read(path)
    except FileNotFoundError:
        logger.info("Drawing the glyphs once; they are kept in %s.", path)
    except Exception as error:  # a damaged header: NumPy raises many kinds
        logger.warning("Drawing the glyphs anew: the cache %s is damaged (%s).", path, error)
    image_set = _draw_all(size, seed)
    try:
        _write(path, image_set)
    except OSError as error:
        logger.warning("The glyphs could not be kept in %s (%s); they will be drawn again next time.", path, error)
    return image_set


def _fingerprint() -> str:
    """Return a digest of all that decides which pixels come out: versions and font files."""
    with extras.needed("The glyphs data set"):
        import matplotlib
    import PIL
    from PIL import features

    parts = [matplotlib.__version__, PIL.__version__, features.version("freetype2"), unicodedata.unidata_version]
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:12]


def _read(path: pathlib.Path) -> ImageSet:
    with np.load(path, allow_pickle=False) as file:
        return ImageSet(
            labels=file["labels"],
            class_names=json.loads(file["class_names"].tobytes()),
            images=file["pixels"],
            groups=file["groups"],
            name="glyphs",
        )


def _write(path: pathlib.Path, image_set: ImageSet) -> None:
    names = np.frombuffer(json.dumps(image_set.class_names).encode(), np.uint8)
    pixels = image_set.pixels[..., 0]
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, pixels=pixels, labels=image_set.labels, groups=np.asarray(image_set.groups), class_names=names)


def _draw_all(size: int, seed: int) -> ImageSet:
    drawings = _drawings()
    classes = _classes(drawings)
    rng = np.random.default_rng(seed)
    rows, labels, groups = [], [], []
    for face, (name, family) in enumerate(FACES):
        members = [
            (label, min(chars & drawings[face].keys()))
            for label, chars in enumerate(classes)
            if chars & drawings[face].keys()
        ]
        rows.append(draw(_font(name, size), [char for _, char in members], size, rng))
        labels += [label for label, _ in members]
        groups += [family] * len(members)
    labels, groups, pixels = np.asarray(labels), np.asarray(groups), np.concatenate(rows)
    order = np.argsort(labels, kind="stable")
    names = [unicodedata.name(min(chars), f"U+{ord(min(chars)):04X}") for chars in classes]
    return ImageSet(labels=labels[order], class_names=names, images=pixels[order], groups=groups[order], name="glyphs")


# --- which characters there are, and which of them are one class -----------------------------------------------------


def _drawings() -> list[dict[str, np.ndarray]]:
    """Return, for each face, character → its drawing, centered; blank ones and missing-glyph boxes left out."""
    available = [_characters(name, family) for name, family in FACES]
    counts = Counter(char for chars in available for char in chars)
    drawn = []
    for (name, _), chars in zip(FACES, available, strict=True):
        font = _font(name, _COMPARED_EM)
        missing = mask(font, _MISSING)
        inks = {char: mask(font, char) for char in sorted(chars) if counts[char] >= MIN_FACES}
        drawn.append(
            {char: _centered(ink) for char, ink in inks.items() if ink.any() and not np.array_equal(ink, missing)}
        )
    return drawn


def _characters(name: str, family: int) -> set[str]:
    """Return what a face says it can draw, without controls, spaces, private and unassigned code points."""
    with extras.needed("The glyphs data set"):
        from matplotlib.ft2font import FT2Font

    chars = {chr(code) for code, glyph in FT2Font(_font_file(name)).get_charmap().items() if glyph}
    if FAMILIES[family] == "Computer Modern":
        return {char for char in chars if char.isascii() and char.isalnum()}
    return {char for char in chars if unicodedata.category(char)[0] not in "CZ"}


def _classes(drawings: list[dict[str, np.ndarray]]) -> list[frozenset[str]]:
    """Set of characters that look alike, each with enough faces, ordered by their first character."""
    alike: Counter[tuple[str, str]] = Counter()
    leader: dict[str, str] = {}
    for face in drawings:
        alike.update(_alike(face))
        leader.update((char, char) for char in face)

    def find(char: str) -> str:
        while leader[char] != char:
            leader[char] = char = leader[leader[char]]
        return char

    for (a, b), faces in alike.items():
        if faces >= SAME_FACES * sum(a in face and b in face for face in drawings):
            a, b = sorted((find(a), find(b)))
            leader[b] = a
    members = defaultdict(set)
    for char in leader:
        members[find(char)].add(char)
    classes = [frozenset(chars) for _, chars in sorted(members.items())]
    return [chars for chars in classes if sum(not chars.isdisjoint(face) for face in drawings) >= MIN_FACES]


def _alike(face: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """Yield pairs of characters that this face draws the same, wherever it places them."""
    chars = sorted(face)
    ink = np.stack([face[char].ravel() for char in chars])
    norms = (ink**2).sum(1)
    for start in range(0, len(chars), 256):
        one, other = slice(start, start + 256), slice(start, None)
        distance = norms[one, None] + norms[None, other] - 2 * ink[one] @ ink[other].T
        same = distance < SAME_INK * np.minimum(norms[one, None], norms[None, other])
        for i, j in np.argwhere(np.triu(same, 1)).tolist():
            yield chars[start + i], chars[start + j]


# --- fonts -----------------------------------------------------------------------------------------------------------


def _font_file(name: str) -> str:
    with extras.needed("The glyphs data set"):
        import matplotlib

    return str(pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"))


def _font(name: str, size: int) -> Any:
    from PIL import ImageFont

    # The basic layout: the other one depends on a library that may or may not be there.
    return ImageFont.truetype(_font_file(name), size, layout_engine=ImageFont.Layout.BASIC)


def _centered(ink: np.ndarray) -> np.ndarray:
    box = np.zeros((_COMPARED_BOX, _COMPARED_BOX), np.float32)
    ink = ink[:_COMPARED_BOX, :_COMPARED_BOX]
    top, left = ((_COMPARED_BOX - side) // 2 for side in ink.shape)
    # Sixteen shades: sums of their products are whole numbers below 2**24, exact in float32 on every machine.
    box[top : top + ink.shape[0], left : left + ink.shape[1]] = ink >> 4
    return box
