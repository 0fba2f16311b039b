"""Each package imports only from those before it in the order that CONTRIBUTING states."""

import ast
import pathlib
import re

import pytest

import tf_detreg

ROOT = pathlib.Path(tf_detreg.__file__).parent
# What any package may import, and what imports no package.
BASE = {
    *(
        "_compat",
        "archives",
        "checks",
        "deprecated",
        "exchange",
        "extras",
        "files",
        "inference",
        "manifests",
        "models",
        "progress",
        "replicas",
    ),
    *("shapes", "vectors", "weight_groups", "workspaces"),
}
ORDER = [
    *("images", "heads", "losses", "miners", "regularizers", "datasets", "backbones", "text", "retrieval", "training"),
    *("_layers", "callbacks", "recipes", "index", "analysis", "export", "serving", "experiments"),
    *("image_files", "item_table", "indexing", "searching"),
    *("loading", "calibrating", "doctor", "demo", "cli"),
]
# A name that has moved still answers where it was, with a DeprecationWarning.
EXCEPTIONS = {
    ("retrieval/__init__.py", "index"),
    ("experiments/__main__.py", "cli"),
}


def imports():
    """(file and line, importing package, imported one) of every import inside the package, also in functions."""
    for path in sorted(ROOT.rglob("*.py")):
        package = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                inside = [f"tf_detreg.{each.name}" for each in node.names]
                names = inside if node.module == "tf_detreg" else [node.module]
            elif isinstance(node, ast.ImportFrom) and node.level:
                pytest.fail(f"{path}:{node.lineno} imports by a relative name: write it out")
            elif isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] == "tf_detreg" and len(parts) > 1 and parts[1] != package and not parts[1].startswith("__"):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", package, parts[1]


def test_every_import_follows_the_order():
    wrong = []
    for where, package, imported in imports():
        if package in ("__init__", "__main__"):
            continue
        earlier = () if package in BASE else ORDER[: ORDER.index(package)]
        if imported not in (*BASE, *earlier) and (where.partition(":")[0], imported) not in EXCEPTIONS:
            wrong.append(f"{where}: {package} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_every_package_has_its_turn():
    names = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert names - {"__init__", "__main__"} <= BASE | set(ORDER)


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        (r"def squared_distances", ["losses/distances.py"]),
        (r"def smoothness_table", ["analysis/smoothness.py"]),
        (r"(?i)<!doctype", ["analysis/report.html", "serving/page.html"]),
        (r"format=\"svg\"", ["analysis/report.py"]),
        (r"def (is_finite|_?check_(integer|number|positive|rate|choice))\b", ["checks.py"]),
        (r"Image\.open\(", ["datasets/emoji.py", "images/reference.py"]),  # the former's one file is our own
        (r"import ctypes", ["exchange.py"]),
        (r"gc\.freeze|^    +assert |^assert ", []),
        (r"keras\.src|tensorflow\.python", ["_compat.py"]),
    ],
)
def test_there_is_one_of_it(pattern, files):
    """What once stood in two places; assertions, which `python -O` leaves out, in none."""
    sources = [path for path in ROOT.rglob("*") if path.suffix in (".py", ".html")]
    found = [
        str(path.relative_to(ROOT))
        for path in sorted(sources)
        if re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert found == files


def test_no_file_is_long():
    """One concept a file: what is much longer than 400 lines holds two."""
    long = [
        f"{path.relative_to(ROOT)}: {count}"
        for path in sorted(ROOT.rglob("*.py"))
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 420
    ]
    assert not long


def test_contributing_states_this_order():
    text = (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    stated = re.search(r"Packages in order: (.*?)\.\n", text, re.DOTALL)[1]
    named = re.findall(r"`(\w+)`", stated)
    assert named == [name for name in ORDER if name in named]
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} <= set(named)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"TF_DETREG_CACHE": "~/cache"}, "{home}/cache"),
        ("linux", {"TF_DETREG_CACHE": "/big/cache"}, "/big/cache"),
        ("linux", {"TF_DETREG_CACHE": "", "XDG_CACHE_HOME": ""}, "{home}/.cache/tf_detreg"),
        ("linux", {"TF_DETREG_CACHE": "  "}, "{home}/.cache/tf_detreg"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "{home}/.cache/tf_detreg"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/tf_detreg"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "{home}/Library/Caches/tf_detreg"),
    ],
)
def test_one_cache_folder(platform, variables, expected, monkeypatch, tmp_path):
    from tf_detreg.datasets import cache

    for name in ("TF_DETREG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cache.sys, "platform", platform)
    assert str(cache.cache_folder()) == expected.format(home=tmp_path)


def test_nobody_else_looks_for_a_cache():
    found = [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if re.search(r"environ.*(TF_DETREG_CACHE|XDG_CACHE_HOME)", path.read_text(encoding="utf-8"))
    ]
    assert found == ["datasets/cache.py"]


def test_nothing_is_unpickled():
    """A pickle runs what whoever wrote it likes."""
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import) and {"pickle", "marshal", "shelve"} & {each.name for each in node.names}:
                wrong.append(where)
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                wrong.append(where)
    assert not wrong


