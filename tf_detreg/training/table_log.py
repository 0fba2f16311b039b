"""The history of a training as a CSV file that is whole at any moment."""

import csv
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

import keras

from tf_detreg.files import write_text


class TableLog(keras.callbacks.Callback):
    """Writes `epoch, loss, …` after every epoch, the whole file anew and atomically.

    Unlike `keras.callbacks.CSVLogger`, columns may come later (an evaluation every fifth epoch), and a resumed run
    starts from the rows of the epochs that it keeps.

    Args:
        path: The CSV file.
        rows: Rows of earlier epochs. Default: none.
    """

    def __init__(self, path: str | os.PathLike[str], rows: Sequence[Mapping[str, float]] = ()) -> None:
        super().__init__()
        self.path, self.rows = pathlib.Path(path), [dict(row) for row in rows]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.rows = [row for row in self.rows if row["epoch"] <= epoch]
        self.rows.append({"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}})
        write_text(self.path, to_csv(self.rows))


def to_csv(rows: Sequence[Mapping[str, float]]) -> str:
    """Return rows as CSV text; the columns are those of all rows in order of appearance.

    Example:
        >>> print(to_csv([{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 2.0, "val_recall@1": 0.5}]), end="")
        epoch,loss,val_recall@1
        1,2.5,
        2,2.0,0.5
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def from_csv(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Return the rows of a file that `TableLog` wrote; empty cells are left out.

    Raises:
        ValueError: If it holds anything else, with its name.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [
                {name: int(value) if name == "epoch" else float(value) for name, value in row.items() if value}
                for row in csv.DictReader(file)
            ]
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{os.fspath(path)} is damaged: it is no table of numbers ({error}).") from error
