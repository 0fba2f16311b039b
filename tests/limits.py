"""An argument at the ends of what is allowed, and just beyond them."""

import pytest

NEXT = 1e-9


def check(call, name, allowed, refused):
    """Hold a call to its limits: the allowed values pass, the others are refused with the argument's name."""
    for value in allowed:
        call(**{name: value})
    for value in refused:
        with pytest.raises(ValueError, match=rf"^`{name}` must "):
            call(**{name: value})