def test_no_module_can_take_the_name_of_what_is_public_beside_it():
    """Importing a.b for the first time binds `a.b` to the module, whatever that name was before."""
    checked, taken = 0, []
    for init in sorted(ROOT.rglob("__init__.py")):
        package = ".".join(init.parent.relative_to(ROOT.parent).parts)
        loaded = set()
        for node in ast.walk(ast.parse(init.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            # A module that is loaded before, or is where the name comes from, cannot bind it later.
            loaded |= {f"{package}.{each.name}" for each in node.names} if node.module == package else {node.module}
            for name in (each.asname or each.name for each in node.names if node.module != package):
                if (init.parent / f"{name}.py").exists() or (init.parent / name / "__init__.py").exists():
                    checked += 1
                    taken += [f"{package}.{name}"] * (f"{package}.{name}" not in loaded)
    assert not taken and checked > 10


def functions(tree):
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_of(function):
    """How many lines a function has without its signature and docstring."""
    has_docstring = ast.get_docstring(function) is not None and len(function.body) > 1
    return function.end_lineno - function.body[1 if has_docstring else 0].lineno + 1


def test_no_function_is_long():
    """What does not fit on a screen does several things."""
    long = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: {count}"
        for path in sorted(ROOT.rglob("*.py"))
        for function in functions(ast.parse(path.read_text(encoding="utf-8")))
        if (count := lines_of(function)) > 60
    ]
    assert not long


def test_whoever_catches_everything_says_why():
    """Raise something else, or say in a comment why whatever happened does not matter."""
    seen, silent = 0, []
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            kinds = "BaseException" if node.type is None else ast.unparse(node.type)
            if re.search(r"\b(Base)?Exception\b", kinds):
                seen += 1
                raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                if not raises and not any("#" in line for line in lines[node.lineno - 1 : node.body[0].lineno]):
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not silent and seen > 20


def test_every_ignored_type_error_has_its_reason():
    seen = 0
    for path in sorted(ROOT.rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if "type: ignore" in line:
                seen += 1
                assert re.search(r"# type: ignore\[[\w-]+\]  # \w", line), f"{path.relative_to(ROOT)}:{number}"
    assert seen > 5


def test_text_files_name_their_encoding():
    """What is not named is that of the machine: a card or a table with an umlaut could not be read on the next one."""
    seen, missing = 0, []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
                continue
            call, given = ast.unparse(node.func), [ast.unparse(argument) for argument in node.args]
            method = call.endswith((".read_text", ".write_text")) and call != "files.write_text"
            text = method and (call.endswith("write_text") or not given)
            text |= call == "open" and not any("b" in mode for mode in given[1:2])
            seen += method or call == "open"
            if text:
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert not missing and seen > 10


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX", "HACK"])
def test_nothing_is_left_for_later(word):
    for path in sorted(ROOT.rglob("*.py")):
        assert not re.search(rf"\b{word}\b", path.read_text(encoding="utf-8")), path


def test_only_what_speaks_to_a_terminal_prints():
    prints = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    scripts = {"demo.py", "doctor.py", "export/runner.py", "heads/limits.py"}
    assert prints == {*scripts, "loading.py", "progress.py", "serving/server.py"}
