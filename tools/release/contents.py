"""What the archives of a release hold, compared with the repository."""

import pathlib
import tarfile
import zipfile


def missing_in_source(archive: pathlib.Path, tracked: list[str]) -> list[str]:
    """Return the files of the repository that a source distribution lacks."""
    with tarfile.open(archive) as files:
        held = {name.partition("/")[2] for name in files.getnames()}
    return sorted(set(tracked) - held)


def wrong_in_wheel(wheel: pathlib.Path, tracked: list[str]) -> list[str]:
    """Return what a wheel lacks of the package, and what it holds beside it, one sentence each."""
    with zipfile.ZipFile(wheel) as files:
        held = {name for name in files.namelist() if ".dist-info/" not in name}
    wanted = {name for name in tracked if name.startswith("tf_detreg/")}
    return [f"lacks {name}" for name in sorted(wanted - held)] + [f"holds {name}" for name in sorted(held - wanted)]


def metadata(wheel: pathlib.Path) -> str:
    """Return a wheel's metadata."""
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        return files.read(name).decode()
