"""Two writers of one folder, killed again and again while it is read in a loop.

A process of its own, small to fork: its arguments are FOLDER and `exchange` or `renames`, and it prints how often the
folder was read.
"""

import contextlib
import os
import pathlib
import random
import signal
import sys
import time

from tf_detreg import files


def folder_of(number: int):
    def write(path):
        path.mkdir()
        for name in ("a", "b", "c"):
            (path / name).write_text(f"{number} {name}")

    return write


def number_of(path: pathlib.Path) -> int:
    found = {name: (path / name).read_text().split() for name in ("a", "b", "c")}
    assert all(words[1] == name for name, words in found.items())
    (number,) = {words[0] for words in found.values()}
    return int(number)


def write_folder(target: pathlib.Path, number: int):
    with files.replacing(target) as temporary:
        folder_of(number)(temporary)


def endless_writer(target: pathlib.Path, seed: int) -> int:
    process = os.fork()
    if process:
        return process
    try:
        for number in range(1000 * seed, 1000 * seed + 1000):
            with contextlib.suppress(OSError):
                write_folder(target, number)
    finally:
        os._exit(0)


def main(target: pathlib.Path, turns: int = 25) -> int:
    """Return how often the folder was read while writers wrote and were killed."""
    rng, loads = random.Random(0), 0
    write_folder(target, 0)
    for turn in range(turns):
        writers = [endless_writer(target, 2 * turn + writer) for writer in range(2)]
        try:
            end = time.monotonic() + rng.uniform(0.01, 0.06)
            while time.monotonic() < end:
                files.read_folder(target, number_of)
                loads += 1
        finally:
            for writer in writers:
                os.kill(writer, signal.SIGKILL)
                os.waitpid(writer, 0)
        files.read_folder(target, number_of)
    write_folder(target, 1)
    return loads


if __name__ == "__main__":
    os.fsync = lambda descriptor: os.fstat(descriptor)  # waiting for the disk tells nothing here
    if sys.argv[2] == "renames":
        files.exchange = lambda first, second: False
    print(main(pathlib.Path(sys.argv[1])))
    assert "tensorflow" not in sys.modules
