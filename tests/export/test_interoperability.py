"""Other runtimes read the exported folder: OpenVINO as it is, onnxruntime by way of tf2onnx."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from tf_detreg.export.verification import run_artifact


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: pip install {package}")


@needs("openvino")
def test_openvino_reads_the_folder_unmodified(exported, images, expected):
    got, answer = run_artifact(exported, images, engine="openvino")
    assert answer["modules"] == []
    np.testing.assert_allclose(got, expected, atol=1e-5)


@needs("tf2onnx")
@needs("onnxruntime")
def test_onnxruntime_by_way_of_tf2onnx(exported, images, expected, tmp_path):
    path = tmp_path / "model.onnx"
    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(exported), "--output", str(path)]
    command += ["--signature_def", "serving_default", "--opset", "17"]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stderr[-800:]
    got, answer = run_artifact(path, images)
    assert answer["modules"] == []
    np.testing.assert_allclose(got, expected, atol=1e-5)
