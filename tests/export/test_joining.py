"""Which models can be joined: one subgraph each, one tensor between them."""

import types

import pytest

from tf_detreg.export.joining import _check


def model(inputs=(0,), outputs=(1,), shape=(1, 4), kind=0, subgraphs=1):
    tensors = [types.SimpleNamespace(shape=list(shape), type=kind) for _ in range(3)]
    return types.SimpleNamespace(
        subgraphs=[types.SimpleNamespace(inputs=list(inputs), outputs=list(outputs), tensors=tensors)] * subgraphs
    )


def test_what_one_gives_the_other_takes():
    _check(model(), model())
    _check(model(inputs=(0, 2)), model(outputs=(1, 2)))


@pytest.mark.parametrize(
    ("head", "tail", "message"),
    [
        (model(outputs=(1, 2)), model(), "`first` must have one output and `second` one input"),
        (model(outputs=()), model(), "`first` must have one output"),
        (model(), model(inputs=(0, 1)), "`second` one input"),
        (model(subgraphs=2), model(), "of one subgraph"),
        (model(), model(subgraphs=2), "of one subgraph"),
        (model(), model(subgraphs=0), "of one subgraph"),
        (model(), model(shape=(1, 5)), r"gives, \[1, 4\] of type 0; received one that takes \[1, 5\] of type 0"),
        (model(), model(kind=9), r"gives, \[1, 4\] of type 0; received one that takes \[1, 4\] of type 9"),
    ],
)
def test_others_are_refused(head, tail, message):
    with pytest.raises(ValueError, match=message):
        _check(head, tail)
