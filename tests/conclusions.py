"""What `studies/conclusions.py` prints."""

import contextlib
import functools
import io
import pathlib
import runpy

SCRIPT = pathlib.Path(__file__).parents[1] / "studies" / "conclusions.py"


@functools.cache
def printed() -> str:
    """Run the script in this process, once."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return text.getvalue()
