"""`tf-detreg embed --runner …`: the command around the bulk embedding."""

import keras
import pytest
from typer.testing import CliRunner

from tests.datasets.trees import picture
from tf_detreg import cli, training
from tf_detreg.files import write_json
from tf_detreg.retrieval.bulk_embed import read_embeddings


@pytest.fixture
def run(tmp_path):
    """A finished run, as far as the command reads one."""
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(5), keras.layers.UnitNormalization()]
    (tmp_path / "run").mkdir()
    keras.Sequential(layers).save(tmp_path / "run" / "embedder.keras")
    write_json(tmp_path / "run" / "config.json", {"config": training.RunConfig().to_dict()})
    return tmp_path / "run"


def embed(*arguments):
    return CliRunner().invoke(cli.app, ["embed", *map(str, arguments)])


def test_a_runner_embeds_into_shards(run, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    for number in range(7):
        picture(tmp_path / "pictures" / f"{number}.png", 30 * number)
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    result = embed(run, tmp_path / "pictures", "--runner", "DirectRunner", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "7 images embedded" in result.output and "1 could not be read" in result.output
    paths, vectors = read_embeddings(tmp_path / "out")
    assert [path.rsplit("/", 1)[1] for path in paths] == [f"{number}.png" for number in range(7)]
    assert vectors.shape == (7, 5)


def test_beams_options_reach_the_pipeline(run, tmp_path, monkeypatch):
    seen = {}

    def record(images, embedder, out, **options):
        seen.update(images=images, embedder=embedder, out=out, **options)
        raise ValueError("far enough")

    monkeypatch.setattr("tf_detreg.retrieval.bulk_embed.bulk_embed", record)
    embed(run, "gs://shop/*.jpg", "--runner=FlinkRunner", "--beam-option=--flink_master=host:8081", "--out=gs://shop/v",
          "--shards=200", "--batch-size=8", "--format=parquet")  # fmt: skip
    assert seen == {
        "images": ["gs://shop/*.jpg"],
        "embedder": run / "embedder.keras",
        "out": "gs://shop/v",
        "options": ["--runner=FlinkRunner", "--flink_master=host:8081"],
        "shards": 200,
        "batch_size": 8,
        "format": "parquet",
    }


def test_what_the_command_refuses(run, tmp_path):
    result = embed(run, tmp_path, "--beam-option=--direct_num_workers=2")
    assert "--beam-option needs --runner" in str(result.exception)
    for option in ("--shards=3", "--batch-size=3", "--format=tfrecord"):
        assert "needs --runner" in str(embed(run, tmp_path, option).exception), option
    assert "for one file" in str(embed(run, tmp_path, "--runner=DirectRunner", "--format=npz").exception)
    (run / "embedder.keras").unlink()
    assert "has not ended" in str(embed(run, tmp_path, "--runner", "DirectRunner").exception)
