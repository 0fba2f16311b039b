"""The tool that plants faults: its edits, its draw, and its verdicts."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tools.mutation import __main__ as command
from tools.mutation import outcomes, report, selection
from tools.mutation.judged import Judged
from tools.mutation.mutants import Mutant, _edited, mutants, sample
from tools.mutation.planting import Verdict

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = '''"""Says max(1, 2)."""

__all__ = ["f"]


def f(a: "int | None", b: int = 1) -> bool:
    """Returns not a."""
    if a > b and not b:
        log(a)
        raise ValueError(f"a={a + 1}")
    return max(a & b, abs(a - 3.5))
'''


def texts(kind: str) -> set[tuple[str, str]]:
    found = mutants("m.py", SOURCE)
    return {(SOURCE[m.start : m.end], m.text) for m in found if m.kind == kind}


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("comparison", ">", ">="),
        ("condition dropped", "a > b and not b", "((not b))"),
        ("condition dropped", "a & b", "(a)"),
        ("sign or negation dropped", "not b", "(b)"),
        ("test negated", "a > b and not b", "(not (a > b and not b))"),
        ("statement dropped", "log(a)", "None"),
        ("function", "max", "min"),
        ("call dropped", "abs(a - 3.5)", "(a - 3.5)"),
        ("arithmetic", "-", "+"),
        ("number", "1", "(1 + 1)"),
    ],
)
def test_each_kind_of_fault_is_planted(kind, old, new):
    assert (old, new) in texts(kind)


def test_text_that_no_test_should_depend_on_is_left_alone():
    whole = "".join(old for mutant in mutants("m.py", SOURCE) for old in [SOURCE[mutant.start : mutant.end]])
    assert "Says" not in whole and "None" not in whole and "a + 1" not in whole
    assert {m.line for m in mutants("m.py", SOURCE)} == {6, 8, 9, 11}


def test_an_argument_is_not_passed_on():
    def left(source):
        return {m.apply(source) for m in mutants("m.py", source) if m.kind == "argument dropped"}

    assert left("f(a, b=x, c=y)\n") == {"f(a, c=y)\n", "f(a, b=x)\n"}
    assert left("f(b=x, **c)\n") == {"f(**c)\n"} and left("f(b=x)\n") == {"f()\n"} and not left("f(a, *b)\n")


def test_keys_large_defaults_and_long_endings_are_faulty():
    def planted(source, kind):
        return {m.apply(source) for m in mutants("m.py", source) if m.kind == kind}

    assert planted('a = {"b": c["d"], e: {**f}}\n', "key") == {
        'a = {"b_": c["d"], e: {**f}}\n',
        'a = {"b": c["d_"], e: {**f}}\n',
    }
    assert planted("def f(a, b=64, *, c=2, d=0.1, e=8.5): pass\n", "default") == {
        "def f(a, b=(64 * 2), *, c=2, d=0.1, e=8.5): pass\n",
        "def f(a, b=64, *, c=2, d=0.1, e=(8.5 * 2)): pass\n",
    }
    assert planted("class A:\n    b: int = 5\n    c = 6\n", "default") == {
        "class A:\n    b: int = (5 * 2)\n    c = 6\n"
    }
    tried = "try:\n    a\nfinally:\n    b = 9\n    c = 9\n"
    assert planted(tried, "statement dropped") == {"try:\n    a\nfinally:\n    pass\n"}


def test_imports_for_type_checkers_are_left_alone():
    assert not mutants("m.py", "if TYPE_CHECKING:\n    from a import b\n")
    assert mutants("m.py", "if CHECKING:\n    from a import b\n")


def test_offsets_count_characters_where_the_text_is_no_ascii():
    source = 'x = "λ·R"; y = "ö" if 1 > 2 else 3.5\n'
    changed = {m.apply(source) for m in mutants("m.py", source) if m.kind == "comparison"}
    assert changed == {'x = "λ·R"; y = "ö" if 1 >= 2 else 3.5\n'}


def test_the_draw_follows_from_the_seed_and_reaches_every_package():
    drawn = sample(ROOT, 60, seed=1)
    assert drawn == sample(ROOT, 60, seed=1) != sample(ROOT, 60, seed=2)
    packages = {file.parent.name for file in (ROOT / "tf_detreg").glob("*/__init__.py")}
    counted = report._by_package(dict.fromkeys(drawn, "killed"), Judged(ROOT))
    reached = {name for name, (_, total, _) in counted.items() if total >= 5}
    assert not packages - reached - {"recipes"}


def test_the_draw_is_of_the_packages_and_paths_that_are_asked_for():
    drawn = sample(ROOT, 6, seed=1, only=("miners", "tf_detreg/index/i"))
    assert {mutant.path.rpartition("/")[0] for mutant in drawn} == {"tf_detreg/miners", "tf_detreg/index"}
    assert all(mutant.path.startswith(("tf_detreg/miners/", "tf_detreg/index/i")) for mutant in drawn)


ASK = """
import json, sys
from tools.mutation import worker
for request in json.load(sys.stdin):
    print(*worker.run(**request))
