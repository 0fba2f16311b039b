"""An extension of griffe: examples of docstrings as it expects them, so that the site shows them as code.

Our docstrings say `Example:`, with the doctest indented or not; griffe knows `Examples:` with an indented one.
"""

import re
from typing import Any

import griffe

SECTION = re.compile(r"^([ \t]*)Example: *\n", re.MULTILINE)


def rewritten(text: str) -> str:
    """Return a docstring with its example as an indented section `Examples:`.

    Example:
        >>> rewritten("Do it.\\n\\nExample:\\n\\n>>> [1]\\n[1]\\n\\nReference: a book.")
        'Do it.\\n\\nExamples:\\n    >>> [1]\\n    [1]\\n\\nReference: a book.'
    """
    match = SECTION.search(text)
    if match is None:
        return text
    before, after = text[: match.start()], text[match.end() :].lstrip("\n")
    indent = match[1]
    if after.startswith(f"{indent}>>>"):
        body, reference, rest = after.partition(f"{indent}Reference")
        body = "\n".join(f"    {line}" if line.strip() else line for line in body.splitlines())
        after = body + ("\n\n" if reference else "") + reference + rest
        after = re.sub(r"\n{3,}", "\n\n", after)
    return f"{before}{indent}Examples:\n{after}"


class Examples(griffe.Extension):
    """Rewrite the docstring of every object."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)
