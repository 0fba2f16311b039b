"""Every argument that is refused is told in one wording: its name, what it must be, what was received."""

import ast
import functools
import pathlib
import re

import numpy as np
import pytest

import tf_detreg
from tf_detreg import backbones, checks, datasets, heads, losses, miners, regularizers, retrieval

NAN = float("nan")
PACKAGE = pathlib.Path(tf_detreg.__file__).parent
# A check inside a graph can write its values at the end alone.
FORM = r"^`{name}` must [^`].*(; received .+\.( .+[.!?…)])?|[.)] .* received: .+\.)$"


def refused(name, call, *args, **kwargs):
    with pytest.raises(ValueError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    if message.startswith("Exception encountered when calling"):  # Keras writes around what a layer's call raises
        message = message.partition("\x1b[1m")[2].partition("\x1b[0m")[0]
    assert re.match(FORM.format(name=name), message, re.DOTALL), message


@pytest.mark.parametrize("value", [NAN, float("inf"), None, "1", True, [1], 1j, np.nan, np.array([1.0, 2.0])])
def test_what_no_check_takes_for_a_number(value):
    for check in (checks.number, checks.positive, checks.not_negative, checks.integer):
        refused("x", check, "x", value)
    refused("x", checks.within, "x", value, 0, 1)


def test_what_the_checks_return():
    assert checks.number("x", -2) == -2 and isinstance(checks.number("x", np.float32(0.5)), float)
    assert checks.positive("x", 1e-9) == 1e-9 and checks.not_negative("x", 0) == 0
    assert checks.integer("x", 2) == 2 and type(checks.integer("x", np.int64(3), 3, 3)) is int
    assert [checks.within("x", end, 0, 1) for end in (0, 1)] == [0, 1]
    assert checks.within("x", 0.5, 0, 1, "()") == 0.5
    assert checks.choice("x", "a", {"a": 1}) == "a" and checks.flag("x", False) is False
    assert checks.instance("x", 3, int, "a number") == 3


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (checks.number, NAN, "`x` must be a finite number; received nan."),
        (checks.positive, 0, "`x` must be a finite number above 0; received 0."),
        (checks.not_negative, -1, "`x` must be a finite number, 0 or more; received -1."),
        (functools.partial(checks.within, low=0, high=1, ends="(]"), 0, "`x` must be a number in (0, 1]; received 0."),
        (functools.partial(checks.within, low=0, high=1, ends="[)"), 1, "`x` must be a number in [0, 1); received 1."),
        (functools.partial(checks.within, low=0, high=1), 1.5, "`x` must be a number in [0, 1]; received 1.5."),
        (checks.integer, 2.0, "`x` must be a whole number, 0 or more; received 2.0."),
        (checks.integer, 1.5, "`x` must be a whole number, 0 or more; received 1.5."),
        (functools.partial(checks.integer, least=1, most=3), 4, "`x` must be a whole number from 1 to 3; received 4."),
        (functools.partial(checks.integer, least=1, most=3), 0, "`x` must be a whole number from 1 to 3; received 0."),
        (functools.partial(checks.choice, choices=("a", "b")), "c", "`x` must be one of 'a', 'b'; received 'c'."),
        (functools.partial(checks.choice, choices=("a", "b")), ["a"], "`x` must be one of 'a', 'b'; received ['a']."),
        (checks.flag, 1, "`x` must be true or false; received 1."),
        (
            functools.partial(checks.instance, kind=int, what="one"),
            "y" * 300,
            f"`x` must be one; received 'y{'y' * 197}….",
        ),
    ],
)
def test_the_wording(check, value, message):
    refused("x", check, "x", value)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check("x", value)


