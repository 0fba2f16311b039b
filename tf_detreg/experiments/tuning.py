"""Search a family's settings with Optuna, on validation classes alone."""

import copy
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

from tf_detreg import checks, deprecated, extras, files
from tf_detreg.experiments import runner
from tf_detreg.experiments.smoke import shrink
from tf_detreg.experiments.study import Study, flat, put, read


def tune(
    study_file: str | os.PathLike[str],
    family: str,
    search: dict[str, list[Any]] | None = None,
    trials: int = 20,
    output: str | os.PathLike[str] = "studies/out",
    seed: int = 0,
    jobs: int = 1,
    smoke: bool = False,
    log: Callable[[str], None] | None = None,
    *,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Find a family's best settings on the validation classes.

    Optuna's TPE sampler proposes; a proposal is trained split by split, and its median pruner stops one that falls
    behind after a split. Trials are the study's own, so what `ablate` ran before is not run again. The search is kept
    in `output/NAME-FAMILY.db` and continues there.

    Args:
        study_file: Gives data, protocol and the family's base recipe.
        family: One of the study's families.
        search: Dotted names to what is searched: a list of choices, or `[low, high, "log"]` / `[low, high, "linear"]`
            for a range of floats. Default: the choices in the family's grid.
        trials: How many proposals in this call. Default 20.
        output: Folder of finished trials.
        seed: Of the sampler.
        jobs: As in `ablate`; a proposal's seeds run side by side.
        smoke: Use the study's small version. Sizes that the small version sets are not searched, unless the grid has
            nothing else.
        log: Its name in 0.1, with a warning: takes lines of text in place of `progress`. Default: none.
        progress: Whether to show the proposals that are done, each with its result, and the time left. Default None: a
            bar in a terminal, lines in a log.

    Returns:
        `{"recipe": best recipe, "value": its mean metric, "trials": how many were completed}`, also written to
        `output/NAME-FAMILY.json`.

    Raises:
        ImportError: Without optuna.
        ValueError: For an unknown family or nothing to search.
    """
    if log is not None:
        deprecated.warn("tune(log=)", "tune(progress=)")
    trials, jobs = checks.integer("trials", trials, 1), checks.integer("jobs", jobs)
    with extras.needed("The search for settings"):
        import optuna
    study = read(study_file)
    checks.choice("family", family, study.families)
    search = search or _own_search(study, family, smoke)
    study = shrink(study) if smoke else study
    if not search:
        raise checks.invalid("search", f"be given where family {family!r} of {study_file} has no grid", "None")
    output = pathlib.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = f"{study.name}-{family}"
    searching = optuna.create_study(
        study_name=name,
        storage=f"sqlite:///{output / name}.db",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    with runner.reporting("Proposals", trials, 0, progress, log) as report:
        score = functools.partial(_score, study, family, search, output, jobs)
        scored = _reported(score, study.protocol["metric"], report)
        searching.optimize(scored, n_trials=trials)
    best = searching.best_trial
    found = {
        "recipe": _recipe(study, family, best.params),
        "value": best.value,
        "trials": sum(t.state.name == "COMPLETE" for t in searching.trials),
    }
    files.write_json(output / f"{name}.json", found)
    return found


def _own_search(study: Study, family: str, smoke: bool) -> dict[str, list[Any]]:
    """Return a family's grid, in small without the sizes that all small candidates share, unless it has no others."""
    return (smoke and grid_of(shrink(study, every=True), family)) or grid_of(study, family)


def grid_of(study: Study, family: str) -> dict[str, list[Any]]:
    """Return what differs between a family's candidates, by dotted name."""
    levels = [flat(recipe) for recipe in study.families[family]]
    names = dict.fromkeys(name for level in levels for name in level)
    choices = {name: [*{repr(lv.get(name)): lv.get(name) for lv in levels}.values()] for name in names}
    return {name: found for name, found in choices.items() if len(found) > 1}


def _reported(score: Callable[[Any], float], metric: str, report: Callable[[str], None]) -> Callable[[Any], float]:
    """Return the function with a line on each proposal, also on those that are stopped early."""

    def reported(proposal: Any) -> float:
        import optuna

        try:
            value = score(proposal)
        except optuna.TrialPruned:
            report(f"stopped early with {proposal.params}")
            raise
        report(f"{metric} {value:.2f} with {proposal.params}")
        return value

    return reported


def _score(
    study: Study, family: str, search: dict[str, list[Any]], output: pathlib.Path, jobs: int, proposal: Any
) -> float:
    """Return the mean metric of a proposal, over the splits."""
    import optuna

    recipe = _recipe(study, family, {name: _suggest(proposal, name, what) for name, what in search.items()})
    total = 0.0
    for number, split in enumerate(study.protocol["splits"], 1):
        wanted = [runner.describe(study, "validation", recipe, split, s) for s in study.protocol["choice_seeds"]]
        done = runner.complete(wanted, output / "runs", jobs, progress=False)
        total += sum(r["metrics"][study.protocol["metric"]] for r in done) / len(done)
        proposal.report(total / number, number)
        if number < len(study.protocol["splits"]) and proposal.should_prune():
            raise optuna.TrialPruned
    return total / len(study.protocol["splits"])


def _suggest(proposal: Any, name: str, what: list[Any]) -> Any:
    if len(what) == 3 and what[2] in ("log", "linear"):
        return proposal.suggest_float(name, what[0], what[1], log=what[2] == "log")
    return proposal.suggest_categorical(name, what)


def _recipe(study: Study, family: str, settings: dict[str, Any]) -> dict[str, Any]:
    recipe = copy.deepcopy(study.families[family][0])
    for name, value in settings.items():
        put(recipe, name, value)
    return recipe
