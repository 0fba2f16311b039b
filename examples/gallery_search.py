"""Search a gallery of pictures by picture.

    python examples/gallery_search.py RUN PHOTOS/ QUERY.jpg [QUERY.jpg …]     # your model, your pictures
    python examples/gallery_search.py                                        # scikit-learn's digits, raw pixels

Builds an index of the folder (once; it is opened the next time), searches it for each query, prints what it found and
writes a picture of it.
"""

import argparse
import pathlib
import tempfile

import keras
import numpy as np

import tf_detreg
from tf_detreg import datasets, retrieval, training
from tf_detreg.analysis.neighbors import Neighbors, pixels
from tf_detreg.index import Index


def open_or_build(place: pathlib.Path, pictures: datasets.ImageSet, embed, fingerprint: str) -> Index:
    """The index at `place`, or a new one. `row` in an item's metadata is its number among the pictures."""
    if place.exists():
        return Index.load(place)
    found = embed(pictures)  # pictures that cannot be read are left out
    ids = [pictures.paths[i] if pictures.paths is not None else f"picture {i}" for i in found.indices]
    items = [{"label": pictures.class_names[pictures.labels[i]], "row": int(i)} for i in found.indices]
    index = Index(found.embeddings, ids, items, fingerprint)
    index.save(place)
    return index


def show(
    matches: retrieval.Matches, queries: datasets.ImageSet, gallery: datasets.ImageSet, path: pathlib.Path
) -> None:
    """Print the matches and draw them."""
    for row in matches.rows():
        print(f"query {row['query']}  {row['rank']}. {row['score']:.3f}  {row['label']}  {row['id']}")
    rows = np.array([[item["row"] for item in items] for items in matches.metadata])
    names = [[item["label"] for item in items] for items in matches.metadata]
    titles = [f"query {i}" for i in range(len(queries))]
    asked = pixels(queries, np.arange(len(queries)))
    print("Picture:", Neighbors(asked, pixels(gallery, rows), matches.scores, titles, names).save_png(path))


def search_digits(k: int, picture: pathlib.Path) -> None:
    """Raw pixels of scikit-learn's digits, to see it work."""
    digits = datasets.digits().test
    some = digits.subset(np.arange(0, len(digits), len(digits) // 4)[:4])
    flat = keras.Sequential([keras.Input((*digits.image_size, 3)), keras.layers.Flatten()])

    def embed(pictures: datasets.ImageSet) -> training.Embedded:
        return training.embed(flat, pictures)

    with tempfile.TemporaryDirectory() as folder:
        index = open_or_build(pathlib.Path(folder) / "digits.index", digits, embed, "raw pixels")
        matches = index.search(embed(some).embeddings, k, fingerprint="raw pixels")
        show(matches, some, digits, picture)


def search_photos(
    run: str, photos: str, queries: list[str], k: int, place: pathlib.Path, picture: pathlib.Path
) -> None:
    """Your pictures by your model."""
    embedder = tf_detreg.load(run)
    size, model = embedder.input_shape[1:3], retrieval.fingerprint(embedder)
    gallery = datasets.folder(photos, image_size=size, validation=0.0, test=0.0).train
    asked = datasets.ImageSet([0] * len(queries), ["query"], paths=queries, image_size=size)

    def embed(pictures: datasets.ImageSet) -> training.Embedded:
        return training.embed(embedder, pictures)

    found = embed(asked)
    index = open_or_build(place, gallery, embed, model)
    show(index.search(found.embeddings, k, fingerprint=model), asked.subset(found.indices), gallery, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="a run directory or a .keras file; without it, digits by raw pixels")
    parser.add_argument("photos", nargs="?", help="a folder that holds one folder of pictures a class")
    parser.add_argument("queries", nargs="*", help="pictures to look for")
    parser.add_argument("-k", type=int, default=5, help="how many to find (default 5)")
    parser.add_argument("--index", type=pathlib.Path, help="where the index is kept (default: PHOTOS.index)")
    parser.add_argument("--picture", type=pathlib.Path, default=pathlib.Path("found.png"), help="default: found.png")
    given = parser.parse_args()
    if not given.run:
        search_digits(given.k, given.picture)
    elif given.queries:
        place = given.index or pathlib.Path(given.photos).with_suffix(".index")
        search_photos(given.run, given.photos, given.queries, given.k, place, given.picture)
    else:
        parser.error("give RUN, PHOTOS and at least one QUERY, or nothing at all")


if __name__ == "__main__":
    main()
