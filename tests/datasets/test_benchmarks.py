import numpy as np
import pytest

from tests.datasets import trees
from tf_detreg import datasets

LOADERS = {
    "cub": (trees.cub, datasets.cub, "caltech"),
    "cars": (trees.cars, datasets.cars, "stanford"),
    "cars_parted": (trees.cars_parted, datasets.cars, "stanford"),
    "sop": (trees.sop, datasets.sop, "stanford"),
    "in_shop": (trees.in_shop, datasets.in_shop, "cuhk"),
}


@pytest.fixture(params=LOADERS)
def layout(request, tmp_path):
    make, load, page = LOADERS[request.param]
    return make(tmp_path / "tree"), load, page


def test_loads_its_official_layout(layout):
    root, load, _ = layout
    splits = load(root, image_size=8, check=False, validation=0.25)
    assert not set(splits.train.class_names) & set(splits.validation.class_names)
    assert not set(splits.train.class_names) & set(splits.test.class_names)
    for split in splits:
        x, y = next(iter(split.batches(classes=1, images=2)))
        assert x.shape == (2, 8, 8, 3) and y.shape == (2,)
        assert sum(len(y) for _, y in split.ordered()) == len(split) > 0


def test_validation_can_be_none(layout):
    root, load, _ = layout
    splits = load(root, image_size=8, check=False, validation=0)
    assert len(splits.validation) == 0 and splits.train.num_classes >= 4


def test_counts_must_be_the_official_ones(layout):
    root, load, page = layout
    with pytest.raises(ValueError, match=rf"official release has [\d,]+\..*{page}"):
        load(root)


def test_a_missing_file_is_named_with_the_download_page(layout, tmp_path):
    root, load, page = layout
    with pytest.raises(FileNotFoundError, match=f"not a whole .*not found. Download it from .*{page}"):
        load(tmp_path / "nowhere", check=False)
    next(root.rglob("*.[jJ]*")).unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of the \d+ listed images are missing.*{page}"):
        load(root, check=False)


def test_cub_trains_on_the_first_hundred(tmp_path):
    splits = datasets.cub(trees.cub(tmp_path), image_size=8, check=False, validation=0)
    assert splits.train.class_names == ("001.Bird_1", "002.Bird_2", "003.Bird_3", "004.Bird_4")
    assert splits.test.class_names == ("101.Bird_101", "102.Bird_102")
    shades = [int(x[0, 0, 0, 0]) for x, _ in splits.test.ordered(batch_size=1)]
    np.testing.assert_allclose(shades, np.arange(12, 18), atol=1)


def test_cars_trains_on_the_first_98_of_both_lists(tmp_path):
    splits = datasets.cars(trees.cars_parted(tmp_path), image_size=8, check=False, validation=0)
    assert splits.train.class_names == ("Car 1", "Car 2", "Car 3", "Car 4")
    assert splits.test.class_names == ("Car 99", "Car 100") and len(splits.test) == 8


def test_sop_groups_are_the_kinds(tmp_path):
    test = datasets.sop(trees.sop(tmp_path), image_size=8, check=False).test
    for label, group in zip(test.labels, test.groups, strict=True):
        assert test.class_names[label].startswith(("bicycle", "chair")[group])


def test_in_shop_queries_and_gallery_number_alike(tmp_path):
    splits = datasets.in_shop(trees.in_shop(tmp_path), image_size=8, check=False)
    assert splits.test.class_names == splits.gallery.class_names
    assert [p.split("/")[-2] for p in splits.test.paths] == [splits.test.class_names[y] for y in splits.test.labels]


def test_broken_lists_are_named(tmp_path):
    root = trees.sop(tmp_path / "sop")
    (root / "Ebay_test.txt").write_text("image_id class_id super_class_id path\n1 2 3\n")
    with pytest.raises(ValueError, match="line 2: expected 4 columns"):
        datasets.sop(root, check=False)
    root = trees.cars(tmp_path / "cars")
    with pytest.raises(ValueError, match="classes up to 197, not all of which"):
        datasets.cars(trees.cars(tmp_path / "many", models=(1, 2, 3, 4, 99, 197)), check=False)
    birds = trees.cub(tmp_path / "birds")
    (birds / "classes.txt").write_text("1 001.Bird_1\n")
    with pytest.raises(ValueError, match=r"classes up to 4, not all .*vision\.caltech\.edu"):
        datasets.cub(birds, check=False)
    (root / "cars_annos.mat").write_text("no matrix")
    with pytest.raises(ValueError, match=r"no readable \.mat"):
        datasets.cars(root, check=False)
    root = trees.in_shop(tmp_path / "in_shop")
    listing = root / "Eval" / "list_eval_partition.txt"
    listing.write_text(listing.read_text().replace("gallery\n", "query\n", 2))
    with pytest.raises(ValueError, match="only queried or only in the gallery"):
        datasets.in_shop(root, check=False)
