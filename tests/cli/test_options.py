"""What is typed arrives: each option of each command, and what a command does where an option is left out."""

import functools
import importlib
import inspect
import pathlib
import types

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tf_detreg import cli, retrieval, training
from tf_detreg.index import Index

HERE, INDEX = pathlib.Path, "tf_detreg.index.index:Index"
EMBEDDER = types.SimpleNamespace(output_shape=(None, 6))


class Asked(Exception):
    """Ends a command where it calls what it is for."""


def find(target):
    """Return the object that holds a function such as `module:Class.method`, and the function's name there."""
    module, _, path = target.partition(":")
    *outer, name = path.split(".")
    return functools.reduce(getattr, outer, importlib.import_module(module)), name


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Run a command up to its call of a function, and return that call's arguments by name, defaults among them."""
    monkeypatch.chdir(tmp_path)
    opened = lambda run, data=None: types.SimpleNamespace(  # noqa: E731
        directory=run, data=data, splits=lambda: "the splits", finished=True, embedder=EMBEDDER
    )
    monkeypatch.setattr(training, "load_run", opened)
    monkeypatch.setattr(retrieval, "fingerprint", lambda embedder: {id(EMBEDDER): "of the run"}[id(embedder)])

    def call(target, words):
        holder, name = find(target)
        signature = inspect.signature(getattr(holder, name))

        def record(*arguments, **options):
            bound = signature.bind(*arguments, **options)
            bound.apply_defaults()
            named = dict(bound.arguments)
            for more in (name for name, one in signature.parameters.items() if one.kind is one.VAR_KEYWORD):
                named |= named.pop(more)
            raise Asked(named)

        with monkeypatch.context() as patch:
            patch.setattr(holder, name, record)
            with pytest.raises(Asked) as caught:
                CliRunner().invoke(cli.app, words.split(), catch_exceptions=False)
        found = caught.value.args[0]
        if hasattr(run := found.get("run"), "splits"):
            found |= {"run": run.directory, "moved": run.data}
        return found

    return call


