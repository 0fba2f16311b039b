"""From tables of results to pages: `report.html` of a study, and the Markdown page of all of them."""

import dataclasses
import os
import pathlib
from typing import Any

from tf_detreg import files
from tf_detreg.analysis import report as html_report
from tf_detreg.experiments import curves, plots, table
from tf_detreg.experiments.data import OFFICIAL
from tf_detreg.experiments.grids import Grid
from tf_detreg.experiments.study import Study, flat, read, recipe_of
from tf_detreg.experiments.trial import HEALTH as MEASURES
from tf_detreg.files import existing

SMOOTHNESS = (
    "spectral",
    "frobenius",
    "abs_log_scale",
    "secant_within_seen",
    "secant_within_unseen",
    "secant_between_seen",
    "secant_between_unseen",
)

HEALTH = tuple(f"health_{name}" for name in (*MEASURES, "warnings", "first_warning", "last_warning"))

CANDIDATES = "All candidates, on the validation classes"


def study_section(study: Study, rows: list[dict[str, Any]], picture: str = "") -> str:
    """Return one study as Markdown: question, protocol, results, what was chosen, Lipschitz numbers.

    Args:
        study: As read.
        rows: Its table.
        picture: Name of the file of its plot. Default: it is not shown.
    """
    parts = [f"## {study.title}", study.question, f"![{study.title}]({picture})" if picture else ""]
    parts.append(_protocol(study, rows))
    for grid in grids_of(study, rows):
        parts += [f"**{CANDIDATES}:**"] * (grid.heading == CANDIDATES) + [grid.to_markdown()]
    return "\n\n".join(part for part in parts if part) + "\n"


def study_page(study: Study, rows: list[dict[str, Any]]) -> str:
    """Return one study as a self-contained HTML page with its plots."""
    if study.points:
        drawn = {"Curve": plots.curve(study, curves.compare(study, rows))}
    else:
        compared = table.compare(study, rows)
        drawn = {"Differences": plots.differences(study, compared), "Costs": plots.cost(study, compared)}
    sections = [
        html_report.Section("Protocol", _protocol(study, rows).replace("*Protocol*: ", "").replace("`", ""), "")
    ]
    sections += [html_report.Section(grid.heading, "", grid.to_html()) for grid in grids_of(study, rows)]
    sections += [html_report.Section(name, "", html_report.figure_svg(svg, name)) for name, svg in drawn.items()]
    return html_report.page(study.title, study.question, sections)


def grids_of(study: Study, rows: list[dict[str, Any]]) -> list[Grid]:
    """Return the tables of a study."""
    if study.points:
        chosen = [_chosen_at_points(study, rows)] if study.kind == "choice" else []
        return [*curves.grids(study, curves.compare(study, rows)), *chosen]
    compared = table.compare(study, rows)
    found = [_results(study, compared), _papers(study, compared), _smoothness(compared), _health(compared)]
    if study.kind == "choice":
        candidates = table.compare(*_as_ablation(study, rows))
        found += [_chosen(study, rows), _results(study, candidates, CANDIDATES), _smoothness(candidates)]
    return [grid for grid in [*found, _contrasts(study, rows)] if grid is not None]


