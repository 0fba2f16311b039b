"""Pages tell the truth: their Python runs, the commands and options that they name exist, and links lead somewhere."""

import importlib.util
import pathlib
import re
import shlex
import tomllib

import pytest
import typer

from tests.given import GIVEN
from tf_detreg import datasets
from tools.pages import GENERATED, NOT_RUN, ROOT, blocks, pages, prose, slugs

WRITTEN = [page for page in pages() if page not in GENERATED]
SHELL = ("", "bash", "sh", "console")


def code(page):
    return [block for block in blocks(page) if block.language == "python" and not block.not_run]


PYTHON = [
    page
    for page in WRITTEN
    # The script of the README has a test of its own; examples of docstrings run as doctests.
    if page.name != "README.md" and page.parent.name != "losses" and code(page)
]


# Pages that train for epochs on all characters, where a third of them shows the same.
FEWER = ("is_it_in_the_catalog.md",)


# Pages that train for many epochs: two of them show whether the code runs. The slow tests run these as printed.
SHORTENED = ("parts.md", "logos.md", "shop.md", "data.md")
EPOCHS = re.compile(r"""(?<=\bepochs)("?: |=)\d+\b""")


def shorter(text):
    return EPOCHS.sub(r"\g<1>2", text)


# Of the pages that take photos: half as many views of each place, and the same classes.
WRITE, WRITE_FEWER = '(pathlib.Path("PHOTOS"), 4, 0)', '(pathlib.Path("PHOTOS"), 2, 0)'


def fewer(splits):
    """Leave two of three classes out of training."""
    return splits._replace(train=splits.train.subset(splits.train.labels % 3 == 0))


def named(page):
    return str(page.relative_to(ROOT / "docs"))


def run(page, change=str):
    """The code of a page, each block changed by `change`: in order, in one namespace."""
    names: dict[str, object] = {"__name__": "page"}
    given = GIVEN.get(page.name, "").replace(WRITE, WRITE_FEWER)
    exec(compile(given, f"given for {page.name}", "exec"), names)
    for block in code(page):
        # Blank lines in front, so that a traceback shows the line of the page.
        exec(compile("\n" * block.line + change(block.text), str(page), "exec"), names)


@pytest.mark.parametrize("page", PYTHON, ids=named)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """In an empty directory."""
    monkeypatch.chdir(tmp_path)
    if page.name in FEWER:
        monkeypatch.setattr(datasets, "glyphs", lambda whole=datasets.glyphs: fewer(whole()))
    run(page, shorter if page.name in SHORTENED else str)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PYTHON if page.name in SHORTENED], ids=named)
def test_the_python_of_a_page_runs_as_printed(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page)


def test_what_is_not_run_says_why():
    assert all(len(reason) > 10 for page in pages() for reason in NOT_RUN.findall(page.read_text(encoding="utf-8")))


def commands():
    """(where, words) of each command line in a page's shell blocks, comments and continuations taken care of."""
    for page in WRITTEN:
        for block in blocks(page):
            if block.language not in SHELL:
                continue
            for line in block.text.replace("\\\n", " ").splitlines():
                for part in re.split(r"\s&&\s", line):
                    try:
                        words = shlex.split(part.strip().removeprefix("$ "), comments=True)
                    except ValueError:
                        continue  # output of a command
                    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                        words.pop(0)
                    if words and words[0] in ("tf-detreg", "make", "python", "pip"):
                        yield pytest.param(words, id=f"{block.where} {' '.join(words)[:60]}")


def click_command():
    from tf_detreg.cli import app

    return typer.main.get_command(app)


def check_tf_detreg(words):
    """The command takes these arguments and options; nothing is run."""
    group = click_command()
    with group.context_class(group, info_name="tf-detreg") as context:
        if words[0].startswith("-"):
            group.parse_args(context, list(words))
            return
        name, command, rest = group.resolve_command(context, list(words))
        inner = command.make_context(name, rest, parent=context)
        if hasattr(command, "commands"):
            # What the group made of its words: `index` builds where no command is named.
            name, below, rest = command.resolve_command(inner, [*inner._protected_args, *inner.args])
            below.make_context(name, rest, parent=inner)


def check_python(words):
    """The script or module is there, and has the options."""
    if words[0] == "-c":
        compile(words[1], "command", "exec")
        return
    if words[0] == "-m":
        spec = importlib.util.find_spec(words[1])
        assert spec is not None, words[1]
        path, rest = spec.origin, words[2:]
        if path.endswith("__init__.py"):
            path = path.replace("__init__.py", "__main__.py")
    else:
        path, rest = ROOT / words[0], words[1:]
    text = pathlib.Path(path).read_text(encoding="utf-8")
    assert not [word for word in rest if word.startswith("--") and f'"{word.partition("=")[0]}"' not in text]


