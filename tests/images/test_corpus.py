"""One image, three readers, one answer: over every kind of file that can be met."""

import itertools
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.images import corpus, readers
from tf_detreg.images import formats
from tf_detreg.images.geometry import center_box, part, scaled
from tf_detreg.images.graph import reader as graph_reader
from tf_detreg.images.reference import decode, problem, thumbnail

SIZE = (32, 24)
CASES = pathlib.Path(__file__).parents[1] / "data" / "images"


def answers(files, folder, size=SIZE):
    """Of each (name, content): name, and what reference, graph and training read."""
    names, contents = zip(*files, strict=True)
    paths = [str(folder / f"{at}.jpg") for at in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        pathlib.Path(path).write_bytes(content)
    read = (
        [readers.reference(content, size) for content in contents],
        readers.graphs(contents, size),
        readers.trainings(paths, size),
    )
    return list(zip(names, *read, strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    files = list(corpus.everything())
    read = answers([file[:2] for file in files], tmp_path_factory.mktemp("corpus"))
    return [(*row, file[2]) for row, file in zip(read, files, strict=True)]


def test_the_corpus_is_large_and_its_names_differ():
    names = [name for name, *_ in itertools.chain(corpus.everything(), corpus.cut())]
    assert len(names) == len(set(names)) > 600


def test_what_can_be_read(whole):
    wrong = {}
    for name, reference, graph, training, wanted in whole:
        found = tuple(one is not None for one in (reference, graph, training))
        if found != {"all": (True,) * 3, "reference": (True, False, True), "none": (False,) * 3}[wanted]:
            wrong[name] = wanted, found
    assert wrong == {}


def test_the_graph_reads_the_same_pixels(whole):
    apart = {}
    for name, reference, graph, _, wanted in whole:
        # Pillow and TensorFlow round the product of color and black differently.
        tolerance = 2 if "cmyk" in name else 0
        if wanted == "all" and np.abs(reference - graph).max() > tolerance:
            apart[name] = np.abs(reference - graph).max()
    assert apart == {}


def test_training_reads_nearly_the_same_pixels(whole):
    apart = {}
    for name, reference, _, training, wanted in whole:
        # It starts at whole pixels: half a pixel of the smallest scenes is eight levels.
        if wanted != "none" and np.abs(reference - training).mean() > 6:
            apart[name] = np.abs(reference - training).mean()
    assert apart == {}


def test_what_is_cut_off_is_read_by_none(tmp_path):
    read = answers(corpus.cut(), tmp_path)
    assert [name for name, *found in read if any(one is not None for one in found)] == []


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


def test_every_form_of_orientation_to_the_pixel(tmp_path):
    """On pictures that no turn and no mirror leaves alike, at their full size, so that nothing hides in a tolerance."""
    size = (corpus.HEIGHT, corpus.WIDTH)
    stored = {"jpeg": decode(corpus.jpeg(), size), "png ": corpus.scene(), "webp": corpus.scene()}
    for turned in (False, True):
        files = [file for file in corpus.oriented() if (file[2] >= 5) == turned]
        read = answers([file[:2] for file in files], tmp_path, size[::-1] if turned else size)
        for (name, *found), (_, _, orientation) in zip(read, files, strict=True):
            wanted = TURNS[orientation](stored[name[:4]].astype(int))
            for reader, pixels in zip(("reference", "graph", "training"), found, strict=True):
                np.testing.assert_array_equal(pixels, wanted, err_msg=f"{name}, {reader}")
    assert len({TURNS[value](corpus.scene()).tobytes() for value in range(1, 9)}) == 8


def test_thumbnails_are_turned_and_lie_on_white_as_well(tmp_path):
    for name, content, orientation in corpus.oriented():
        small = np.asarray(thumbnail(content, 160))
        whole = decode(content, small.shape[:2])
        np.testing.assert_array_equal(small, whole, err_msg=f"{name}: {orientation}")


def images_that_need_a_decoder():
    image = Image.fromarray(corpus.scene(64, 48))
    yield "AVIF", corpus.saved(image, "AVIF", quality=100)
    formats.readable_formats()
    yield "HEIF", corpus.saved(image, "HEIF", quality=100)
    for orientation in (3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield "AVIF", corpus.saved(image, "AVIF", quality=100, exif=exif)
        yield "HEIF", corpus.saved(image, "HEIF", quality=100, exif=exif)


def test_avif_and_heic_are_read_where_a_decoder_is_installed(tmp_path):
    if not {"AVIF", "HEIF"} <= set(formats.readable_formats()):
        pytest.skip("needs a Pillow with AVIF, and pillow-heif")
    found = answers(images_that_need_a_decoder(), tmp_path)
    turns = (1, 1, 3, 1, 6, 1)  # in a HEIC file the container turns, and EXIF says nothing
    for (name, reference, graph, training), turn in zip(found, turns, strict=True):
        assert graph is None and (training == reference).all(), name
        scene = TURNS[turn](corpus.scene(64, 48))
        wanted = decode(corpus.saved(np.ascontiguousarray(scene), "PNG"), SIZE).astype(int)
        assert np.abs(reference - wanted).mean() < 4, (name, turn)


def test_kept_cases(tmp_path):
    expected = json.loads((CASES / "expected.json").read_text())
    files = [(path.name, path.read_bytes()) for path in sorted(CASES.iterdir()) if path.suffix != ".json"]
    assert {name for name, _ in files} == set(expected)
    for name, *found in answers(files, tmp_path):
        readable = name not in ("no_iend.png", "postscript_named.jpg")
        assert [one is not None for one in found] == [readable] * 3, name
        assert (problem(CASES / name) is None) == readable, name
        if readable:
            np.testing.assert_array_equal(found[0], found[1], err_msg=name)
            pixel = expected[name].get("pixel", found[0][0, 0])
            assert [list(one[0, 0]) for one in found] == [list(pixel)] * 3 or "jpg" in name, name
    upright = decode(CASES / "exif_without_orientation_xmp_6.jpg", (32, 48))
    for name in ("exif_after_tables.jpg", "exif_big_endian_long_6.jpg"):
        # The same scene, stored by the same encoder.
        np.testing.assert_array_equal(decode(CASES / name, (48, 32)), np.rot90(upright, -1), err_msg=name)
    assert (decode(CASES / "transparent.gif", (32, 48)) == 255).all(axis=-1).any()
    frame = decode(CASES / "frame_smaller_than_canvas.gif", (64, 80))
    assert (
        (frame[32:] == 255).all() and (frame[:, 48:] == 255).all() and not (frame[:32, :48] == 255).all(axis=-1).any()
    )


OTHER_SIDES = (1, 2, 3, 100, 225, 232, 299, 380, 457, 599, 600)


@pytest.mark.parametrize("size", [(224, 224), (240, 240), (300, 300), (331, 331), (380, 380), (224, 100), (7, 600)])
def test_no_side_from_1_to_600_leads_out_of_the_image(size):
    """The part that is kept lies inside of the image, decoded at any size, and both readers compute the same."""
    pairs = [(one, other) for one in range(1, 601) for other in OTHER_SIDES]
    pairs += [pair[::-1] for pair in pairs]
    boxes = np.array([center_box(width, height, size) for width, height in pairs])
    sides = np.array(pairs)
    graph = tf.map_fn(lambda one: graph_reader.center_box(one, size), tf.constant(sides[::61, ::-1], tf.float64))
    np.testing.assert_array_equal(graph.numpy()[:, :, ::-1].reshape(-1, 4), boxes[::61])
    for ratio in (1, 2, 4, 8):
        decoded = -(-sides // ratio)
        parts = [scaled(box, seen, to) for box, seen, to in zip(boxes, pairs, decoded.tolist(), strict=True)]
        parts = np.array(parts, np.float32)  # as Pillow takes boxes
        assert (parts[:, :2] >= 0).all() and (parts[:, :2] < parts[:, 2:]).all() and (parts[:, 2:] <= decoded).all()


def test_images_with_awkward_sides_are_read(tmp_path):
    """At a size of two sides that stand for themselves: each size is another graph."""
    files = []
    for side in (225, 232, 239, 333, 457):
        for form in ("PNG", "JPEG"):
            files += [(f"{side} {form}", corpus.saved(corpus.scene(side + 61, side), form))]
            files += [(f"{side} {form} high", corpus.saved(corpus.scene(side, side + 61), form))]
    for name, reference, graph, training in answers(files, tmp_path, (224, 300)):
        np.testing.assert_array_equal(reference, graph, err_msg=name)
        assert np.abs(reference - training).mean() < 4, name


def test_a_crop_never_leads_out_of_the_image():
    from tf_detreg.images import RandomCrop

    draws = np.random.default_rng(0)
    for width, height in draws.integers(1, 600, (500, 2)).tolist():
        for edge in (np.zeros(4), np.full(4, 1 - 2**-53), draws.random(4)):
            left, top, right, bottom = part(width, height, (224, 224), RandomCrop(), edge)
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
