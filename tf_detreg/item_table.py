"""A table of the items of a catalog, as shops export it: a CSV file with a row an image."""

import csv
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")  # no zeros in front: those are part of an article's number
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_COLUMNS = ("path", "id")


class Item(NamedTuple):
    """A row: the file, the item's id, and its metadata."""

    file: str
    id: str
    metadata: dict[str, object]


def read_items(path: str | os.PathLike[str]) -> list[Item]:
    """Read a CSV file (UTF-8, commas, a header) of image files and what is known about them.

    The column `path` names the file, from the folder of the table on. `id` is the item's id; where there is no such
    column, it is the path as it is written. Every other column is a field of the metadata: numbers where all its values
    are numbers without zeros in front, true and false where all are, text otherwise. An empty cell is no value.

    Args:
        path: The table.

    Returns:
        Its rows.

    Raises:
        ValueError: If it cannot be read, a path or id is empty, or one is there twice.
        OSError: If it is not there.

    Example:
        >>> import tempfile
        >>> table = pathlib.Path(tempfile.mkdtemp(), "shop.csv")
        >>> _ = table.write_text("path,id,price,article\\nmug.jpg,m1,3.5,007\\ncup.jpg,c1,4,\\n")
        >>> [(item.id, item.metadata) for item in read_items(table)]
        [('m1', {'price': 3.5, 'article': '007'}), ('c1', {'price': 4.0})]
    """
    path = pathlib.Path(path)
    rows = _rows(path)
    others = [column for column in rows[0] if column not in _COLUMNS]
    columns = {column: _typed([row[column].strip() for row in rows]) for column in others}
    items, seen = [], set()
    for number, row in enumerate(rows):
        file, id = row["path"].strip(), row.get("id", row["path"]).strip()
        for column, text in (("path", file), ("id", id)):
            if not text or "\0" in text:
                raise ValueError(f"{path}, row {number + 1}: the {column} is empty or holds a zero byte: {row}.")
        if id in seen:
            raise ValueError(f"{path}, row {number + 1}: the id {id!r} is there twice.")
        seen.add(id)
        metadata = {column: values[number] for column, values in columns.items() if values[number] is not None}
        items.append(Item(os.path.join(path.parent, file), id, metadata))
    return items


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or ()):
                raise ValueError(
                    f"{path} needs a column 'path' in its header, and commas between columns; found "
                    f"{reader.fieldnames}."
                )
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {reader.line_num}: the number of columns is wrong.")
                rows.append(row)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.object[error.start]:#04x}). Save it as UTF-8.") from error
    except csv.Error as error:
        raise ValueError(f"{path}: {error}.") from error
    if not rows:
        raise ValueError(f"{path} lists no images.")
    return rows


def _typed(texts: Sequence[str]) -> list[object]:
    """Return the values of a column, all of one type; None for empty ones."""
    given = [text for text in texts if text]
    if all(_INTEGER.fullmatch(text) for text in given):
        return [int(text) if text else None for text in texts]
    if all(_NUMBER.fullmatch(text) for text in given):
        return [float(text) if text else None for text in texts]
    if all(text.lower() in ("true", "false") for text in given):
        return [text.lower() == "true" if text else None for text in texts]
    return [text or None for text in texts]
