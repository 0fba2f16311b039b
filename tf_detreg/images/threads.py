"""Work on several files at once: Pillow gives Python's lock free while it decodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")


def each(work: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
    """Return `work` of each item, done on all cores."""
    return list(_pool().map(work, items))