PASSED = [
    (
        "demo",
        "tf_detreg.demo:demo",
        {"directory": HERE("runs/demo"), "exports": HERE("saved_models"), "seed": 0, "epochs": 6},
    ),
    (
        "demo --run a --to b --epochs 3 --seed 4",
        "tf_detreg.demo:demo",
        {"directory": HERE("a"), "exports": HERE("b"), "seed": 4, "epochs": 3, "verbose": 2},
    ),
    (
        "export a",
        "tf_detreg.export:export_run",
        {"run": HERE("a"), "moved": None, "directory": HERE("saved_models"), "name": None, "formats": None}
        | {"check": True, "card": {"license": "Not recorded."}},
    ),
    (
        "export a --to b --name c --no-verify --format int8 --format float16 --license d --data e",
        "tf_detreg.export:export_run",
        {"run": HERE("a"), "moved": "e", "directory": HERE("b"), "name": "c", "formats": ["int8", "float16"]}
        | {"check": False, "card": {"license": "d"}},
    ),
    (
        "serve a",
        "tf_detreg.serving:serve",
        {"directory": HERE("a"), "index": None, "host": "127.0.0.1", "port": 8501, "grpc_port": None}
        | {"allowed_hosts": None, "cors_origins": (), "write_token": None},
    ),
    (
        "serve a --index b --host ::1 --port 1 --grpc-port 2 --allow-host c --allow-host d --cors-origin e "
        "--cors-origin f --write-token-file token",
        "tf_detreg.serving:serve",
        {"directory": HERE("a"), "index": HERE("b"), "host": "::1", "port": 1, "grpc_port": 2}
        | {"cors_origins": ["e", "f"], "write_token": "0123456789abcdef"},
    ),
    (
        "evaluate a",
        "tf_detreg.analysis.runs:evaluate_run",
        {"run": HERE("a"), "moved": None, "splits": "the splits", "engine": "auto", "clusters": False}
        | {"cross_group": False},
    ),
    (
        "evaluate a --engine scann --clusters --cross-group --data b",
        "tf_detreg.analysis.runs:evaluate_run",
        {"run": HERE("a"), "moved": "b", "engine": "scann", "clusters": True, "cross_group": True},
    ),
    (
        "analyze a",
        "tf_detreg.analysis.runs:analyze_run",
        {"run": HERE("a"), "moved": None, "samples": 64, "memory": 0.6},
    ),
    (
        "analyze a --samples 3 --memory 0.25 --data b",
        "tf_detreg.analysis.runs:analyze_run",
        {"run": HERE("a"), "moved": "b", "samples": 3, "memory": 0.25},
    ),
    (
        "calibrate a",
        "tf_detreg.calibrating:calibrate_run",
        {"run": HERE("a"), "moved": None, "target": 0.01, "score": "nearest", "bound": "upper"},
    ),
    (
        "calibrate a --target 0.05 --score margin --bound point --data b",
        "tf_detreg.calibrating:calibrate_run",
        {"run": HERE("a"), "moved": "b", "target": 0.05, "score": "margin", "bound": "point"},
    ),
    ("calibrate a --index b", f"{INDEX}.load", {"directory": HERE("b")}),
    (
        "monitor a b c",
        "tf_detreg.calibrating:monitor_index",
        {"place": HERE("a"), "queries": [HERE("b"), HERE("c")], "directory": None},
    ),
    ("monitor a b --run d --json", "tf_detreg.calibrating:monitor_index", {"directory": HERE("d")}),
    (
        "embed a b --runner R",
        "tf_detreg.retrieval.bulk_embed:bulk_embed",
        {"images": ["b"], "embedder": HERE("a/embedder.keras"), "output": "embeddings", "options": ["--runner=R"]}
        | {"format": "tfrecord", "shards": 16, "batch_size": 64},
    ),
    (
        "embed a b c --out d --runner R --format parquet --beam-option=--x=1 --beam-option=--y --shards 3 "
        "--batch-size 5",
        "tf_detreg.retrieval.bulk_embed:bulk_embed",
        {"images": ["b", "c"], "output": "d", "options": ["--runner=R", "--x=1", "--y"], "format": "parquet"}
        | {"shards": 3, "batch_size": 5},
    ),
    (
        "search a b c",
        "tf_detreg.searching:search_index",
        {"place": HERE("a"), "directory": None, "queries": [HERE("b"), HERE("c")], "k": 8, "where": None},
    ),
    (
        "search a b --run d -k 3 --where x=1 --picture e.png --json",
        "tf_detreg.searching:search_index",
        {"directory": HERE("d"), "k": 3, "where": "x=1"},
    ),
    ("search run b -k 3 --data d", "tf_detreg.searching:search_run", {"directory": HERE("run"), "k": 3, "data": "d"}),
    (
        "backbones a",
        "tf_detreg.experiments.candidates:compare",
        {"data": "a", "epochs": 0, "image_size": None, "seed": 0, "names": ()},
    ),
    (
        "backbones a b c --epochs 2 --image-size 48 --seed 3 --output d",
        "tf_detreg.experiments.candidates:compare",
        {"data": "a", "names": ["b", "c"], "epochs": 2, "image_size": 48, "seed": 3},
    ),
    ("index a b", f"{INDEX}.check_directory", {"directory": HERE("index")}),
    ("index build a b --to c", f"{INDEX}.check_directory", {"directory": HERE("c")}),
    (
        "index a b c --csv d",
        "tf_detreg.indexing:index_files",
        {"directory": HERE("a"), "images": [HERE("b"), HERE("c")], "table": HERE("d")},
    ),
    (
        "index add a b",
        "tf_detreg.indexing:add_files",
        {"images": [HERE("b")], "table": None, "directory": None, "replace": False},
    ),
    (
        "index add a b --csv c --run d --replace",
        "tf_detreg.indexing:add_files",
        {"place": HERE("a"), "table": HERE("c"), "directory": HERE("d"), "replace": True},
    ),
    (
        "index refresh a --run b",
        "tf_detreg.indexing:refresh_index",
        {"place": HERE("a"), "directory": HERE("b"), "limit": 0.1},
    ),
    ("index refresh a --run b --limit 0.3", "tf_detreg.indexing:refresh_index", {"limit": 0.3}),
    (
        "index shard a --to b --shards 4",
        "tf_detreg.index.splitting:split",
        {"source": HERE("a"), "output": HERE("b"), "shards": 4, "k": 10, "fields": [], "fingerprint": None},
    ),
    (
        "index shard a --to b --shards 4 -k 7 --field x --field y --run c",
        "tf_detreg.index.splitting:split",
        {"k": 7, "fields": ["x", "y"], "fingerprint": "of the run", "dimension": 6},
    ),
    (
        "index shard parts --to b --field x",
        "tf_detreg.index.shard_building:build",
        {"output": HERE("b"), "fields": ["x"], "k": 10},
    ),
    (
        "ablate a",
        "tf_detreg.experiments:ablate",
        {"output": HERE("studies/out"), "jobs": 1, "smoke": False, "data": None, "backbone": None, "strategy": None},
    ),
    (
        "ablate a --output b --jobs 0 --smoke --data c --backbone d --strategy mirrored",
        "tf_detreg.experiments:ablate",
        {"study_file": HERE("a"), "output": HERE("b"), "jobs": 0, "smoke": True, "data": "c", "backbone": "d"}
        | {"strategy": "mirrored"},
    ),
    (
        "ablate a --estimate 200 --data c --backbone d",
        "tf_detreg.experiments:estimate",
        {"study_file": HERE("a"), "images_per_second": 200.0, "data": "c", "backbone": "d"},
    ),
    (
        "tune a b",
        "tf_detreg.experiments:tune",
        {"family": "b", "trials": 20, "output": HERE("studies/out"), "jobs": 1, "smoke": False},
    ),
    (
        "tune a b --trials 3 --output c --jobs 2 --smoke",
        "tf_detreg.experiments:tune",
        {"study_file": HERE("a"), "trials": 3, "output": HERE("c"), "jobs": 2, "smoke": True},
    ),
    (
        "report",
        "tf_detreg.experiments:report",
        {"studies": HERE("studies"), "output": HERE("docs/results.md"), "picture": None},
    ),
    (
        "report --studies a --output b --picture c",
        "tf_detreg.experiments:report",
        {"studies": HERE("a"), "output": HERE("b"), "picture": HERE("c")},
    ),
    (
        "index compress shop",
        f"{INDEX}.compress",
        {"kind": "int8", "dimensions": None, "k": 10, "target": 0.99},
    ),
    (
        "index compress shop --kind binary --dimensions 2 -k 50 --recall 0.9",
        f"{INDEX}.compress",
        {"kind": "binary", "dimensions": 2, "k": 12, "target": 0.9},
    ),
    ("index compact shop", f"{INDEX}.compact", {}),
    ("index verify shop", f"{INDEX}.verify", {"progress": None}),
    ("index list shop --where n<3", f"{INDEX}.rows", {"where": "n<3"}),
    ("index list shop -n 1 --json", f"{INDEX}.rows", {"where": None}),
    ("index remove shop --where n<3", f"{INDEX}.remove", {"where": "n<3"}),
    ("index remove shop 3 x", f"{INDEX}.remove", {"ids": [3, "x"], "where": None}),
    ("index export shop --to a.parquet --where n<3", f"{INDEX}.to_parquet", {"path": "a.parquet", "where": "n<3"}),
    (
        "index export shop --to a.sql --where n<3",
        f"{INDEX}.to_pgvector",
        {"path": "a.sql", "table": "items", "where": "n<3"},
    ),
    (
        "index export shop --to a --format pgvector --table b",
        f"{INDEX}.to_pgvector",
        {"path": "a", "table": "b", "where": None},
    ),
    (
        "index export shop --to a --format lancedb --table b --where n<3",
        f"{INDEX}.to_lancedb",
        {"directory": "a", "table": "b", "where": "n<3"},
    ),
]


