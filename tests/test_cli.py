"""The command, from a folder of photos to a search, and what it says when the input is bad."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from typer.testing import CliRunner

import tf_detreg
from tests.eager import eagerly
from tf_detreg import cli, retrieval, searching, training
from tf_detreg.cli import publish
from tf_detreg.extras import PACKAGES

# A command here runs a handful of steps, or embeds a batch: tracing them would take most of the time.
pytestmark = pytest.mark.usefixtures("eager")

SMALL = ["--image-size", "16", "--epochs", "1", "--classes", "3", "--images", "2", "--backbone", "small_cnn"]
SMALL += ["--dim", "8", "--loss", "SupCon"]
# For the runs of single tests, which are about something else than the flow with its networks.
PLAIN = [*SMALL, "--head", "Linear"]


def command(*arguments) -> str:
    """Runs the command in this process; its errors come out as they are."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten classes, each a colour, as JPEGs and PNGs of different sizes; one file is no image at all."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("photos")
    for label in range(10):
        (folder / f"Klasse {label} é").mkdir()
        colour = rng.integers(0, 256, 3)
        for number in range(4):
            height, width = rng.integers(20, 60, 2)
            pixels = np.clip(colour + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)
            ending = "png" if number == 3 else "jpg"
            Image.fromarray(pixels).save(folder / f"Klasse {label} é" / f"{number}.{ending}")
    (folder / "Klasse 0 é" / "broken.jpg").write_text("this is no JPEG")
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs")
    # A flow of two layers: of one with twelve, what is analyzed and exported here would be traced for a minute.
    recipe = directory / "shallow.toml"
    recipe.write_text('[head]\nname = "RealNVP"\ndepth = 2\nhidden = 16\npenalty = 10.0\n', encoding="utf-8")
    with eagerly():
        assert "R@1" in command("train", photos, "--run", directory / "photos", "--recipe", recipe, *SMALL)
    return directory / "photos"


