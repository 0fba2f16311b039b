"""Numbers that pages quote are those of the result files, of the benchmarks' page and of the commands beside them."""

import csv
import json
import pathlib
import re
import statistics
import tomllib

import pytest

from tf_detreg import backbones
from tf_detreg.experiments import cost, study

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "studies" / "results"


def page(name):
    """The text of a page, each line break a space."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def measured(pattern):
    """The numbers of the one place of the benchmarks' page that a pattern with groups matches."""
    (found,) = re.findall(pattern, (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    return [float(number.replace(",", "")) for number in ([found] if isinstance(found, str) else found)]


def recalls(name, **wanted):
    """Recall at 1 of the rows of a study's table that have these entries of their run, in order."""
    with open(RESULTS / f"{name}.csv", encoding="utf-8", newline="") as file:
        rows = [(row, json.loads(row["recipe"])) for row in csv.DictReader(file)]
    family = wanted.pop("family")
    return [
        float(row["metric.recall@1"])
        for row, run in rows
        if row["family"] == family and all(run.get(entry) == value for entry, value in wanted.items())
    ]


def test_decisions_has_rows_of_its_result_files_alone():
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    for name, shown in (("rates", 23), ("scores", 10)):
        kept = (RESULTS / "decisions" / f"{name}.md").read_text(encoding="utf-8").splitlines()[2:]
        columns = kept[0].count("|")
        rows = [row for row in text.splitlines() if re.match(r"\| (emoji|glyphs) ", row) and row.count("|") == columns]
        assert len(rows) == shown and set(rows) <= set(kept)
    counts = {}
    for row in re.findall(r"^\| (\w+) \| \w+ \| . % \| (\w+ \w+) \| (\d+) of (\d+) \| (\d+) of", text, re.MULTILINE):
        counts.setdefault(row[:2], []).append([int(number) for number in row[2:]])
    sums = {key: [sum(column) for column in zip(*rows, strict=True)] for key, rows in counts.items()}
    upper, point = ([sums[data, bound] for data in ("emoji", "glyphs")] for bound in ("upper bound", "point estimate"))
    inside = sum(row[2] for row in sums.values())
    told = (
        f"in all {upper[0][1]} fits on emoji and all {upper[1][1]} on glyphs (three scores, two targets), the point "
        f"estimate in {point[0][0]} of {point[0][1]} and {point[1][0]} of {point[1][1]}; the stated interval held the "
        f"measured rate in all {inside} fits"
    )
    assert upper[0][0] == upper[0][1] and upper[1][0] == upper[1][1] and told in page("docs/decisions.md")


def test_the_hours_of_the_papers_studies_are_those_of_the_command():
    images = {"CUB": 5864, "Cars": 8054, "SOP": 59551, "In-Shop": 25882}
    text = page("docs/studies.md")
    assert "(CUB 5,864, Cars 8,054, SOP 59,551, In-Shop 25,882) / 350 / 3,600" in text
    for name in ("heads", "flow-type", "lambda", "epsilon", "direction", "language"):
        cells = []
        for data, count in images.items():
            file = ROOT / "studies" / "paper" / f"{data.lower()}-{name}.toml"
            if file.exists():
                found = cost.estimate(study.read(file), 350.0, count=lambda *trial, count=count: count)
                cells.append(f"{found.trials} trials, {found.hours:.0f} h")
        assert f"| `{name}` | {' | '.join(cells)} |" in text


def test_sizes_of_files_for_phones_are_those_of_the_benchmark():
    sizes = {
        kind: measured(rf"glyphs-v1-{kind}\.tflite: .* (\d+\.\d+) MB")[0]
        for kind in ("float32", "float16", "dynamic", "int8")
    }
    (exact,) = measured(r"int8 / float32 size: (\d\.\d+)")
    text = (ROOT / "docs" / "mobile.md").read_text(encoding="utf-8")
    rows = re.findall(r'^\| `"(\w+)"` \|[^|]+\|[^|]+\| (\d\.\d+) \|', text, re.MULTILINE)
    shares = {kind: size / sizes["float32"] for kind, size in sizes.items()} | {"int8": exact}
    assert {kind: float(share) for kind, share in rows} == {
        kind: round(share, 2) for kind, share in shares.items() if kind != "float32"
    }
    (megabytes, share) = measured(
        r"Offline search over 100,000 × 128: (\d+\.\d) MB, .* thread with the embedder, (\d+) %"
    )
    assert f"100,000 items of 128 numbers take {megabytes:g} MB with a small embedder, and {share:.0f} %" in page(
        "docs/mobile.md"
    )


def test_what_the_pages_say_of_large_indexes_is_what_the_benchmark_measured():
    built, mapped = measured(r"peak memory (\d+\.\d) GB, (\d+\.\d) GB with the mapped pages of the vectors")
    (served,) = measured(r"memory to serve: (\d\.\d+) GB")
    (found,) = measured(r"recall@10 of 500 other queries (\d\.\d+)")
    (faster,) = measured(r"throughput (\d+) times that of exact search, 346 queries/s")
    (opened,) = measured(r"\| opening \| (\d\.\d+) ms")
    assert round(faster) == 30 and (
        f"10,000,000 × 128 took {built} GB to build ({mapped} GB with mapped pages), {served:.1f} GB beside the mapped "
        f"pages to serve, opened in {opened:.1f} ms, and found {100 * found:.1f} % of the 10 nearest in a thirtieth"
    ) in page("docs/retrieval.md")
    tuned, visited = measured(r"recall@10 (\d\.\d+) \(.*leaves visited (\d+)")
    fewer, leaves = measured(r"recall@10 (\d\.\d+), the same tree with (12) leaves visited")
    assert visited / leaves == 4 and (
        f"the tuned tree finds {100 * tuned:.0f} % of the 10 nearest, and the same tree with a quarter of the leaves "
        f"visited finds {100 * fewer:.0f} %"
    ) in page("docs/retrieval.md")


def test_what_the_pages_say_of_steps_is_what_the_benchmarks_measured():
    words = {2: "twice", 3: "three times", 4: "four times", 6: "six"}
    ratios = {
        head: words[round(measured(rf"\| {head}, a training step \|.*\| Linear \|[^|]*\| (\d\.\d+) \|")[0])]
        for head in ("RealNVP", "ResidualMLP", "Glow", "Dueling")
    }
    assert (
        f"a training step of RealNVP takes {ratios['RealNVP']} as long as the linear head's, and the residual MLP's "
        f"{ratios['ResidualMLP']}; Glow's takes {ratios['Glow']}, a dueling pair's {ratios['Dueling']}"
    ) in page("docs/heads.md")
    (seconds, ratio) = measured(
        r"training step, EfficientNet-Lite0 224 px, batch 32, RealNVP .* (\d\.\d+) s \| linear head .*? s \| (\d\.\d+)"
    )
    assert f"takes {ratio:.2f} times as long with a flow" in page("docs/heads.md")
    minutes = round(seconds * 1000 / 32 * 30 / 60)
    assert f"takes {seconds:.1f} s of one core" in page("docs/training.md")
    assert f"30 epochs of 1,000 training images about {minutes} minutes" in page("docs/training.md")
    recipe = tomllib.loads((ROOT / "tf_detreg" / "recipes" / "photos.toml").read_text(encoding="utf-8"))["recipe"]
    assert recipe["cost"].startswith(f"{seconds:.1f} s") and f"about {minutes} minutes" in recipe["cost"]


def test_what_fine_tuning_gave_is_what_the_study_measured():
    frozen = statistics.mean(recalls("emoji-finetune", family="linear, backbone frozen"))
    with open(RESULTS / "emoji-finetune.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["family"] == "linear"]
    by_rate = {}
    for row in rows:
        run = json.loads(row["recipe"])
        rate = (run.get("optimizer") or run["rates"])["backbone_rate"]
        by_rate.setdefault(rate, []).append(float(row["metric.recall@1"]))
    tuned, slower = (statistics.mean(by_rate[rate]) for rate in (3e-4, 1e-4))
    low, high, more = round(frozen), round(tuned), round(tuned - frozen)
    readme = page("README.md")
    assert set(re.findall(r"from (\d+) % to (\d+) % R@1 on emoji", readme)) <= {(f"{low}", f"{high}")}
    assert set(re.findall(r"tuning it adds (\d+) points", readme)) <= {f"{more}"}
    assert f"on emoji, Lite0 went from {low} to {high} %" in page("docs/backbones.md")
    assert f"went from {low} % to {high} % R@1" in page("docs/tutorials/choosing_a_backbone.md")
    learns = statistics.mean(recalls("emoji-finetune", family="linear, batch normalization learns"))
    assert f"batch normalization that learns cost {tuned - learns:.0f} points" in page("docs/training.md")
    assert round(tuned - slower) == 7 and "3e-4 gave seven points more than 1e-4" in page("docs/training.md")


def test_what_non_isotropy_cost_without_clipping_is_what_the_study_measured():
    fallen = recalls(
        "emoji-non-isotropy", family="linear", regularizers=[{"dim": 128, "name": "NonIsotropy", "weight": 1.0}]
    )
    alone = recalls("emoji-non-isotropy", family="linear", regularizers=[])
    assert (
        f"two of three trainings ended at an R@1 of {fallen[0]:.0f} and {fallen[1]:.0f} where the loss alone reached "
        f"{alone[0]:.0f} and {alone[1]:.0f}"
    ) in page("docs/regularizers.md")


def test_presets_have_the_sizes_that_the_package_states():
    pytest.importorskip("keras_hub")
    text = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(hub:\w+)` \| ([\d.,]+) M \| ([\d,]+) \|", text, re.MULTILINE)
    assert len(rows) == 14
    for name, millions, megabytes in rows:
        stated = re.search(r": ([\d.,]+) M parameters, about ([\d,]+) MB", str(backbones.describe(name)))
        numbers = [float(number.replace(",", "")) for number in (*stated.groups(), millions, megabytes)]
        # Large ones are rounded to a million.
        assert abs(numbers[0] - numbers[2]) < 0.5 and numbers[1] == numbers[3], name


def test_the_extra_all_is_made_of_the_rows_below_it():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (names,) = re.findall(r"\[([\w,]+)\]", extras["all"][0])
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    first, *rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.MULTILINE)
    assert first == "`all`" and "the extras of the next eight rows" in text
    assert sorted(re.findall(r"\w+", " ".join(rows[:8]))) == sorted(names.split(","))
