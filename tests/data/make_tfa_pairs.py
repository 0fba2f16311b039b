"""Cuts the values of the pair losses' tests out of a full record of TensorFlow Addons 0.23.

    python tests/data/make_tfa_pairs.py RECORD.npz

TensorFlow Addons is retired and no longer imports beside current TensorFlow, so the record cannot be made again.
"""

import sys
from pathlib import Path

import numpy as np

KEPT = ("emb", "y", "TripletSemiHard/", "TripletHard/", "LiftedStruct/raw", "Npairs", "Contrastive/raw")


def main(record: str):
    values = np.load(record)
    names = [name for name in values.files if name.startswith(("a/", "c/")) and name[2:].startswith(KEPT)]
    names = [name for name in names if "/l2/" not in name and not name.endswith("emb_l2")]
    np.savez_compressed(Path(__file__).with_name("tfa_pairs.npz"), **{name: values[name] for name in names})


if __name__ == "__main__":
    main(*sys.argv[1:])
