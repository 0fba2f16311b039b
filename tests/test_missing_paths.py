"""Whatever takes a path says which one is not there, and what to give, with one kind of error."""

import pytest

from tf_detreg import datasets, experiments, index, load, regularizers, retrieval, training
from tf_detreg.serving.model import ModelDirectory

TAKING = {
    "load": load,
    "run": training.load_run,
    "configuration": training.RunConfig.load,
    "index": index.Index.load,
    "decision": retrieval.Decision.load,
    "pairs": lambda path: retrieval.read_pairs(path, ["a", "b"]),
    "folder": datasets.folder,
    "csv": datasets.csv,
    "cub": datasets.cub,
    "cars": datasets.cars,
    "sop": datasets.sop,
    "in_shop": datasets.in_shop,
    "data": lambda path: datasets.find_data(str(path)),
    "study": experiments.read,
    "studies": experiments.report,
    "sentence encoder": regularizers.SentenceEncoder,
    "model": ModelDirectory,
}


@pytest.mark.parametrize("name", TAKING)
def test_a_missing_path_is_named_with_what_to_do(name, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        TAKING[name](tmp_path / "nowhere")
    assert "nowhere" in str(caught.value) and "Errno" not in str(caught.value)
