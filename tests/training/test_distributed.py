"""Several replicas train as one process does: devices of one machine, and processes that talk over the network."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.training import distributed_worker
from tf_detreg import training
from tf_detreg.training import checkpoint, distribution

WORKER = distributed_worker.__file__


def start(arguments, task=None, ports=()):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if task is not None:
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": task}})
    command = [sys.executable, WORKER, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def free_ports(count):
    """Ports that nobody listens on right now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def finish(processes):
    try:
        for process in processes:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()


def run_distributed(strategy, output, rows, variant):
    arguments = ["equal", strategy, output, rows, variant]
    if strategy == "mirrored":
        finish([start(arguments)])
    else:
        ports = free_ports(2)
        finish([start(arguments, task, ports) for task in range(2)])


def same(first, second):
    """Compare what two trainings wrote."""
    one, two = np.load(first), np.load(second)
    assert set(one.files) == set(two.files)
    assert all(np.isfinite(one[name]).all() for name in one.files)
    for name in one.files:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-6, err_msg=name)


# Batches of 7 rows are dealt as 3 and 4; those of 1 row as none and 1. Plain training on two devices of one machine is
# in `tests/test_replicas.py`.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "rows", "variant"),
    [
        ("multiworker", 7, ""),
        ("multiworker", 1, ""),
        ("multiworker", 7, "memory"),
        ("mirrored", 7, "memory"),
        ("multiworker", 7, "overflow"),
        ("mirrored", 7, "overflow"),
    ],
)
def test_two_replicas_equal_one_process(strategy, rows, variant, tmp_path):
    distributed_worker.equal(distribution.open_place(""), tmp_path / "one.npz", rows, variant)
    run_distributed(strategy, tmp_path / "two.npz", rows, variant)
    # An overflow skips the step and halves the scale, also where it happened on the second replica alone.
    assert variant != "overflow" or np.load(tmp_path / "one.npz")["scale"] < 2**15
    same(tmp_path / "one.npz", tmp_path / "two.npz")


@pytest.mark.slow
def test_a_killed_worker_and_a_resumed_run(tmp_path):
    def both(directory, victim=None):
        ports = free_ports(2)
        kill = [[*(["kill"] if task == victim else [])] for task in range(2)]
        return [start(["run", directory, *kill[task]], task, ports) for task in range(2)]

    finish(both(tmp_path / "unbroken"))

    processes = both(tmp_path / "broken", victim=1)
    processes[1].wait(timeout=240)
    assert processes[1].returncode == -signal.SIGKILL
    processes[0].kill()  # it would wait for its mate until the heartbeat gives up
    processes[0].wait()
    assert not (tmp_path / "broken" / "embedder.keras").exists()
    assert checkpoint.checkpoints(tmp_path / "broken" / "checkpoints")

    finish(both(tmp_path / "broken"))
    a, b = (training.load_run(tmp_path / name) for name in ("unbroken", "broken"))
    for ours, theirs in zip(a.embedder.get_weights(), b.embedder.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert [row["epoch"] for row in b.history] == [1, 2, 3]


def test_a_cluster_needs_its_configuration(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="TF_CONFIG"):
        distribution.open_place("multiworker")
    for damaged in ("{", "[]", '{"task": {"type": "worker"}}'):
        monkeypatch.setenv("TF_CONFIG", damaged)
        with pytest.raises(ValueError, match=f"variable TF_CONFIG.*received {re.escape(repr(damaged))}"):
            distribution.open_place("multiworker")
    with pytest.raises(ValueError, match="strategy"):
        distribution.open_place("tpu")
