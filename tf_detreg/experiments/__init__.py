"""Studies that anyone can run: ablations, choices under an equal tuning budget, tuning, and the page of results.

A study is a TOML file (`studies/`): a base `training.RunConfig`, families of changes to it with their grids, and a
protocol. `ablate` runs it, `tune` searches one family with Optuna, `report` writes `docs/results.md` from the tables of
all that was run, and `estimate` says beforehand what a study costs.
"""

from tf_detreg.datasets.emoji import emoji_images as emoji
from tf_detreg.experiments.ablation import ablate, estimate
from tf_detreg.experiments.candidates import compare as compare_backbones
from tf_detreg.experiments.pages import report
from tf_detreg.experiments.study import Study, read
from tf_detreg.experiments.tuning import tune

__all__ = ["Study", "ablate", "compare_backbones", "emoji", "estimate", "read", "report", "tune"]
