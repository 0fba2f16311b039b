"""Runs the tutorials and keeps the pictures that they draw in docs/pictures.

    python docs/run_tutorials.py [NAME ...]     # such as determinant; all of them by default

`make notebooks` turns the same pages into `.ipynb` files.
"""

import os
import pathlib
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    from tests.given import GIVEN
    from tools.pages import blocks

    for page in sorted((ROOT / "docs" / "tutorials").glob("*.md")):
        if page.name == "README.md" or (sys.argv[1:] and page.stem not in sys.argv[1:]):
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            names: dict[str, object] = {"__name__": "page"}
            exec(compile(GIVEN.get(page.name, ""), f"given for {page.name}", "exec"), names)
            for block in blocks(page):
                if block.language == "python" and not block.not_run:
                    exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
            for picture in [*pathlib.Path(folder).glob("*.png"), *pathlib.Path(folder).glob("*.gif")]:
                shutil.copy(picture, ROOT / "docs" / "pictures" / picture.name)
                print(f"{picture.name}: {picture.stat().st_size / 1000:.0f} kB")
            os.chdir(ROOT)


if __name__ == "__main__":
    main()