HEADS = [heads.RealNVP, heads.NICE, heads.Glow, heads.FFJORD, heads.Linear, heads.ResidualMLP]
PROXIES = [losses.ArcFace, losses.CosFace, losses.ProxyAnchor, losses.ProxyGML, losses.SoftTriple]
NUMBERS = {
    losses.ArcFace: "margin scale",
    losses.Circle: "margin scale",
    losses.Contrastive: "positive_margin negative_margin power average distance",
    losses.CosFace: "margin scale",
    losses.FastAP: "num_bins",
    losses.GeneralizedLiftedStructure: "margin",
    losses.LiftedStructure: "margin",
    losses.Margin: "alpha beta nu num_classes",
    losses.MultiSimilarity: "alpha beta base direction",
    losses.NPairs: "penalty",
    losses.NTXent: "temperature",
    losses.ProxyAnchor: "alpha margin direction",
    losses.ProxyGML: "ratio proxy_weight",
    losses.SoftTriple: "scale gamma margin tau",
    losses.SupCon: "temperature",
    losses.Triplet: "margin negatives direction average distance",
    losses.TripletBatchHard: "margin",
    losses.TripletSemiHard: "margin",
    miners.Angular: "angle",
    miners.BatchEasyHard: "positives negatives",
    miners.DistanceWeighted: "cutoff nonzero_loss_cutoff",
    miners.MultiSimilarity: "epsilon",
    miners.SemiHard: "margin",
    regularizers.HypersphericalEnergy: "power weight max_rows",
    regularizers.Lipschitz: "part weight",
    regularizers.LogExpMean: "temperature weight max_rows",
    regularizers.NonIsotropy: "dim depth hidden hidden_layers scale_bound weight",
    regularizers.LanguageGuidance: "divergence on shift temperature max_rows weight",
    backbones.GeM: "power epsilon",
    backbones.PixelScaling: "mode",
}
NEEDED = {
    regularizers.NonIsotropy: {"dim": 4},
    regularizers.LanguageGuidance: {"texts": np.eye(3)},
    **{kind: {"num_classes": 3} for kind in PROXIES},
}


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.__name__)
def test_constructors_tell_their_numbers_and_names_in_this_wording(kind):
    for name in NUMBERS[kind].split():
        for wrong in (NAN, "nothing of it", True, -float("inf")):
            refused(name, kind, **{**NEEDED.get(kind, {}), name: wrong})


@pytest.mark.parametrize("kind", HEADS, ids=lambda kind: kind.__name__)
def test_heads_tell_their_numbers_in_this_wording(kind):
    for name in ("dim", "dropout", "projection"):
        for wrong in (NAN, "nothing of it", None, -1):
            refused(name, kind, **{"dim": 4, name: wrong})
    refused("features", kind(4), np.zeros((2, 8, 8, 3), "float32"))
    refused("features", kind(4), np.full((2, 8), np.nan, "float32"))


def test_losses_tell_labels_and_embeddings_in_this_wording():
    x = np.eye(4, dtype="float32")
    for labels in ([0, 1], [0.5] * 4, ["a"] * 4, [-1] * 4, [[0, 0, 1, 1]] * 4):
        refused("labels", losses.SupCon(), labels, x)
        refused("labels", losses.ProxyAnchor(4, dim=4), labels, x)
        refused("labels", miners.SemiHard(), labels, x)
    refused("embeddings", losses.SupCon(), [0] * 4, x.astype(str))
    refused("embeddings", losses.SupCon(), [0] * 4, x[0])
    refused("labels", losses.NPairsMultilabel(), np.eye(4) * 2, x)


def test_backbones_tell_what_they_are_given_in_this_wording():
    refused("backbone", backbones.build, "resnet51")
    refused("backbone", backbones.build, 7)
    refused("weights", backbones.build, "small_cnn", weights="imagenet")
    refused("pooling", backbones.build, "small_cnn", pooling="mean")
    refused("share", backbones.unfreeze, backbones.small_cnn(image_size=16, width=8), 2)


