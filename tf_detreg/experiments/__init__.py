"""Studies that anyone can run: ablations, choices under an equal tuning budget, tuning, and the page of results.

A study is a TOML file (`studies/`): data, protocol, and families of candidate recipes. `ablate` runs it, `tune`
searches one family with Optuna, `report` writes `docs/results.md` from the tables of all that was run.
"""

from tf_detreg.experiments.ablation import ablate
from tf_detreg.experiments.emoji_set import emoji
from tf_detreg.experiments.pages import report
from tf_detreg.experiments.study import Study, read
from tf_detreg.experiments.tuning import tune

__all__ = ["Study", "ablate", "emoji", "read", "report", "tune"]