"""


def test_a_fault_is_killed_survives_or_times_out(tmp_path):
    bodies = {"test_good": "pass", "test_bad": "assert 0", "test_slow": "import time; time.sleep(60)"}
    text = "".join(f"def {name}():\n    {body}\n\n" for name, body in bodies.items())
    (tmp_path / "test_it.py").write_text(text)
    wanted = [(["good"], 60), (["good", "bad"], 60), (["slow"], 3)]
    requests = [{"tests": [f"test_it.py::test_{name}" for name in names], "timeout": limit} for names, limit in wanted]
    # A process of its own: forks of one that computes with TensorFlow can stand still.
    answers = subprocess.run(
        [
            sys.executable,
            "-c",
            ASK,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=True,
    )
    assert answers.stdout.split() == ["survived", "killed", "test_it.py::test_bad", "timeout"]


class Scripted(Verdict):
    """Tests that do with and without a fault as a table says; each run ends at the first that does not pass."""

    def __init__(self, copy, with_fault, without=None):
        super().__init__(copy)
        (copy / "m.py").write_text("clean")
        self.table = {"fault": with_fault, "clean": without or {}}
        self.runs = []

    def test(self, tests, limit):
        state = (self.copy / "m.py").read_text()
        self.runs.append((state, *tests))
        ends = ((self.table[state].get(test, "survived"), test) for test in tests)
        what, by = next((end for end in ends if end[0] != "survived"), ("survived", ""))
        return what, by if what == "killed" else ""

    def of_fault(self, *tests):
        return self.outcome(Mutant("m.py", 1, "number", 0, 5, "fault"), list(tests), 9.0)


def test_a_failure_counts_only_if_the_test_passes_without_the_fault(tmp_path):
    scripted = Scripted(tmp_path, {"a": "killed", "b": "killed"}, {"a": "killed"})
    assert scripted.of_fault("a", "c") == "survived" and scripted.of_fault("a", "b", "c") == "killed"
    assert scripted.of_fault("a") == "covered by no test" and (tmp_path / "m.py").read_text() == "clean"
    clean = [run for run in scripted.runs if run[0] == "clean"]
    assert scripted.of_fault("b") == "killed" and clean == [("clean", "a"), ("clean", "b")]
    assert [run for run in scripted.runs if run[0] == "clean"] == clean  # What passed once is not run again.


def test_tests_that_are_slow_without_the_fault_do_not_count_as_noticing_it(tmp_path):
    assert Scripted(tmp_path, {"a": "timeout"}).of_fault("a") == "timeout"
    assert Scripted(tmp_path, {"a": "timeout"}, {"a": "timeout"}).of_fault("a") == "tests too slow"
    assert "tests too slow" not in outcomes.NOTICED


def test_a_run_that_was_ended_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    seen = []

    def ends_after(number):
        def planted(faults, options):
            seen.append(list(faults))
            for fault in faults[:number]:
                yield fault, "survived"
            if faults[number:]:
                raise KeyboardInterrupt

        return planted

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["mutation", "--to", str(tmp_path / "page.md"), *options])
        return command.main()

    (tmp_path / "durations.json").write_text("{}")
    monkeypatch.setattr(command, "DATA", tmp_path)
    monkeypatch.setattr(command, "_planted", ends_after(2))
    with pytest.raises(KeyboardInterrupt):
        run("--only", "miners", "--count", "5")
    kept, draws = outcomes.read(tmp_path / "outcomes.json", ROOT)
    assert list(kept.values()) == ["survived"] * 2 + ["not planted"] * 3 and draws == ["seed 0 of miners"]
    with pytest.raises(KeyboardInterrupt):
        run("--again")
    assert seen[1] == seen[0][2:]
    assert run("--page") == 1 and seen.pop() == []
    assert "1 were not planted again" in (tmp_path / "page.md").read_text("utf-8")
    run("--again")
    with pytest.raises(KeyboardInterrupt):
        run("--again")
    # The third went on with the last one; the fourth plants all that was not noticed.
    assert seen[2] == seen[0][4:] and seen[3] == seen[0]


def test_what_is_judged_is_not_planted_again(tmp_path):
    first, second, third, *_ = mutants("tf_detreg/files.py", (ROOT / "tf_detreg/files.py").read_text("utf-8"))
    (tmp_path / "none.toml").touch()
    none = Judged(ROOT, tmp_path / "none.toml")
    (tmp_path / "one.toml").write_text(none.entry(first, "it is the same"), encoding="utf-8")
    one = Judged(ROOT, tmp_path / "one.toml")
    kept = {first: "not planted", second: "survived", third: "killed"}
    assert outcomes.left(kept, none) == [first] and outcomes.left(kept, one) == [second]


def test_another_draw_is_added_to_the_last_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "DATA", tmp_path)
    monkeypatch.setattr(command, "_planted", lambda faults, *_: ((fault, "killed") for fault in faults))
    (tmp_path / "durations.json").write_text("{}")
    for options in (["--seed", "0"], ["--more", "--seed", "1"]):
        command_line = ["mutation", "--to", str(tmp_path / "page.md"), "--only", "miners", "--count", "4", *options]
        monkeypatch.setattr(sys, "argv", command_line)
        assert command.main() == 0
    kept, draws = outcomes.read(tmp_path / "outcomes.json", ROOT)
    assert 4 < len(kept) <= 8 and draws == ["seed 0 of miners", "seed 1 of miners"]
    assert f"planted {len(kept)} faults (seed 0 of miners; seed 1 of miners)" in (tmp_path / "page.md").read_text(
        "utf-8"
    )


def test_tests_are_chosen_by_line_then_by_file_then_by_package(tmp_path):
    import coverage

    data = coverage.CoverageData(str(tmp_path / "coverage.sqlite"))
    path = str(tmp_path / "another checkout" / "tf_detreg" / "images" / "graph.py")
    for context, lines in (("", [1]), ("tests/x.py::far|run", [2, 3]), ("tests/images/a.py::near|run", [2])):
        data.set_context(context)
        data.add_lines({path: lines})
    data.write()
    seconds = {
        "tests/x.py::far": 1.0,
        "tests/images/a.py::near": 2.0,
        "tests/images/test_b.py::slow": 90.0,
        "tests/y.py::z": 0,
    }
    (tmp_path / "durations.json").write_text(json.dumps({**seconds, "tests/images/test_b.py::other": 3.0}))

    def chosen(name, line, budget=60.0):
        mutant = Mutant(f"tf_detreg/images/{name}", line, 0, 1, "", "number")
        return [t.partition("::")[2] for t in selection.Selection(tmp_path, tmp_path, budget).tests(mutant)]

    assert chosen("graph.py", 2) == ["near", "far"] and chosen("graph.py", 2, budget=0.5) == ["near"]
    assert chosen("graph.py", 3) == ["far"]
    assert chosen("graph.py", 7) == ["near", "far", "other"]  # A line that AutoGraph runs in translation.
    assert chosen("unknown.py", 1, budget=200.0) == ["near", "other", "slow"]
    assert chosen("b.py", 1, budget=1.0) == ["other"]  # Of its own file, though another one is quicker.
    present = ["tests/x.py::far", "tests/images/a.py::new", "tests/heads/a.py::new_too"]
    mutant = Mutant("tf_detreg/images/graph.py", 2, 0, 1, "", "number")
    assert selection.Selection(tmp_path, tmp_path, 60.0, present).tests(mutant) == [present[1], present[0]]


def test_new_tests_in_the_file_of_a_module_are_always_chosen_and_lines_may_have_moved(tmp_path):
    import coverage

    file = tmp_path / "tf_detreg" / "images" / "graph" / "png.py"
    then = tmp_path / "sources" / "tf_detreg" / "images" / "graph" / "png.py"
    for path, text in ((file, "x = 0\na = 1\nb = 2\n"), (then, "a = 1\nb = 2\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    data = coverage.CoverageData(str(tmp_path / "coverage.sqlite"))
    for context, lines in (("tests/x.py::first|run", [1]), ("tests/images/test_a.py::second|run", [2])):
        data.set_context(context)
        data.add_lines({str(file): lines})
    data.write()
    seconds = {"tests/x.py::first": 1.0, "tests/images/test_a.py::second": 3.0}
    (tmp_path / "durations.json").write_text(json.dumps(seconds))
    own = [f"tests/images/test_{name}.py::new_{number}" for name in ("graph", "png") for number in range(4)]
    foreign = [f"tests/images/test_b.py::new_{number}" for number in range(4)]

    def chosen(line, budget):
        mutant = Mutant("tf_detreg/images/graph/png.py", line, 0, 1, "", "number")
        return selection.Selection(tmp_path, tmp_path, budget, [*seconds, *foreign, *own]).tests(mutant)

    assert chosen(3, budget=60.0) == [*own, *foreign, "tests/images/test_a.py::second"]
    assert chosen(2, budget=60.0) == [*own, *foreign, "tests/x.py::first"]
    assert chosen(2, budget=1.0) == own


def test_the_command_is_tested_at_the_top(tmp_path):
    import coverage

    coverage.CoverageData(str(tmp_path / "coverage.sqlite")).write()
    (tmp_path / "durations.json").write_text("{}")
    new = ["tests/test_cli.py::a", "tests/test_search.py::b", "tests/index/test_search.py::c", "tests/test_files.py::d"]
    mutant = Mutant("tf_detreg/cli/search.py", 1, "number", 0, 1, "")
    assert selection.Selection(tmp_path, tmp_path, 60.0, new).tests(mutant) == new[:2]
    # A package may have its tests in the directory of another one.
    assert selection._is_own("tests/training/test_recipes.py::a", "tf_detreg/recipes/__init__.py")


def test_what_reads_the_source_is_chosen_for_every_fault(tmp_path):
    import coverage

    coverage.CoverageData(str(tmp_path / "coverage.sqlite")).write()
    (tmp_path / "durations.json").write_text("{}")
    mutant = Mutant("tf_detreg/losses/triplet.py", 1, "default", 0, 1, "")
    present = ["tests/losses/test_triplet.py::a", *reversed(selection.READERS)]
    chosen = selection.Selection(tmp_path, tmp_path, 60.0, present).tests(mutant)
    assert chosen == [present[0], *selection.READERS]
    for name in selection.READERS:
        file, _, test = name.partition("::")
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")


def test_the_default_tests_are_listed_by_name(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "-q"\nmarkers = ["slow"]\n')
    text = "import pytest\ndef test_one():\n    pass\n@pytest.mark.slow\ndef test_two():\n    pass\n"
    (tmp_path / "test_a.py").write_text(text)
    assert selection.collected(tmp_path) == ["test_a.py::test_one"]


def test_what_was_not_noticed_is_found_again_where_its_line_has_moved(tmp_path):
    (tmp_path / "tf_detreg").mkdir()
    file = tmp_path / "tf_detreg" / "a.py"
    file.write_text("a = 1\nb = a + 2\nc = a < b\n")
    first, added, third = (
        next(m for m in mutants("tf_detreg/a.py", file.read_text()) if m.line == n) for n in (1, 2, 3)
    )
    judged = {first: "killed", added: "survived", third: "covered by no test"}
    outcomes.write(tmp_path / "o.json", tmp_path, judged, ["seed 0"])
    file.write_text("# A comment.\na = 1\n\nb = a + 2\nc = a <= b\n")
    found, draws = outcomes.read(tmp_path / "o.json", tmp_path)
    assert draws == ["seed 0"]
    assert [(m.line, m.kind, outcome) for m, outcome in found.items()] == [
        (1, first.kind, "killed"),
        (4, added.kind, "survived"),
    ]
    (moved,) = (m for m, outcome in found.items() if outcome == "survived")
    assert moved.apply(file.read_text()).splitlines()[3] == added.apply("a = 1\nb = a + 2\n").splitlines()[1]


def test_of_two_like_faults_in_one_line_the_same_one_is_found_again(tmp_path):
    (tmp_path / "tf_detreg").mkdir()
    file = tmp_path / "tf_detreg" / "a.py"
    file.write_text("a = f(1, 1)\n")
    _, second = mutants("tf_detreg/a.py", file.read_text())
    outcomes.write(tmp_path / "o.json", tmp_path, {second: "survived"}, ["seed 0"])
    file.write_text("if a:\n    a = f(1, 1)\n")
    ((moved, _),) = outcomes.read(tmp_path / "o.json", tmp_path)[0].items()
    assert moved.apply(file.read_text()).endswith("a = f(1, (1 + 1))\n")


def test_the_page_lists_what_was_not_noticed_and_the_rate_decides(tmp_path):
    first, second, third, *rest = mutants("tf_detreg/files.py", (ROOT / "tf_detreg/files.py").read_text("utf-8"))
    outcomes = {first: "survived", second: "killed", third: "covered by no test", **dict.fromkeys(rest, "killed")}
    (tmp_path / "none.toml").touch()
    none = Judged(ROOT, tmp_path / "none.toml")
    (tmp_path / "one.toml").write_text(none.entry(third, "it is 'the same'"), encoding="utf-8")
    one = Judged(ROOT, tmp_path / "one.toml")
    page = report.page(ROOT, outcomes, ["seed 3"], one)
    not_noticed, same = page.split("## Not noticed")[1].split("## Change nothing")
    assert "not planted again" not in page and "(seed 3)" in page
    assert "expect fewer to be noticed" in page
    assert not_noticed.count("- `") == 1 and f"`{first.path}:{first.line}`" in not_noticed
    assert same.count("- `") == 1 and same.rstrip().endswith(": it is 'the same'")
    assert "**100.0 %**" not in page and "| 1 |" in page
    assert "**100.0 %**" in report.page(ROOT, {**outcomes, first: "killed"}, ["seed 3"], one)
    assert report.passed(dict.fromkeys(outcomes, "killed"), none)
    assert not report.passed(dict.fromkeys(outcomes, "survived"), one)
    # What was judged to change nothing, and was noticed all the same, counts.
    assert report._by_package({third: "killed"}, one) == {"tf_detreg": (1, 1, 0)}


def test_a_judgment_outlives_a_move_of_its_line_and_nothing_else(tmp_path):
    (tmp_path / "m.py").write_text("a = 1 if b < c else 2\n")
    mutant = next(m for m in mutants("m.py", (tmp_path / "m.py").read_text()) if m.kind == "comparison")
    (tmp_path / "none.toml").touch()
    (tmp_path / "judged.toml").write_text(Judged(tmp_path, tmp_path / "none.toml").entry(mutant, "why"))
    judged = Judged(tmp_path, tmp_path / "judged.toml")
    for text, reason in (("x = 0\nif x:\n    a = 1 if b < c else 2\n", "why"), ("a = 1 if c < b else 2\n", None)):
        (tmp_path / "m.py").write_text(text)
        moved = next(m for m in mutants("m.py", text) if m.kind == "comparison")
        assert judged.reason(moved) == reason


def test_what_was_judged_is_still_there_and_says_why():
    judged, found = Judged(ROOT), set()
    for path in {key[0] for key in judged.reasons}:
        found |= {judged.key(mutant) for mutant in _edited(path, (ROOT / path).read_text(encoding="utf-8"))}
    assert judged.reasons.keys() <= found
    assert all(len(reason) > 20 for reason in judged.reasons.values())