def report(
    studies: str | os.PathLike[str] = "studies",
    output: str | os.PathLike[str] = "docs/results.md",
    picture: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
    """Compose the results page from what has been run, and name what has not.

    Args:
        studies: Folder of study files, with `results/NAME.csv` beside them and perhaps `conclusions.md`.
        output: The Markdown page to write.
        picture: Where the differences of the studies that looked at test classes are drawn, as SVG, but for those with
            `headline = false`; none by default.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: If there is no such directory.
        ValueError: If `studies` holds no study file, or a study has families that its table lacks.
    """
    folder = existing(studies, "studies", "Give a directory of study files; the repository's is studies/.")
    found = [read(path) for path in sorted(folder.glob("*.toml"))]
    if not found:
        raise ValueError(f"`studies` must hold .toml files; received {str(folder)!r}, which holds none.")
    done = {s.name: _rows(s, p) for s in found if (p := folder / "results" / f"{s.name}.csv").is_file()}
    introduction = folder / "conclusions.md"
    parts = [introduction.read_text(encoding="utf-8").rstrip() if introduction.is_file() else "# Results"]
    for study in (study for study in found if study.name in done):
        parts.append(study_section(study, done[study.name], _picture(study, done[study.name], pathlib.Path(output))))
    waiting = [s for s in found if s.name not in done]
    if waiting:
        lines = [f"| {s.title} | {s.question} | `tf-detreg ablate {s.path.as_posix()}` |" for s in waiting]
        parts.append("## Not run yet\n\n| study | question | command |\n|---|---|---|\n" + "\n".join(lines))
    tested = [
        (s, table.compare(s, done[s.name]))
        for s in found
        if s.kind == "choice" and s.headline and not s.points and s.name in done
    ]
    if picture and tested:
        files.write_text(picture, plots.overview(tested))
    return files.write_text(output, "\n\n".join(parts) + "\n")


def _picture(study: Study, rows: list[dict[str, Any]], page: pathlib.Path) -> str:
    """Draw a curve beside the page and return the file's name; other studies have none."""
    if not study.points:
        return ""
    return files.write_text(page.with_name(f"{study.name}.svg"), plots.curve(study, curves.compare(study, rows))).name


def _rows(study: Study, path: pathlib.Path) -> list[dict[str, Any]]:
    rows = table.read(path, study)
    parts = curves.at_points(study, rows).values() if study.points else [rows]
    missing = sorted({family for part in parts for family in set(study.families) - {row["family"] for row in part}})
    if missing:
        raise ValueError(f"{path} lacks {missing} of {study.path}. Run `tf-detreg ablate {study.path}` again.")
    return rows


def _protocol(study: Study, rows: list[dict[str, Any]]) -> str:
    p = study.protocol
    seconds = sum(row.get("metric.seconds") or 0.0 for row in rows)
    run = f"{len(rows)} trials, {seconds / 60:.0f} minutes of training on one thread ({rows[0]['machine']}; "
    versions = ", ".join(f"{k[8:]} {v}" for k, v in rows[0].items() if k.startswith("version."))
    what = {
        "ablation": "every candidate on the validation classes; no test class was looked at",
        "choice": "in each split and family the candidate best on validation classes "
        f"(seeds {p['choice_seeds']}, the table's candidates) was trained again on "
        f"{'train and validation classes' if p['retrain'] else 'the train classes'} and tested once",
        "table": "every candidate was trained on train and validation classes and measured on the test classes, as "
        "papers do; nothing was chosen by it",
    }[study.kind]
    test = "its official test classes" if p["test"] == OFFICIAL else f"{p['test']:.0%} of the classes for test"
    return (
        f"*Protocol*: {_count(len(p['splits']), 'class split')} × {_count(len(p['seeds']), 'seed')}; {what}. Data: "
        f"`{study.base['data']['name']}`, {test}, {p['validation']:.0%} of the rest for "
        f"validation. {run}{versions}). Reproduce: `tf-detreg ablate {study.path.as_posix()}`."
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _results(study: Study, compared: list[dict[str, Any]], heading: str = "Results") -> Grid:
    main = study.protocol["metric"]
    wanted = [main, "cross_recall@1", *(f"recall@{k}" for k in study.ranks), "map@r", "train_recall@1"]
    columns = [m for m in dict.fromkeys(wanted) if any(m in e["metrics"] for e in compared)]
    to_whom = "" if study.baselines or study.kind == "choice" else " to the family's first"
    head = ["", *columns, f"Δ {main}{to_whom} [t] / [bootstrap]", "training s", "parameters"]
    rows = []
    for entry in compared:
        m = entry["metrics"]
        cells = [entry["name"], *(table.show(m.get(c)) for c in columns)]
        comparable = entry["is_baseline"] or entry["difference"]
        cells.append(table.show_difference(entry["difference"]) if comparable else "")
        cells += [f"{m['seconds'].mean:.0f}", f"{m['parameters'].mean / 1e6:.2f} M"]
        rows.append(cells)
    best = max(range(len(compared)), key=lambda row: compared[row]["metrics"][main].mean)
    note = "Mean ± standard deviation over splits × seeds, in percent; the best in bold."
    return Grid(heading, head, rows, best, note)


def _papers(study: Study, compared: list[dict[str, Any]]) -> Grid | None:
    """Return published figures with what was measured here beside them."""
    if not study.papers:
        return None
    here = {entry["name"]: entry["metrics"] for entry in compared}
    metrics = [f"recall@{k}" for k in study.ranks if any(f"recall@{k}" in figures for figures in study.papers)]
    head = ["", *(f"{metric}: {who}" for metric in metrics for who in ("published", "here")), "source"]
    rows = []
    for figures in study.papers:
        measured = here.get(figures["candidate"], {})
        cells = [figures["candidate"]]
        for metric in metrics:
            cells += [str(figures.get(metric, "")), table.show(measured.get(metric))]
        rows.append([*cells, figures["source"]])
    return Grid("Published figures", head, rows)


def _as_ablation(study: Study, rows: list[dict[str, Any]]) -> tuple[Study, list[dict[str, Any]]]:
    """Return a choice's first stage, as an ablation of all its candidates."""
    return dataclasses.replace(study, kind="ablation"), [row for row in rows if row["stage"] == "validation"]


def _chosen(study: Study, rows: list[dict[str, Any]]) -> Grid:
    lines = []
    for family, recipes in study.families.items():
        tests = [r for r in rows if r["family"] == family and r["stage"] == "test"]
        by_split = {r["split"]: r["recipe"] for r in tests}
        text = "; ".join(f"{split}: {_settings(recipe, recipes)}" for split, recipe in sorted(by_split.items()))
        lines.append([family, str(len(recipes)), text])
    return Grid("What was chosen", ["family", "candidates", "chosen on validation, by split"], lines)


def _chosen_at_points(study: Study, rows: list[dict[str, Any]]) -> Grid:
    """Return what was chosen, a column for each point of a curve."""
    parts = curves.at_points(study, rows)
    columns = [[line[-1] for line in _chosen(point, parts[v]).rows] for v, point in study.points.items()]
    lines = [[family, *texts] for family, *texts in zip(study.families, *columns, strict=True)]
    return Grid("What was chosen", [f"chosen on validation, by split, at `{study.axis}`", *map(str, parts)], lines)


def _settings(recipe: dict[str, Any], recipes: tuple[dict[str, Any], ...]) -> str:
    mine, others = flat(recipe_of(recipe)), [flat(recipe_of(r)) for r in recipes]
    return ", ".join(f"{k} {v}" for k, v in mine.items() if any(o.get(k) != v for o in others)) or "as given"


def _contrasts(study: Study, rows: list[dict[str, Any]]) -> Grid | None:
    if not study.protocol["contrasts"]:
        return None
    wanted = (study.protocol["metric"], "cross_recall@1", "map@r", "train_recall@1", "spectral", "frobenius")
    metrics = [m for m in wanted if any(isinstance(row.get(f"metric.{m}"), float) for row in rows)]
    head = ["same settings, validation classes", "pairs", *metrics]
    lines = []
    for one, other in study.protocol["contrasts"]:
        found = [table.contrast(study, rows, one, other, metric) for metric in metrics]
        cells = [f"{one} − {other}", str(found[0].count), *(table.show_difference(f) for f in found)]
        lines.append(cells)
    return Grid("Contrasts", head, lines)


def _smoothness(compared: list[dict[str, Any]]) -> Grid | None:
    columns = [c for c in SMOOTHNESS if any(c in e["metrics"] for e in compared)]
    if not columns:
        return None
    # L2 normalization undoes a common scale, so the ratio of the two norms says what is left: unevenness.
    head = ["smoothness of the flow", "spectral / frobenius", *columns]
    rows = []
    for entry in compared:
        found = {c: entry["metrics"][c].mean for c in columns if c in entry["metrics"]}
        uneven = f"{found['spectral'] / found['frobenius']:.2f}" if "spectral" in found else ""
        cells = [uneven, *(f"{found[c]:.3f}" if c in found else "" for c in columns)]
        rows.append([entry["name"], *cells])
    return Grid("Smoothness", head, rows)


def _health(compared: list[dict[str, Any]]) -> Grid | None:
    columns = [c for c in HEALTH if any(c in e["metrics"] for e in compared)]
    if not columns:
        return None
    head = ["health of the embeddings, last epoch", *(c.removeprefix("health_").replace("_", " ") for c in columns)]
    rows = [[entry["name"], *(table.show(entry["metrics"].get(c)) for c in columns)] for entry in compared]
    note = (
        "On some 512 training images of whole classes, as `callbacks.Health` sees them: *warnings* is the number of "
        "epochs in which it warned, *first* and *last warning* the first and last of them, where there was one."
    )
    return Grid("Health of the embeddings", head, rows, note=note)