def test_training_on_a_folder_leaves_a_whole_run(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.json", "embedder.keras", "history.csv", "evaluation.json"} <= names
    assert json.loads((run / "config.json").read_text())["config"]["loss"]["name"] == "SupCon"


def test_evaluate_prints_recall_and_writes_the_report(run):
    assert "R@1" in command("evaluate", run)
    assert "Mistakes" in (run / "report.html").read_text(encoding="utf-8")


def test_evaluate_keeps_its_numbers(run):
    trained = (run / "evaluation.json").read_bytes()
    assert "evaluate.json" in command("evaluate", run, "--no-page", "--clusters")
    kept = json.loads((run / "evaluate.json").read_text(encoding="utf-8"))
    assert {"recall@1", "nmi", "f1"} <= kept["metrics"].keys() and kept["trained_classes"] == 0
    assert (run / "evaluation.json").read_bytes() == trained


def test_evaluate_takes_a_set_that_is_smaller_than_its_largest_rank(run, photos, tmp_path):
    for number in range(6):
        shutil.copytree(photos / f"Klasse {number} é", tmp_path / "few" / str(number))
        (tmp_path / "few" / str(number) / "0.jpg").unlink()
    command("train", tmp_path / "few", "--run", tmp_path / "run", *PLAIN)
    said = command("evaluate", tmp_path / "run")
    assert "R@4" in said and "R@8" not in said and "Report" in said


def test_evaluate_across_groups_leaves_those_of_the_querys_own_out(photos, tmp_path):
    parts = ["train"] * 4 + ["test"] * 4
    rows = [f"{photos}/Klasse {c} é/{i}.jpg,{c},{parts[c]},camera {i}" for c in range(8) for i in range(3)]
    # A copy by the same camera: found at once, unless what that camera took of the class leaves the gallery.
    rows += [f"{photos}/Klasse {c} é/{i}.jpg,{c},{parts[c]},camera {i}" for c in range(8) for i in range(3)]
    (tmp_path / "cameras.csv").write_text("\n".join(["path,label,split,group", *rows]), encoding="utf-8")
    command("train", tmp_path / "cameras.csv", "--run", tmp_path / "run", *PLAIN)
    assert "leave-one-out" in command("evaluate", tmp_path / "run", "--no-page")
    assert "cross-group" in command("evaluate", tmp_path / "run", "--cross-group")
    kept = json.loads((tmp_path / "run" / "evaluate-cross-group.json").read_text(encoding="utf-8"))
    assert kept["protocol"] == "cross-group"
    assert not (tmp_path / "run" / "report.html").exists()


def test_evaluate_across_groups_needs_groups(run):
    with pytest.raises(ValueError, match=r"`cross_group` must be false, .* has no groups.*column `group`"):
        command("evaluate", run, "--cross-group")


@pytest.fixture(scope="module")
def analyzed(run):
    """The run, and what `analyze` printed of it."""
    return run, command("analyze", run, "--samples", 4)


def test_analyze_measures_seen_and_unseen_classes(analyzed):
    run, output = analyzed
    assert "unseen" in output
    assert {"head", "backbone", "embedder"} <= set(json.loads((run / "lipschitz.json").read_text()))
    assert Image.open(run / "lipschitz.png").size[0] > 400


def test_export_writes_what_loads_and_what_it_checked(analyzed, tmp_path):
    run, _ = analyzed
    output = command("export", run, "--to", tmp_path, "--format", "saved_model", "--format", "float32")
    served = tf.saved_model.load(tmp_path / "photos" / "1").signatures["serving_default"]
    assert served(images=tf.zeros((2, 16, 16, 3)))["embeddings"].shape == (2, 8)
    assert f"tf-detreg serve {tmp_path / 'photos'} --index" in output
    (lite,) = (tmp_path / "photos" / "1" / "lite").glob("*.tflite")
    assert lite.name in output.replace("\n", "")
    card = (tmp_path / "photos" / "1" / "README.md").read_text(encoding="utf-8")
    for text in ("| R@1 |", "leave-one-out", "| spectral norm |", "images of 5 classes for training", '"SupCon"'):
        assert text in card


def test_an_index_is_built_and_searched(run, photos, tmp_path):
    # 40 images and one file that is none.
    assert "40 images indexed" in command("index", run, photos, "--to", tmp_path / "i")
    query = photos / "Klasse 5 é" / "2.jpg"
    output = command("search", tmp_path / "i", query, "-k", 2, "--picture", tmp_path / "n.png")
    assert output.startswith("2.jpg: Klasse 5 é/2.jpg 1.000")
    assert (tmp_path / "n.png").is_file()


def test_an_index_outlives_its_pictures_and_a_move_of_its_run(run, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(run, tmp_path / "run")
    command("index", tmp_path / "run", tmp_path / "photos", "--to", tmp_path / "i")
    shutil.rmtree(tmp_path / "photos" / "Klasse 5 é")
    query = photos / "Klasse 5 é" / "2.jpg"
    search = ["search", tmp_path / "i", query, "-k", 2, "--picture", tmp_path / "n.png"]
    assert "Klasse 5 é/2.jpg 1.000" in command(*search)
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"run', whose model made the index .* is not there.*--run"):
        command(*search)
    assert "Klasse 5 é/2.jpg 1.000" in command(*search, "--run", tmp_path / "moved")


def test_an_index_that_a_script_made_is_searched(run, photos, tmp_path):
    query = photos / "Klasse 5 é" / "2.jpg"
    embedder = training.load_run(run).embedder
    vectors = training.embed(embedder, searching.image_files([photos / "Klasse 5 é"], embedder)).embeddings
    # Ids alone: some are files, which are drawn, others are not.
    retrieval.Index(vectors, [str(query), *range(1, len(vectors))]).save(tmp_path / "i")
    with pytest.raises(ValueError, match="does not say which run made it"):
        command("search", tmp_path / "i", query)
    said = command("search", tmp_path / "i", query, "-k", 3, "--run", run, "--picture", tmp_path / "n.png")
    assert "Picture" in said and Image.open(tmp_path / "n.png").size[0] > 3 * 128


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes among files")
def test_a_catalogue_holds_more_than_pictures(run, photos, tmp_path):
    shutil.copytree(photos / "Klasse 1 é", tmp_path / "c")
    os.mkfifo(tmp_path / "c" / "pipe.jpg")
    (tmp_path / "c" / "folder.jpg").mkdir()
    (tmp_path / "c" / "._0.jpg").write_text("what a Mac leaves behind")
    (tmp_path / "c" / "zero.png").touch()
    (tmp_path / "c" / "0.jpg").rename(tmp_path / "c" / "0.JFIF")
    (tmp_path / "c" / "1.jpg").rename(tmp_path / "c" / "1")
    assert "3 of 6 files" in command("embed", run, tmp_path / "c", "--out", tmp_path / "e.npz")
    # What is named is tried, whatever its ending.
    assert "1 of 1 files" in command("embed", run, tmp_path / "c" / "1", "--out", tmp_path / "e.npz")


def test_what_cannot_be_written_is_said_before_the_work(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "embed", lambda *_, **__: pytest.fail("the work began"))
    (tmp_path / "note").write_text("in the way")
    for arguments, message in (
        (["embed", run, photos, "--out", photos], "A folder is in the way"),
        (["embed", run, photos, "--out", tmp_path / "note" / "e.npz"], "Choose another place"),
        (["index", run, photos, "--to", photos], "is not an index"),
        (["index", run, photos, "--to", tmp_path / "note" / "i"], "Choose another place"),
        (["search", run, photos, "--picture", photos], "A folder is in the way"),
    ):
        with pytest.raises((OSError, ValueError), match=message):
            command(*arguments)


def test_evaluate_reads_the_data_once_and_takes_black_images(run, photos, tmp_path, caplog):
    for name in sorted(photos.iterdir()):
        shutil.copytree(name, tmp_path / "photos" / name.name)
        Image.new("RGB", (20, 20)).save(tmp_path / "photos" / name.name / "2.jpg")
    command("train", tmp_path / "photos", "--run", tmp_path / "run", *PLAIN)
    caplog.clear()
    assert "Report" in command("evaluate", tmp_path / "run")
    assert caplog.text.count("left out 1 of 41 files") == 1


def test_nothing_to_measure_is_said(photos, tmp_path):
    rows = [f"Klasse {c} é/{i}.jpg,{c},train" for c in range(4) for i in range(3)]
    (photos / "list.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    assert "Nothing was measured" in command("train", photos / "list.csv", "--run", tmp_path / "r", *PLAIN)
    with pytest.raises(ValueError, match="has neither test nor validation images"):
        command("evaluate", tmp_path / "r")
    with pytest.raises(ValueError, match="has neither test nor validation images"):
        command("export", tmp_path / "r", "--to", tmp_path / "e", "--format", "float32")
    assert ".tflite" in command("export", tmp_path / "r", "--to", tmp_path / "e", "--format", "float32", "--no-verify")


def test_embed_leaves_out_what_is_no_image(run, photos, tmp_path):
    output = command("embed", run, photos / "Klasse 0 é", "--out", tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as file:
        assert file["embeddings"].shape == (4, 8)
        assert not [path for path in file["paths"] if "broken" in path]
    assert "4 of 5 files" in output


def test_search_finds_the_query_itself_first_and_draws(run, photos, tmp_path):
    output = command("search", run, photos / "Klasse 3 é" / "1.jpg", "-k", 3, "--picture", tmp_path / "n.png")
    assert output.startswith("1.jpg: Klasse 3 é 1.000")
    assert Image.open(tmp_path / "n.png").size[0] > 4 * 128


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["train", "no-such-place"], "Give a folder"),
        (["evaluate", "."], "not the directory of a run"),
        (["train", "digits", "--loss", "ProxyAncor"], "ProxyAnchor"),
        (["train", "digits", "--epochs", "0"], "epochs"),
        (["train", "--resume"], "there is no run in"),
    ],
)
def test_errors_say_what_to_do(arguments, hint, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        "sys.argv", ["tf-detreg", *arguments, *(["--run", str(tmp_path / "r")] * ("train" in arguments))]
    )
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert hint in capsys.readouterr().err


