"""All formats at once, published together or not at all, with a card beside them."""

import pytest

from tf_detreg import export


def test_a_release_is_verified_and_carries_its_card(embedder, images, labels, tmp_path):
    facts = {"name": "Colours", "data": "48 pictures", "recipe": {"loss": "proxy_anchor"}, "licence": "CC0"}
    done = export.release(
        embedder, tmp_path / "m", images, labels, formats=["saved_model", "dynamic"], class_names=["a"], card=facts
    )
    assert done.verification.passed
    assert {name: path.name for name, path in done.paths.items()} == {
        "saved_model": "1",
        "dynamic": "m-v1-dynamic.tflite",
    }
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["1", "README.md", "m-v1-dynamic.tflite"]
    card = done.card.read_text()
    assert card == (done.paths["saved_model"] / "README.md").read_text()
    for text in ("# Colours", "48 pictures", "proxy_anchor", "CC0", "| m-v1-dynamic.tflite | litert |"):
        assert text in card


def test_nothing_is_published_below_the_limits(embedder, images, tmp_path):
    strict = {"dynamic": export.Limits(cosine=1.1, recall_points=0.0)}
    with pytest.raises(ValueError, match=r"Not published.*below 1\.1"):
        export.release(embedder, tmp_path / "m", images, formats=["float32", "dynamic"], limits=strict)
    assert not list(tmp_path.iterdir())


def test_by_default_a_rounded_file_below_its_limits_is_left_out(embedder, images, tmp_path):
    strict = {"dynamic": export.Limits(cosine=1.1, recall_points=0.0)}
    done = export.release(embedder, tmp_path / "m", images, limits=strict)
    assert sorted(done.paths) == ["float16", "float32", "int8", "saved_model"]
    assert not list((tmp_path / "m").glob("*dynamic*"))
    assert "m-v1-dynamic.tflite: cosine" in done.verification.reasons()
    assert "left out" in done.card.read_text()
    with pytest.raises(ValueError, match=r"Not published.*m-v2-float32\.tflite.*below 1\.1"):
        export.release(embedder, tmp_path / "m", images, limits={"float32": export.Limits(1.1, 0.0)})


def test_bad_settings(embedder, images, tmp_path):
    with pytest.raises(ValueError, match="formats must be some of"):
        export.release(embedder, tmp_path, images, formats=["onnx"])
    (tmp_path / "4").mkdir()
    with pytest.raises(ValueError, match="next free one"):
        export.release(embedder, tmp_path, images, formats=["float32"], version=4, check=False)
    for version in (0, True, "5"):
        with pytest.raises(ValueError, match="must be a whole number of at least 1"):
            export.release(embedder, tmp_path, images, formats=["float32"], version=version, check=False)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="Cannot write here"):
        export.release(embedder, tmp_path / "file", images, formats=["float32"])
