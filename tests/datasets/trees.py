"""Small trees in the official layouts of public data sets, for the tests of their loaders."""

import numpy as np
from PIL import Image


def picture(path, shade=100, size=(10, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path)


def cub(root, species=(1, 2, 3, 4, 101, 102), each=3):
    files = [(f"{c:03d}.Bird_{c}/b_{i}.jpg", c) for c in species for i in range(each)]
    for shade, (file, _) in enumerate(files):
        picture(root / "images" / file, shade)
    (root / "images.txt").write_text("".join(f"{n} {file}\n" for n, (file, _) in enumerate(files, 1)))
    (root / "image_class_labels.txt").write_text("".join(f"{n} {c}\n" for n, (_, c) in enumerate(files, 1)))
    (root / "classes.txt").write_text("".join(f"{c} {c:03d}.Bird_{c}\n" for c in species))
    return root


def _annotations(rows, field):
    kinds = [(name, object) for name in ("bbox_x1", field, "class", "test")]
    table = np.zeros((1, len(rows)), dtype=kinds)
    for at, (file, label) in enumerate(rows):
        table[0, at] = (1, file, label, 0)
    return table


def _names():
    names = np.empty((1, 196), object)
    names[0] = [f"Car {c}" for c in range(1, 197)]
    return names


def cars(root, models=(1, 2, 3, 4, 99, 100), each=3):
    from scipy.io import savemat

    rows = [(f"car_ims/{c:03d}{i}.jpg", c) for c in models for i in range(each)]
    for file, label in rows:
        picture(root / file, label)
    savemat(root / "cars_annos.mat", {"annotations": _annotations(rows, "relative_im_path"), "class_names": _names()})
    return root


def cars_parted(root, models=(1, 2, 3, 4, 99, 100), each=2):
    from scipy.io import savemat

    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": _names()})
    for part, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = [(f"{c:03d}{i}.jpg", c) for c in models for i in range(each)]
        for name, label in rows:
            picture(root / f"cars_{part}" / name, label)
        savemat(root / file, {"annotations": _annotations(rows, "fname")})
    return root


def sop(root, articles=6, each=2):
    for part, first in (("train", 1), ("test", 1 + articles)):
        lines = ["image_id class_id super_class_id path"]
        for article in range(first, first + articles):
            kind = 1 + article % 2
            for i in range(each):
                file = f"{('bicycle', 'chair')[kind - 1]}_final/{article}_{i}.JPG"
                picture(root / file, article)
                lines.append(f"{len(lines)} {article} {kind} {file}")
        (root / f"Ebay_{part}.txt").write_text("\n".join(lines) + "\n")
    return root


def in_shop(root, garments=6, each=2):
    lines = []
    for garment in range(1, 2 * garments + 1):
        for part in ("train",) if garment <= garments else ("query", "gallery"):
            for i in range(each):
                file = f"img/WOMEN/Dresses/id_{garment:08d}/{part}_{i}_front.jpg"
                picture(root / "Img" / file, garment)
                lines.append(f"{file:60s} id_{garment:08d}     {part}")
    (root / "Eval").mkdir(parents=True)
    listing = f"{len(lines)}\nimage_name item_id evaluation_status\n" + "\n".join(lines) + "\n"
    (root / "Eval" / "list_eval_partition.txt").write_text(listing)
    return root
