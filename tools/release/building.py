"""The two archives of a release, the same to the bit whenever they are built."""

import gzip
import os
import pathlib
import subprocess
import sys
import tarfile


def git(root: pathlib.Path, *arguments: str) -> str:
    """Return what git says in a folder."""
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def tracked(root: pathlib.Path) -> list[str]:
    """Return the files of the last commit."""
    return git(root, "ls-tree", "-r", "--name-only", "-z", "HEAD").strip("\0").split("\0")


def build(root: pathlib.Path, output: pathlib.Path, work: pathlib.Path, repository: str) -> list[pathlib.Path]:
    """Build the source distribution of the last commit, and the wheel from it.

    Args:
        root: The repository.
        output: Folder of the archives.
        work: An empty folder for what comes between.
        repository: The address of the repository, for links; may be empty.

    Returns:
        The source distribution and the wheel.
    """
    epoch = int(git(root, "log", "-1", "--format=%ct"))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "TF_DETREG_REPOSITORY": repository}
    clean, raw = work / "clean", work / "raw"
    clean.mkdir(parents=True)
    archive = work / "commit.tar"
    git(root, "archive", "--output", str(archive), "HEAD")
    with tarfile.open(archive) as files:
        files.extractall(clean, filter="data")
    command = [sys.executable, "-m", "build", "--outdir", str(raw), str(clean)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"The build failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    (source,), (wheel,) = raw.glob("*.tar.gz"), raw.glob("*.whl")
    output.mkdir(parents=True, exist_ok=True)
    made = [output / source.name, output / wheel.name]
    repacked(source, made[0], epoch)
    made[1].write_bytes(wheel.read_bytes())
    return made


def repacked(source: pathlib.Path, target: pathlib.Path, epoch: int) -> None:
    """Write a `.tar.gz` anew without what depends on when and by whom it was made; setuptools keeps both."""
    with (
        tarfile.open(source) as old,
        target.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
