"""Ids and metadata of items: checks, and the forms in which they are stored."""

import itertools
import json
import re
import zlib
from collections.abc import Container, Iterable, Mapping, Sequence

import numpy as np

Id = str | int
_LIMIT = 2**63
_DEEPEST = 500  # levels of metadata: beyond some 1,000 SQLite calls the text malformed, in every filter


def plain_ids(ids: Iterable[Id], count: int | None = None) -> list[Id]:
    """Return ids as a list of Python's own strings and integers.

    Args:
        ids: The ids.
        count: How many there must be. Default: any number.

    Raises:
        ValueError: If there are too many or too few, one is neither, or two are the same.
    """
    plain = [id.item() if isinstance(id, np.generic) else id for id in ids]
    if count is not None and len(plain) != count:
        raise ValueError(f"`ids` must hold one id for each of the {count} vectors; received {len(plain)}.")
    wrong = next((id for id in plain if isinstance(id, bool) or not isinstance(id, str | int)), None)
    if wrong is not None:
        raise ValueError(f"`ids` must be strings or integers; received {wrong!r}.")
    large = next((id for id in plain if isinstance(id, int) and not -_LIMIT <= id < _LIMIT), None)
    if large is not None:
        raise ValueError(f"`ids` must be integers of at most 64 bits, or strings; received {large!r}.")
    if len(set(plain)) != len(plain):
        seen: set[Id] = set()
        for id in plain:
            if id in seen:
                raise ValueError(f"`ids` must all differ; received {id!r}, which occurs twice.")
            seen.add(id)
    return plain


def is_id(id: object) -> bool:
    """Return whether an index could hold this id."""
    return isinstance(id, str) or (isinstance(id, int) and not isinstance(id, bool) and -_LIMIT <= id < _LIMIT)


def of_text(text: str, held: Container[object]) -> Id:
    """Return an id that came as text, in a command or an address, as it is held: `"7"` may be the integer 7 there.

    Args:
        text: The text. It counts as a number only as Python writes that: `"007"` is not 7.
        held: What has ids, such as an index. An id that is there as text is meant as text.

    Example:
        >>> of_text("7", {7}), of_text("7", {7, "7"}), of_text("007", {7})
        (7, '7', '007')
    """
    try:
        number = int(text)
    except ValueError:
        return text
    return number if text not in held and str(number) == text and is_id(number) and number in held else text


def metadata_texts(metadata: Sequence[Mapping[str, object]] | None, count: int) -> list[str]:
    """Return metadata as JSON, one text an item.

    Args:
        metadata: Mappings with strings as keys. None stands for empty ones.
        count: How many there must be.

    Raises:
        ValueError: If there are too many or too few, JSON cannot hold one, or one is too deep.
    """
    if metadata is None:
        return ["{}"] * count
    if len(metadata) != count:
        raise ValueError(f"`metadata` must hold one mapping for each of the {count} vectors; received {len(metadata)}.")
    texts = []
    for row, item in enumerate(metadata):
        if not isinstance(item, Mapping) or not all(isinstance(key, str) for key in item):
            raise ValueError(f"`metadata` must be mappings whose keys are strings; received {item!r} (row {row}).")
        try:
            texts.append(json.dumps(dict(item), allow_nan=False))  # ASCII: the name of any file can be written
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"`metadata` holds something that JSON cannot (row {row}): {error}.") from error
        if _is_deep(texts[-1]):
            raise ValueError(f"`metadata` must be at most {_DEEPEST} levels deep; received more (row {row}).")
    return texts


def _is_deep(text: str) -> bool:
    """Return whether JSON has more levels than metadata may have."""
    if text.count("[") + text.count("{") <= _DEEPEST:
        return False
    # Without its strings, in which brackets are no levels.
    signs = re.findall(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text))
    return max(itertools.accumulate(1 if sign in "[{" else -1 for sign in signs)) > _DEEPEST


def bound(id: Id) -> str | int | bytes:
    """Return an id as SQLite takes it: text that is no UTF-8, as Python reads some file names, as bytes."""
    if isinstance(id, str):
        try:
            id.encode()
        except UnicodeEncodeError:
            return id.encode("utf-8", "surrogatepass")
    return id


def unbound(id: str | int | bytes) -> Id:
    """Return the id that `bound` was given.

    Example:
        >>> unbound(bound("\\udcff.jpg")) == "\\udcff.jpg", unbound(bound(7))
        (True, 7)
    """
    return id.decode("utf-8", "surrogatepass") if isinstance(id, bytes) else id


def crc_of(id: str | int | bytes, metadata: str) -> int:
    """Return the checksum of an item as it is stored."""
    return zlib.crc32(metadata.encode(), zlib.crc32(repr(id).encode()))


def not_there(id: object) -> ValueError:
    """Return the error for an id that the index does not hold."""
    return ValueError(f"`id`={id!r} is not in the index.")
