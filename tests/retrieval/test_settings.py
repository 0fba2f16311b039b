"""What a searcher says of itself in reports, and what it asks of the library that it is built with."""

import types

import numpy as np
import pytest

from tf_detreg.retrieval import approximate, codes, graphs, product, saved_tree
from tf_detreg.retrieval.approximate import Layout, Tree

GALLERY = np.eye(16, 8, dtype=np.float32)


def test_a_tree_says_how_it_is_laid_out_and_tuned():
    tree = Tree(object(), (100, 8), Layout(dims=4, soar=True), 3, 50)
    assert tree.settings() == {
        "leaves": 10,
        "leaves visited": 3,
        "candidates rescored": 50,
        "dimensions per code": 4,
        "SOAR": True,
    }
    # Untuned, it visits and scores all.
    assert [*Tree(object(), (100, 8), Layout()).settings().values()] == [10, 10, 100, 2, False]


def test_codes_of_scann_alone_say_what_they_take():
    layout = Layout(dims=2, density=2.0)
    tree = product.Product(object(), GALLERY, layout, 3, 9)
    # 4 bytes and 4 bits for each two dimensions; 8 centers of 8 float32 numbers for 16 items.
    assert tree.bytes_an_item == 4 + 2 + 4 * 8 * 8 / 16
    named = ["leaves", "leaves visited", "candidates rescored", "dimensions per code", "SOAR", "bytes an item"]
    assert tree.settings() == dict(zip(named, [8, 3, 9, 2, False, 22.0], strict=True))
    twice = product.Product(object(), GALLERY, Layout(dims=2, soar=True, density=2.0))
    assert twice.bytes_an_item == 2 * (4 + 2) + 4 * 8 * 8 / 16


def test_compressed_vectors_say_what_they_take():
    whole = codes.Codes("int8", np.zeros((16, 8), np.int8), np.zeros((0, 0)), np.ones(8), GALLERY, 5)
    assert whole.settings() == {"candidates rescored": 5, "dimensions": 8, "bytes an item": 8.0}
    few = codes.Codes("binary", np.zeros((16, 1), np.uint64), np.eye(8, 3), np.zeros(3), GALLERY)
    assert few.settings() == {"candidates rescored": 16, "dimensions": 3, "bytes an item": 8.0}


def test_a_graph_says_how_it_is_linked():
    graph = graphs.Graph(types.SimpleNamespace(connectivity=24), GALLERY, 7)
    assert graph.settings() == {"nodes looked at": 7, "links of a node": 24}


def test_a_searcher_widens_by_an_eighth_up_to_all():
    tree = Tree(object(), (100, 8), Layout(), 3, 50)
    seen = []
    while tree.widen():
        seen.append((tree.visited, tree.rescored))
    assert seen == [(4, 57), (5, 65), (6, 74), (7, 84), (8, 95), (9, 100), (10, 100)]
    assert Tree(object(), (100, 8), Layout(), 10, 99).widen() and Tree(object(), (100, 8), Layout(), 9, 100).widen()


class Builder:
    """Takes what ScaNN's builder takes, and keeps it."""

    def __init__(self, *arguments):
        self.asked = [arguments[1:]]

    def __getattr__(self, name):
        def ask(*arguments, **options):
            self.asked.append((name, arguments, options))
            return self

        return ask


@pytest.mark.parametrize("soar", [False, True])
def test_scann_is_asked_for_the_layout(soar):
    rows = np.zeros((400, 4), np.float32)
    built = approximate.sorting(types.SimpleNamespace(builder=Builder), rows, 500, Layout(4, soar, 0.5))
    twice = {"soar_lambda": 1.5, "overretrieve_factor": 2.0} if soar else {}
    assert built.asked == [
        (400, "dot_product"),
        ("tree", (10, 10), {"training_sample_size": 400, **twice}),
        ("score_ah", (4,), {"anisotropic_quantization_threshold": 0.2, "training_sample_size": 400}),
    ]
    large = approximate.sorting(types.SimpleNamespace(builder=Builder), np.zeros((200_000, 1)), 7, Layout(density=1))
    assert large.asked[0] == (7, "dot_product") and large.asked[1][1] == (447, 100)
    assert [options["training_sample_size"] for _, _, options in large.asked[1:]] == [100_000, 50_000]


def test_the_files_of_a_tree():
    plain = ["scann_config.pb", "ah_codebook.pb", "serialized_partitioner.pb", "datapoint_to_token.npy"]
    assert saved_tree.files({"soar": False}) == (*plain, "hashed_dataset.npy")
    assert saved_tree.files({"soar": True}) == (*plain, "hashed_dataset.npy", "hashed_dataset_soar.npy")


@pytest.mark.parametrize(("items", "leaves"), [(1, 2), (100, 20), (2, 3)])
def test_leaves_grow_with_the_root_of_the_items(items, leaves):
    assert Layout(density=2.0).leaves(items) == leaves and Layout().leaves(0) == 1