def answer(monkeypatch, capfd, *arguments) -> tuple[int, str]:
    """What the command as a whole does: its exit code, and what it says."""
    monkeypatch.setattr("sys.argv", ["tf-detreg", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = capfd.readouterr()
    return caught.value.code or 0, said.out + said.err


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_names_that_are_no_unicode_go_all_the_way(photos, tmp_path, monkeypatch, capfd):
    shutil.copytree(photos, tmp_path / "photos")
    for old, new in (("Klasse 2 é".encode(), b"caf\xe9"), (b"caf\xe9/1.jpg", b"caf\xe9/\xff.jpg")):
        os.rename(*(os.path.join(os.fsencode(tmp_path / "photos"), name) for name in (old, new)))
    command("train", tmp_path / "photos", "--run", tmp_path / "run", *PLAIN)
    command("index", tmp_path / "run", tmp_path / "photos", "--to", tmp_path / "i")
    arguments = ["search", tmp_path / "i", tmp_path / "photos", "-k", 1, "--picture", tmp_path / "n.png"]
    code, said = answer(monkeypatch, capfd, *arguments)
    assert code == 0 and "udcff.jpg 1.000" in said


def test_too_many_unreadable_images_stop_training_with_a_sentence(photos, tmp_path, monkeypatch, capfd):
    shutil.copytree(photos, tmp_path / "photos")
    for path in (tmp_path / "photos").rglob("[01].jpg"):
        path.write_bytes(path.read_bytes()[:650])
    code, said = answer(monkeypatch, capfd, "train", tmp_path / "photos", "--run", tmp_path / "r", *PLAIN)
    # The command hides TensorFlow's own log, which this process does not.
    sentence = said[said.rindex("\nError: ") :].partition("(TF_DETREG_TRACEBACK")[0]
    assert code == 1 and "cannot be read, more than the stated share of 5.0%" in sentence
    assert len(sentence.strip().splitlines()) == 1


def test_control_c_is_a_sentence(monkeypatch, capfd):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("tf_detreg.recipes.titles", interrupted)
    code, said = answer(monkeypatch, capfd, "recipes")
    assert code == 130 and "Stopped. What was finished is kept" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("serve model", ""),
        ("index shard a --to b --shards 4", " What was finished is kept: the same command goes on."),
        ("index add a b", " What was finished is kept: the same command goes on."),
        ("index verify a", " What was finished is kept."),
        ("tune s.toml", " What was finished is kept: the same command goes on."),
        ("train photos", " What was finished is kept. `tf-detreg train --resume` goes on with a run."),
    ],
)
def test_what_a_stopped_command_leaves_is_told(words, said):
    assert cli._kept(words.split()) == said


