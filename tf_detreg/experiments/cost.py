"""What a study will cost: images to train on, and hours at a stated speed."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tf_detreg import checks
from tf_detreg.experiments import data, runner
from tf_detreg.experiments.study import Study
from tf_detreg.training import RunConfig

# ResNet-50, forward and backward at 224 × 224 pixels in float32 on one data-center GPU of 2017 (V100); newer ones are
# two to four times as fast. A round number to plan with: measure yours and give it.
IMAGES_PER_SECOND = 350.0


@dataclasses.dataclass(frozen=True)
class Cost:
    """The size of a study.

    Attributes:
        trials: Trainings.
        images: Images that all trainings together take a step on: Σ epochs × training images.
        hours: `images` at `images_per_second`, on one device. Evaluation, and what a head costs beyond a linear one,
            come on top: a forward pass of train and test images after each trial.
        images_per_second: The speed assumed.
    """

    trials: int
    images: int
    images_per_second: float

    @property
    def hours(self) -> float:
        return self.images / self.images_per_second / 3600

    def __str__(self) -> str:
        return (
            f"{self.trials} trials, {self.images / 1e6:.1f} million images: {self.hours:.0f} hours of one device at "
            f"{self.images_per_second:g} images a second"
        )


def estimate(
    study: Study, images_per_second: float = IMAGES_PER_SECOND, count: Callable[..., int] | None = None
) -> Cost:
    """Return what a study costs.

    Args:
        study: As read.
        images_per_second: Of training, on one device.
        count: (config, protocol, split, stage) → training images. Default: those of the data, which are loaded.

    Example:
        >>> from tf_detreg.experiments.study import PROTOCOL, Study
        >>> recipe = RunConfig(epochs=10).to_dict()
        >>> study = Study("s", "ablation", "", "", PROTOCOL, {"a": (recipe,)}, (), True, None)
        >>> print(estimate(study, 100.0, count=lambda *trial: 4000))
        9 trials, 0.4 million images: 1 hours of one device at 100 images a second
    """
    checks.positive("images_per_second", images_per_second)
    count = count or _images_of
    if study.points:
        parts = [estimate(point, images_per_second, count) for point in study.points.values()]
        return Cost(sum(part.trials for part in parts), sum(part.images for part in parts), images_per_second)
    jobs = runner.jobs_of(study, "test" if study.kind == "table" else "validation")
    if study.kind == "choice":
        # Which candidate is chosen is not known yet: the first stands for it.
        first = {family: recipes[0] for family, recipes in study.families.items()}
        seeds, splits = study.protocol["seeds"], study.protocol["splits"]
        jobs += [
            runner.describe(study, "test", config, split, seed)
            for config in first.values()
            for split in splits
            for seed in seeds
        ]
    known: dict[tuple[int, str], int] = {}
    images = 0
    for job in jobs:
        key = job["split"], job["stage"]
        if key not in known:
            known[key] = count(RunConfig.from_dict(job["config"]), study.protocol, *key)
        images += job["config"]["epochs"] * known[key]
    return Cost(len(jobs), images, images_per_second)


def _images_of(config: RunConfig, protocol: Any, split: int, stage: str) -> int:
    # Features are not needed to count what they are made of.
    return len(data.parts(config.replace(features=False), protocol, split, stage)[0])
