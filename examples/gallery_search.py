"""Search a gallery of pictures by picture.

    python examples/gallery_search.py RUN PHOTOS/ QUERY.jpg [QUERY.jpg …]     # your model, your pictures
    python examples/gallery_search.py                                        # scikit-learn's digits, raw pixels

Builds an index of the folder (once; it is opened the next time), searches it for each query, prints what it found and
writes a picture of it.
"""

import argparse
import pathlib
import tempfile

import numpy as np

import tf_detreg
from tf_detreg import datasets, retrieval
from tf_detreg.analysis.neighbours import Neighbours


def open_or_build(place: pathlib.Path, pictures: datasets.ImageSet, embed, fingerprint: str) -> retrieval.Index:
    """The index at `place`, or a new one with the label of each picture as its metadata."""
    if place.exists():
        return retrieval.Index.load(place)
    names = [pictures.class_names[label] for label in pictures.labels]
    ids = list(pictures.paths) if pictures.paths is not None else [f"picture {i}" for i in range(len(pictures))]
    index = retrieval.Index(embed(pictures), ids, [{"label": name} for name in names], fingerprint)
    index.save(place)
    return index


def show(matches: retrieval.Matches, queries: np.ndarray, gallery: datasets.ImageSet, path: pathlib.Path) -> None:
    """Print the matches and draw them."""
    for row in matches.rows():
        print(f"query {row['query']}  {row['rank']}. {row['score']:.3f}  {row['label']}  {row['id']}")
    found = np.stack([pixels(gallery.subset(places)) for places in matches.places])
    names = [[item["label"] for item in items] for items in matches.metadata]
    titles = [f"query {i}" for i in range(len(queries))]
    print("Picture:", Neighbours(queries, found, matches.scores, titles, names).save_png(path))


def pixels(pictures: datasets.ImageSet) -> np.ndarray:
    """All pictures of a set, in order, as uint8."""
    return np.concatenate([images.numpy() for images, _ in pictures.ordered()]).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="a run directory or a .keras file; without it, digits by raw pixels")
    parser.add_argument("photos", nargs="?", help="a folder that holds one folder of pictures a class")
    parser.add_argument("queries", nargs="*", help="pictures to look for")
    parser.add_argument("-k", type=int, default=5, help="how many to find (default 5)")
    parser.add_argument("--index", type=pathlib.Path, help="where the index is kept (default: PHOTOS.index)")
    parser.add_argument("--picture", type=pathlib.Path, default=pathlib.Path("found.png"), help="default: found.png")
    options = parser.parse_args()
    if options.run and not options.queries:
        parser.error("give RUN, PHOTOS and at least one QUERY, or nothing at all")
    if not options.run:
        with tempfile.TemporaryDirectory() as folder:
            digits = datasets.digits().test
            some = np.arange(0, len(digits), len(digits) // 4)[:4]
            embed = lambda images: pixels(images).reshape(len(images), -1)  # noqa: E731
            index = open_or_build(pathlib.Path(folder) / "digits.index", digits, embed, "raw pixels")
            matches = index.search(embed(digits.subset(some)), options.k, fingerprint="raw pixels")
            show(matches, pixels(digits.subset(some)), digits, options.picture)
        return
    embedder = tf_detreg.load(options.run)
    size = embedder.input_shape[1:3]
    model = retrieval.fingerprint(embedder)
    gallery = datasets.folder(options.photos, image_size=size, validation=0.0, test=0.0).train

    def embed(images: datasets.ImageSet) -> np.ndarray:
        return np.concatenate([embedder(batch, training=False).numpy() for batch, _ in images.ordered()])

    queries = datasets.ImageSet(
        labels=np.zeros(len(options.queries), np.int32), class_names=["?"], paths=options.queries, image_size=size
    )
    place = options.index or pathlib.Path(options.photos).with_suffix(".index")
    index = open_or_build(place, gallery, embed, model)
    show(index.search(embed(queries), options.k, fingerprint=model), pixels(queries), gallery, options.picture)


if __name__ == "__main__":
    main()
