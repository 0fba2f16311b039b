"""Whether a zip archive (`.keras`, `.npz`, the end of a `.tflite`) is whole, before anything in it is believed."""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable

_PIECE = 1 << 22


def fault(path: str | os.PathLike[str], needed: Iterable[str] = ()) -> str | None:
    """Say what is wrong with a zip archive, or None.

    All of it is read once, and each entry compared with its CRC-32.

    Args:
        path: The file.
        needed: Names of entries that must be there.

    Raises:
        FileNotFoundError: If there is no file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for name in names:
                with archive.open(name) as entry:
                    while entry.read(_PIECE):
                        pass
    except FileNotFoundError:
        raise
    # What zipfile raises on headers that make no sense.
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
        return f"its {os.path.getsize(path):,} bytes are no whole archive: {error}"
    missing = sorted(set(needed) - set(names))
    return f"it holds no {', '.join(missing)}" if missing else None