@pytest.fixture
def shop(tmp_path):
    """What the commands find: an index, a run, shards, a token."""
    rows = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    made = Index(rows, [*range(11), "x"], [{"n": number} for number in range(12)], "of the run")
    made.save(tmp_path / "shop")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "embeddings-00000-of-00001.parquet").touch()
    (tmp_path / "token").write_text(" 0123456789abcdef\n")


@pytest.mark.parametrize(("words", "target", "expected"), PASSED, ids=[words for words, *_ in PASSED])
def test_what_is_typed_arrives(words, target, expected, asked, shop):
    found = asked(target, words)
    assert {name: found.get(name, "missing") for name in expected} == expected


def test_hosts_are_added_to_those_of_this_machine(asked, shop):
    found = asked("tf_detreg.serving:serve", "serve a --host 0.0.0.0 --allow-host c --allow-host d")
    assert found["allowed_hosts"][-2:] == ["c", "d"] and len(found["allowed_hosts"]) > 2


TRAINED = "train digits --run a --epochs 3 --image-size 48 --backbone small_cnn --weights random --head RealNVP"
TRAINED += (
    " --dim 24 --penalty 7 --loss ProxyAnchor --classes 5 --images 3 --backbone-rate 0.5 --head-rate 0.25 --seed 9"
)
TRAINED += " --soup 2 --precision mixed_bfloat16 --no-jit-compile --steps-per-execution 4 --prefetch-to-device 2"
TRAINED += " --no-deterministic --strategy mirrored"


