"""The examples in the docstrings of `tf_detreg.index` run as printed."""

import pytest

from tests import docstrings


@pytest.mark.parametrize("name", docstrings.modules("index"))
def test_the_examples_of_a_module_run(name, tmp_path):
    docstrings.check(name, tmp_path)
