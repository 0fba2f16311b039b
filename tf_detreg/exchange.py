"""Swapping two files or folders in one step, where the operating system can."""

import ctypes
import errno
import functools
import os
import sys
from collections.abc import Callable

_HERE = -100  # AT_FDCWD of Linux: paths are relative to the current folder
_SWAP = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def exchange(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Swap what two paths name, so that every process sees either both before or both after.

    Args:
        first: An existing file or folder.
        second: Another one on the same disk.

    Returns:
        Whether it was done; False where the system or the disk knows no such step, and nothing has changed then.

    Raises:
        OSError: If it fails for another reason, such as a path that is not there.

    Reference:
        renameat2(2) of Linux, renamex_np(2) of macOS.
    """
    swap = _system_call()
    if swap is None:
        return False
    if swap(os.fsencode(first), os.fsencode(second)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code), os.fspath(first), None, os.fspath(second))


@functools.cache
def _system_call() -> Callable[[bytes, bytes], int] | None:
    """Return the call that swaps, or None where the C library has none."""
    if sys.platform == "win32":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):
        library.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
        return lambda first, second: library.renameat2(_HERE, first, _HERE, second, _SWAP)
    if hasattr(library, "renamex_np"):
        library.renamex_np.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint]
        return lambda first, second: library.renamex_np(first, second, _SWAP)
    return None