def test_control_c_of_the_server_speaks_of_no_run(monkeypatch, capfd):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tf_detreg.serving.serve", interrupted)
    code, said = answer(monkeypatch, capfd, "serve", "model")
    assert code == 130 and "Stopped." in said and "train" not in said and "Traceback" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent Ctrl-C there")
def test_control_c_while_tensorflow_is_loaded_shows_no_traceback(tmp_path):
    (tmp_path / "keras.py").write_text("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)")
    (tmp_path / "tf-detreg").write_text("from tf_detreg.cli import main; main()")
    places = os.pathsep.join([str(tmp_path), os.path.dirname(os.path.dirname(cli.__path__[0]))])
    done = subprocess.run(
        [sys.executable, tmp_path / "tf-detreg", "evaluate", "run"],
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        # A test run in the background of a shell ignores SIGINT, and its children would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_control_c_is_taken_up_again_once_the_command_runs(monkeypatch, capfd):
    monkeypatch.delitem(sys.modules, "tf_detreg._layers")
    monkeypatch.setattr("importlib.import_module", lambda name: handlers.append(signal.getsignal(signal.SIGINT)))
    handlers, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli.load_tensorflow()
        handlers.append(signal.getsignal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [signal.SIG_DFL, signal.default_int_handler]


@pytest.fixture(scope="module")
def without_tensorflow(tmp_path_factory):
    """Runs the command, as its entry point does, where importing anything that takes long is an error."""
    folder = tmp_path_factory.mktemp("poisoned")
    few = {"rich", "typer", "h11", "orjson", "tokenizers", "safetensors", "threadpoolctl", "python_multipart"}
    for name in ("tensorflow", "keras", "numpy", "PIL", "pandas", "sqlite3", "asyncio", *(set(PACKAGES) - few)):
        (folder / f"{name}.py").write_text(f"raise SystemError('{name} was imported')")
    (folder / "tf-detreg").write_text("from tf_detreg.__main__ import main; main()")
    places = os.pathsep.join([str(folder), os.path.dirname(os.path.dirname(cli.__path__[0]))])

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, folder / "tf-detreg", *arguments],
            env={**os.environ, "PYTHONPATH": places},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["recipes"], ["train", "--help"], []], ids=" ".join)