def test_every_option_of_train_arrives(asked):
    found = asked("tf_detreg.training:train", TRAINED)
    config = found["config"]
    assert (found["directory"], found["resume"], found["verbose"]) == (HERE("a"), False, 2)
    assert config.data["name"] == "digits" and config.loss == {"name": "ProxyAnchor"}
    assert config.backbone == {"name": "small_cnn", "weights": "random"}
    assert config.head == {"name": "RealNVP", "dim": 24, "penalty": 7.0}
    rates = {"backbone_rate": 0.5, "head_rate": 0.25}
    assert config.optimizer.items() >= rates.items() and config.averaging["last"] == 2
    numbers = {"epochs": 3, "image_size": 48, "classes": 5, "images": 3, "seed": 9, "precision": "mixed_bfloat16"}
    numbers |= {"jit_compile": False, "steps_per_execution": 4, "prefetch_to_device": 2, "deterministic": False}
    assert {name: getattr(config, name) for name in [*numbers, "strategy"]} == numbers | {"strategy": "mirrored"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--jit-compile --deterministic", {"jit_compile": True, "deterministic": True, "epochs": 10, "classes": 6}),
        ("--features", {"features": True}),
        ("--freeze-until 2 --lora-rank 3", {"freeze_until": 2, "lora_rank": 3}),
        ("--freeze-until block --layer-decay 0.75", {"freeze_until": "block", "layer_decay": 0.75}),
        ("--recipe glyphs --data glyphs", {"data": {"name": "glyphs"}}),
    ],
)
def test_options_of_train_that_exclude_others_arrive(words, expected, asked):
    config = asked("tf_detreg.training:train", f"train {'digits' * ('--data' not in words)} {words}")["config"]
    parts = {**config.to_dict(), **config.backbone, **config.optimizer, **config.to_dict()}
    assert {name: parts.get(name, "missing") for name in expected} == expected


def test_two_places_for_the_data_are_refused(asked):
    with pytest.raises(ValueError, match="DATA is 'a' and --data is 'b'"):
        asked("tf_detreg.training:train", "train a --data b")


def commands(group, before=()):
    """Return the options of each command by its words."""
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, (*before, name))
        else:
            yield " ".join((*before, name)), [option for option in one.params if option.opts[0].startswith("-")]


def test_no_option_is_forgotten_above():
    typed = [words for words, *_ in PASSED] + [TRAINED, "serve --allow-host"]
    typed += ["train --resume --recipe --data --features --lora-rank --freeze-until --layer-decay"]
    typed += ["evaluate --no-page --open-set", "index build --csv"]
    missing = {}
    for name, options in commands(typer.main.get_command(cli.app)):
        words = {word for line in typed for word in line.split() if line.startswith(name)}
        words = {word.partition("=")[0] for word in words}
        missing[name] = [one.name for one in options if not words & {*one.opts, *one.secondary_opts, "--help"}]
    assert not {name: options for name, options in missing.items() if options}