def messages(path):
    """(line, names of the function's arguments, message) of each `ValueError` that a file raises."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            names = {argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]} - {"self", "cls"}
            for node in ast.walk(function):
                if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call) or not node.exc.args:
                    continue
                if getattr(node.exc.func, "id", "") in ("ValueError", "TypeError"):
                    yield node.lineno, names, text(node.exc.args[0])


def text(node):
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.BinOp):
        return text(node.left) + text(node.right)
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part) for part in node.values)
    return f"{{{ast.unparse(node)}}}"


def test_no_other_wording_is_written_anywhere():
    """Reads the source: a name without backticks, a "must" without what was received, an argument as name=value."""
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, names, message in messages(path):
            first = re.match(r"\{?(\w+)\}?", message)
            if (
                (first and first[1] in names and first[0] == first[1])
                or re.match(r"\w+=", message)
                or ", received" in message
                or (" must " in message and not re.search(r"^`.+?`.* must .*; received ", message, re.DOTALL))
            ):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {message}")
    assert not wrong, "\n".join(wrong)


def functions():
    """(file, node, its arguments' names) of each function of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                yield path.relative_to(PACKAGE), node, {argument.arg for argument in arguments}


def test_no_message_names_one_argument_and_shows_another():
    wrong = []
    for path, function, names in functions():
        for node in ast.walk(function):
            told, shown = "", ""
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("checks.") and len(node.args) > 1:
                told, shown = text(node.args[0]), ast.unparse(node.args[-1 if "invalid" in text(node.func) else 1])
            elif isinstance(node, ast.JoinedStr):
                found = re.match(r"`(\w+)`.* received \{(\w+)(?:!r)?[^}]*\}", text(node), re.DOTALL)
                told, shown = found.groups() if found else ("", "")
            if told != shown and {told, shown} <= names:
                wrong.append(f"{path}:{node.lineno}: `{told}`, and the value of `{shown}`")
    assert not wrong, "\n".join(wrong)


# What else stands between backticks, beside functions and commands: words of filters, columns of tables, values.
NO_ARGUMENTS = {"and", "or", "in", "id", "group", "save_to_preset", "compute_loss", "class_weight", "metadata_field"}
NO_ARGUMENTS |= {"list", "nearest", "shares"}
MAKERS = ("__init__", "__call__")


def test_arguments_that_messages_name_are_there():
    """Each is one of a public function in the same package, or a field of a class there."""
    public, told, advised, called = {}, [], [], set()
    for path, function, names in functions():
        called.add(function.name)
        found = public.setdefault(path.parts[0], set(NO_ARGUMENTS))
        if not function.name.startswith("_"):
            found |= names
        raised = [node for node in ast.walk(function) if isinstance(node, ast.Raise)]
        raised += [node for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None]
        written = [part for node in raised for part in ast.walk(node) if isinstance(part, ast.Constant)]
        told += [(path, name) for part in written for name in re.findall("`([a-z_]+)`", str(part.value))]
        # What must be something, or what to change, is an argument, whatever functions there are.
        rule = "^`([a-z_]+)` must|(?:raise|lower|another|give|leave out) `([a-z_]+)`"
        advised += [(path, one or two) for part in written for one, two in re.findall(rule, str(part.value))]
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            fields = node.body if isinstance(node, ast.ClassDef) else []
            here = public.setdefault(path.relative_to(PACKAGE).parts[0], set(NO_ARGUMENTS))
            here |= {field.target.id for field in fields if isinstance(field, ast.AnnAssign)}
            if fields and not node.name.startswith("_"):
                makers = [one for one in fields if isinstance(one, ast.FunctionDef) and one.name in MAKERS]
                here |= {arg.arg for one in makers for arg in [*one.args.args, *one.args.kwonlyargs]}
    unknown = [(str(path), name) for path, name in told if name not in public[path.parts[0]] | called]
    unknown += [(str(path), name) for path, name in advised if name not in public[path.parts[0]]]
    assert len(told) > 100 and len(advised) > 50 and not unknown


def test_seeds_and_decisions_are_told_in_this_wording():
    points, labels = np.random.default_rng(0).normal(size=(20, 6)), np.repeat(np.arange(5), 4)
    whole = datasets.arrays(np.zeros((20, 4, 4, 3), np.uint8), labels).train
    calls = [
        functools.partial(retrieval.evaluate, points, labels),
        functools.partial(retrieval.verification, points, labels),
        functools.partial(retrieval.open_set, points, labels, scores="nearest"),  # one name is as good as a list
        functools.partial(datasets.digits),
        functools.partial(datasets.arrays, np.zeros((20, 4, 4, 3), np.uint8), labels),
        functools.partial(whole.batches, 2, 2),
        functools.partial(whole.batches, 0, 2),
    ]
    for call in calls:
        for wrong in ("x", -1, 1.5, None, True):
            refused("seed", call, seed=wrong)
    for call in (retrieval.monitor, functools.partial(retrieval.measure, labels=labels)):
        refused("decision", call, 3, points)
