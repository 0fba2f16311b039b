"""Build, check and tag a release: `make release-check`, `make release`.

    python -m tools.release build              dist/: the source distribution and the wheel
    python -m tools.release check              builds twice, compares, and installs the wheel in new environments
    python -m tools.release tag                the same, and a tag of the version that the changelog dates

`--repository` is the address that links lead to; by default that of the remote `origin`. A tag needs it.
"""

import argparse
import filecmp
import pathlib
import re
import subprocess
import sys
import tempfile

from tools.release import building, contents, installing, tagging

ROOT = pathlib.Path(__file__).parents[2]


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("build", "check", "tag"))
    parser.add_argument("--repository", default=None, help="address of the repository, for links")
    parser.add_argument(
        "--python", action="append", help="interpreter to install the wheel with; several may be given (default: this)"
    )
    parser.add_argument("--newest", action="store_true", help="install the newest versions, without constraints.txt")
    parser.add_argument("--no-demo", action="store_true", help="leave out `tf-detreg demo`, which takes minutes")
    parser.add_argument("--no-install", action="store_true", help="check the archives alone")
    options = parser.parse_args()
    repository = _origin() if options.repository is None else options.repository.rstrip("/")
    if options.what == "tag" and (against := tagging.refusals(ROOT, repository)):
        sys.exit("\n".join(against))
    with tempfile.TemporaryDirectory() as work:
        made = building.build(ROOT, ROOT / "dist", pathlib.Path(work) / "first", repository)
        if options.what != "build":
            check_archives(made, pathlib.Path(work), repository)
            if not options.no_install:
                check_installed(made[1], pathlib.Path(work), options)
    print(*made, sep="\n")
    if options.what == "tag":
        name = tagging.tag(ROOT)
        print(f"{name} is tagged. Then: git push origin {name}; twine upload {' '.join(map(str, made))}")


def check_archives(made: list[pathlib.Path], work: pathlib.Path, repository: str) -> None:
    """Compare the archives with a second build, with the repository and with what a package index wants."""
    for first, second in zip(made, building.build(ROOT, work / "again", work / "second", repository), strict=True):
        if not filecmp.cmp(first, second, shallow=False):
            sys.exit(f"{first.name} differs between two builds of one commit.")
    print("Two builds are equal.")
    tracked = building.tracked(ROOT)
    if missing := contents.missing_in_source(made[0], tracked):
        sys.exit(f"{made[0].name} lacks {', '.join(missing)}.")
    if wrong := contents.wrong_in_wheel(made[1], tracked):
        sys.exit(f"{made[1].name} {', '.join(wrong)}.")
    relative = re.findall(r"\]\((?!\w+:|#)([^)\s]+)\)", contents.metadata(made[1]))
    if repository and relative:
        sys.exit(f"The README in {made[1].name} has links that lead nowhere on a package index: {', '.join(relative)}.")
    if not repository:
        print(f"No --repository: {len(relative)} links of the README are relative, and the project has no addresses.")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, made)], check=True)


def check_installed(wheel: pathlib.Path, work: pathlib.Path, options: argparse.Namespace) -> None:
    """Install the wheel with and without extras for each interpreter, and use it."""
    constraints = None if options.newest else ROOT / "constraints.txt"
    for number, python in enumerate(options.python or [sys.executable]):
        for extras in ("", "[all]"):
            print(f"{python}: {wheel.name}{extras}", flush=True)
            commands = installing.install(python, wheel, extras, work / f"{number}{extras}", constraints)
            if extras:
                installing.try_all(commands, demo=not options.no_demo)
            else:
                installing.try_core(commands, demo=not options.no_demo)


def _origin() -> str:
    """Return the address of `origin` as a browser takes it; empty where there is none."""
    done = subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, text=True)
    address = re.sub(r"^git@([^:]+):", r"https://\1/", done.stdout.strip()).removesuffix(".git")
    return address if address.startswith("https://") else ""


if __name__ == "__main__":
    main()
