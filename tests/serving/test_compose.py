"""The compose file hangs together: what it mounts, names and publishes is what the clients ask for."""

import pathlib
import re

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install pyyaml")
EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "serving"


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((EXAMPLES / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def service(compose):
    assert set(compose) == {"services", "configs"}
    (service,) = compose["services"].values()
    return service


def test_every_config_is_defined_mounted_and_used(compose, service):
    assert {config["source"] for config in service["configs"]} == set(compose["configs"])
    named = {flag.split("=", 1)[1] for flag in service["command"] if flag.split("=")[0].endswith("_file")}
    assert named == {config["target"] for config in service["configs"]}
    assert all(re.fullmatch(r"--[a-z_]+=\S+", flag) for flag in service["command"])


def test_the_model_lies_where_tensorflow_serving_looks(service):
    (volume,) = service["volumes"]
    assert volume["target"] == f"/models/{service['environment']['MODEL_NAME']}"
    assert volume["read_only"] is True
    assert volume["source"].startswith("${MODEL_DIR:?")  # without it, compose stops and says what is missing


@pytest.mark.parametrize(("client", "port"), [("rest_client", 8501), ("grpc_client", 8500), ("load", 8501)])
def test_clients_ask_where_it_listens_and_nobody_else_can(service, client, port):
    assert f"127.0.0.1:{port}:{port}" in service["ports"]
    assert all(published.startswith("127.0.0.1:") for published in service["ports"])
    text = (EXAMPLES / f"{client}.py").read_text(encoding="utf-8")
    assert str(port) in text
    assert f'default="{service["environment"]["MODEL_NAME"]}"' in text


def test_batching_parameters_are_those_that_tensorflow_serving_reads(compose):
    """A text proto of `BatchingParameters`: each field a wrapped whole number."""
    lines = compose["configs"]["batching"]["content"].strip().splitlines()
    fields = dict(re.fullmatch(r"(\w+) \{ value: (\d+) \}", line).groups() for line in lines)
    known = {"max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"}
    assert set(fields) == known
    monitoring = compose["configs"]["monitoring"]["content"].strip()
    assert re.fullmatch(r'prometheus_config \{ enable: true, path: "/[\w/]+" \}', monitoring)