def check_make(words):
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert not [
        word for word in words if "=" not in word and not re.search(rf"^{re.escape(word)}:", text, re.MULTILINE)
    ]


def check_pip(words):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = {extra for word in words for names in re.findall(r"\[([\w,-]+)\]", word) for extra in names.split(",")}
    assert words[0] == "install" and asked <= set(extras)


@pytest.mark.parametrize("words", commands())
def test_a_command_of_a_page_exists_with_its_options(words):
    check = {"tf-detreg": check_tf_detreg, "python": check_python, "make": check_make, "pip": check_pip}
    check[words[0]](words[1:])


def test_a_wrong_option_or_command_would_be_seen():
    for words in (["train", "PHOTOS/", "--epoch-count", "3"], ["trains"], ["export"]):
        # Newer versions of typer bring a copy of click, with exceptions of its own.
        with pytest.raises(Exception, match=r"No such|Missing"):
            check_tf_detreg(words)


def known_options():
    """Options of our commands and scripts, and those of other programs that the pages mention."""
    known = {
        "--no-deps",
        "--only-binary",
        "--saved-model",
        "--signature_def",
        "--opset",
        "--durations",
    }  # of pip, saved_model_cli, tf2onnx, pytest
    group = click_command()
    below = [each for command in group.commands.values() for each in getattr(command, "commands", {}).values()]
    for command in [group, *group.commands.values(), *below]:
        known |= {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    known.add("--help")
    for folder in ("benchmarks", "docs", "examples", "studies", "tests", "tools", "tf_detreg"):
        for path in (ROOT / folder).rglob("*.py"):
            known |= set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", path.read_text(encoding="utf-8")))
    return known


def test_options_that_pages_name_exist():
    known, wrong = known_options(), []
    for page in WRITTEN:
        for code in re.findall(r"`([^`\n]+)`", prose(page)):
            wrong += [
                f"{page.relative_to(ROOT)}: {option}"
                for option in re.findall(r"(?<![\w-])--[a-z][\w-]+", code)
                if option not in known
            ]
    assert not wrong


def known_names():
    """Public names as `losses.ArcFace`, those of an `index`, modules, and what modules define without an underscore."""
    listed = (ROOT / "tests" / "data" / "public_api.txt").read_text(encoding="utf-8")
    names = set(re.findall(r"^[\w.]+", listed, re.MULTILINE))
    names |= {name.replace("index.Index.", "index.", 1) for name in names}
    for path in (ROOT / "tf_detreg").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT / "tf_detreg").with_suffix("").parts)
        defined = re.findall(r"^(?:def|class) ([A-Za-z]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE)
        names |= {module, *(f"{module}.{name}" for name in defined)}
    return names | {"index.decision"}


def test_names_and_files_that_pages_give_exist():
    known, wrong = known_names(), []
    packages = "|".join(sorted({name.partition(".")[0] for name in known if "." in name}))
    for page in WRITTEN:
        for code in re.findall(r"`([^`\n]+)`", prose(page)):
            # `index.save(…)`, and no file such as `images.txt`.
            for name in re.findall(rf"(?<![\w./])(?:dr\.|tf_detreg\.)?((?:{packages})\.[A-Za-z_][\w.]*)", code):
                if name.rstrip(".") not in known and not re.search(r"\.(?:txt|json|md|png)$", name):
                    wrong.append(f"{page.relative_to(ROOT)}: {name}")
            for file in re.findall(r"(?<![\w/.-])((?:docs|tests|tools|examples|benchmarks|tf_detreg)/[\w./-]+)", code):
                if not (ROOT / file).exists() and page.name != "keras_examples.md":
                    wrong.append(f"{page.relative_to(ROOT)}: {file}")
    assert not wrong


LINK = re.compile(r"\]\(([^)\s]+)\)|<(?:img|a) [^>]*(?:src|href)=\"([^\"]+)\"")


def test_every_link_leads_somewhere():
    wrong = []
    for page in pages():
        for match in LINK.finditer(prose(page)):
            path, _, anchor = (match[1] or match[2]).partition("#")
            if re.match(r"\w+:", path):
                continue
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                wrong.append(f"{page.relative_to(ROOT)}: {path}")
            elif anchor and target.suffix == ".md" and anchor not in slugs(target):
                wrong.append(f"{page.relative_to(ROOT)}: {path}#{anchor}")
    assert not wrong


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_every_page_is_in_the_navigation_of_the_site():
    named = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    there = {str(page.relative_to(ROOT / "docs")) for page in pages()[1:] if page.parent.name != "losses"}
    assert there <= named