def test_what_needs_no_tensorflow_does_not_load_it(without_tensorflow, arguments):
    done = without_tensorflow(*arguments)
    assert done.returncode == (0 if arguments else 2) and "was imported" not in done.stderr, done.stderr[-2000:]
    assert len(done.stdout + done.stderr) > 30


def test_a_command_that_needs_tensorflow_loads_it(without_tensorflow):
    assert "keras was imported" in without_tensorflow("evaluate", "run").stderr


def test_the_command_registers_our_layers_before_it_works(tmp_path):
    code = "import tf_detreg.cli as c, sys; assert 'keras' not in sys.modules; c.load_tensorflow(); import keras\n"
    code += "print(keras.saving.get_registered_object('tf_detreg>RealNVP'), sys.modules['tf_detreg'].heads.__name__)"
    (tmp_path / "tf-detreg").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(cli.__path__[0]))}
    done = subprocess.run([sys.executable, tmp_path / "tf-detreg"], env=environment, capture_output=True, text=True)
    assert "RealNVP" in done.stdout and "tf_detreg.heads" in done.stdout, done.stderr[-2000:]


def test_a_full_memory_is_a_sentence(photos, tmp_path, monkeypatch, capfd):
    size = ["--image-size", "200000", *SMALL[2:]]
    code, said = answer(monkeypatch, capfd, "train", photos, "--run", tmp_path / "r", *size)
    assert code == 1 and "Traceback" not in said
    assert "The memory is full" in said and "Lower --image-size" in said


def test_each_note_is_shown_once(photos, tmp_path, monkeypatch, capfd):
    """Both batches that a run makes give this one; the steps that would follow give none."""

    def stop(*arguments, **options):
        raise OSError("no training")

    monkeypatch.setattr(training.MetricModel, "fit", stop)
    for name in ("r", "s"):
        options = ["--run", tmp_path / name, *PLAIN[:4], "--classes", "9", *PLAIN[6:]]
        _, said = answer(monkeypatch, capfd, "train", photos, *options)
    assert said.count("batches hold 5 classes, not 9") == 1


def test_a_reader_that_goes_is_no_error(tmp_path):
    (tmp_path / "tf-detreg").write_text("from tf_detreg import cli; cli.main()")
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(cli.__path__[0]))}
    command = [sys.executable, tmp_path / "tf-detreg", "recipes"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert b"Error" not in process.stderr.read()


def test_the_version_is_told():
    assert command("--version").startswith("tf_detreg 0.")


def test_a_run_in_the_way_is_not_overwritten(run, photos):
    with pytest.raises(ValueError, match="already holds a run"):
        command("train", photos, "--run", run, *SMALL)


def test_every_command_explains_itself():
    for name in [entry.callback.__name__ for entry in cli.app.registered_commands]:
        assert len(command(name.replace("_", "-"), "--help")) > 200


def test_a_network_from_scratch_does_not_get_the_rate_of_a_pretrained_one(photos, monkeypatch):
    asked = []
    monkeypatch.setattr(training, "train", lambda config, *arguments, **options: asked.append(config) or 1 / 0)
    for options in (
        ["--backbone", "small_cnn"],
        ["--backbone", "ResNet50"],
        ["--backbone", "small_cnn", "--backbone-rate", "2"],
    ):
        with pytest.raises(ZeroDivisionError):
            command("train", photos, "--recipe", "photos", *options)
    # None: what suits `small_cnn`, 1e-2.
    assert [config.optimizer.get("backbone_rate") for config in asked] == [None, 3e-4, 2.0]
    assert "backbone_delay_epochs" not in asked[0].optimizer and asked[0].optimizer["clipnorm"] == 1.0


def test_commands_and_python_of_your_photos_train_the_same(monkeypatch, tmp_path):
    page = pathlib.Path(__file__).parents[1] / "docs" / "tutorials" / "your_photos.md"
    text = page.read_text(encoding="utf-8")
    line = re.search(r"^tf-detreg (train .*)$", text, re.MULTILINE)[1]
    python = re.search(r"```python\n(config = .*?)run = ", text, re.DOTALL)[1]
    (tmp_path / "PHOTOS").mkdir()
    monkeypatch.chdir(tmp_path)
    asked, names = [], {"dr": tf_detreg}
    monkeypatch.setattr(training, "train", lambda config, *arguments, **options: asked.append(config) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command(*line.split())
    exec(python, names)
    one, other = asked[0].to_dict(), names["config"].to_dict()
    assert {key for key in one if one[key] != other[key]} <= {"data"}


def test_index_search_says_that_search_is_meant():
    result = CliRunner().invoke(cli.app, ["index", "search", "--help"])
    assert result.exit_code == 2 and "tf-detreg search --help" in result.output


def test_the_server_says_that_it_loads_before_it_does(monkeypatch, capsys):
    said = []
    monkeypatch.setattr("tf_detreg.cli.publish.load_tensorflow", lambda: said.append(capsys.readouterr().out))
    monkeypatch.setattr("tf_detreg.serving.serve", lambda *arguments, **options: None)
    publish.serve(pathlib.Path("saved_models/mine"), pathlib.Path("mine.index"), write_token_file=None)
    assert said == ["Loading     saved_models/mine and mine.index …\n"]


def test_learning_rates_are_options_of_train(photos, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(training, "train", lambda config, *arguments, **options: asked.append(config) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("train", photos, "--recipe", "photos", "--backbone-rate", "1e-3", "--head-rate", "0.01")
    assert (asked[0].optimizer["backbone_rate"], asked[0].optimizer["head_rate"]) == (1e-3, 1e-2)
    assert asked[0].optimizer["clipnorm"] == 1.0


@pytest.mark.parametrize(
    ("options", "out", "form"),
    [
        ([], "embeddings.npz", "npz"),
        (["--out", "e.parquet"], "e.parquet", "parquet"),
        (["--out", "e.npz"], "e.npz", "npz"),
        (["--format", "parquet"], "embeddings.parquet", "parquet"),
        (["--format", "npz", "--out", "e.parquet"], "e.parquet", "npz"),
    ],
)
def test_embed_takes_the_format_or_that_of_the_name(options, out, form, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(searching, "embed_files", lambda run, images, *given: (given == (out, form), 1))
    assert command("embed", "run", "images", *options).startswith(f"True of 1 files embedded: {out}")
