"""A training run, written down: everything that its result depends on, readable as TOML or JSON."""

import dataclasses
import difflib
import json
import os
import tomllib
from typing import Any

from tf_detreg import checks
from tf_detreg.files import existing

Part = dict[str, Any]
_ABOUT = ("title", "source", "differences", "cost")  # entries of the table [recipe]
_LARGEST_SEED = 2**32 - 1  # of NumPy's generator
_PRECISIONS = ("float32", "float64", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The configuration of `training.train`.

    Parts such as `head` and `loss` are tables: `name` is the class or function in its package, the rest its arguments.
    A bare name may stand for a table without arguments.

    Args:
        data: `"glyphs"`, `"digits"`, a folder that holds one folder of images a class, or a `.csv` file. As a table,
            with a loader of `tf_detreg.datasets` and its arguments: `{name = "cub", path = "CUB_200_2011"}`. Default
            `"glyphs"`.
        image_size: Side of the images in pixels. Default: that of the backbone's preset (`hub:…`), else the loader's.
        crop: Arguments of `datasets.RandomCrop`, for sets of files. Default: none.
        augment: Keras preprocessing layers, as tables, applied in this order. Default: none.
        backbone: Of `tf_detreg.backbones`, by function (`small_cnn`, the default) or by a name that `backbones.build`
            knows, such as `hub:dinov2_small` or the folder of a keras-hub preset. Any of them takes `trainable`,
            `freeze_batch_norm`, `freeze_until` and `lora_rank`.
        features: Whether the backbone stays as it is: its features are computed once, kept on disk, and the head is
            trained on them, in seconds. There is no augmentation then. Default false.
        head: Of `tf_detreg.heads`. Default: `{name = "RealNVP", dim = 128, penalty = 10.0}`.
        rival: Default: none. A table makes a second head of the main one's configuration; `penalty` is what it is (give
            a negative one), `loss_weight` and `proxies` are `rival_loss_weight` and `rival_proxies` of `MetricModel`,
            all else replaces options of the head.
        loss: Of `tf_detreg.losses`; `miner` in it is a table too. `num_classes` is filled in. Default `ProxyAnchor`.
        interpolation: Arguments of `training.Interpolation`. Default: none; nor with `epsilon = 0`.
        regularizers: Of `tf_detreg.regularizers`. Default: none.
        classes: P, classes in a batch. Default 32. 0: batches of `images` images in a random order, whatever their
            classes.
        images: K, images of each. Default 4.
        epochs: Passes over the training set. Default 20.
        optimizer: Arguments of `training.optimizer`, with `warmup_epochs`, `backbone_delay_epochs` and
            `decay_every_epochs` in place of numbers of steps. Default: that function's, but for
            `small_cnn`, which starts from scratch, `backbone_rate` 1e-2 and `clipnorm` 1.0, and for a regularizer that
            is `steep`, such as `NonIsotropy`, `clipnorm` 1.0. `clipnorm = 0` is no clipping.
        averaging: `last` and `shares` of `training.averaging.Averaging`: averages of weights that are tried at the end.
            The best of them and of the best epoch, by `monitor` on the validation classes, is the result. Default:
            none.
        unfreezing: Arguments of `callbacks.GradualUnfreezing`. Default: none.
        health: Whether `callbacks.Health` watches some 512 training images of whole classes: the columns `health_*` of
            `history.csv`, and warnings of a collapse. Default false.
        monitor: What the best epoch has most of: `"recall@1"`, `"map@r"` … on the validation classes. Default
            `"recall@1"`.
        patience: Evaluations without a new best after which training stops. Default 0: never.
        k: Ranks of the recall. Default 1, 2, 4, 8.
        evaluate_every: Epochs from one validation to the next. Default 1.
        seed: Of weights, batches and augmentation, below 2³². Default 0.
        deterministic: Whether TensorFlow must take reproducible kernels. Only with it does a resumed run equal an
            unbroken one to the bit. Default true.
        steps_per_execution: Batches in one call of the compiled step: fewer returns to Python, which small heads gain
            by; the weights are the same. Default 1.
        jit_compile: Whether XLA compiles the step: on a GPU it may pay after a first step of a minute, on CPUs seldom.
            The numbers differ in their last digits. Default false.
        prefetch_to_device: Batches that are copied to the GPU ahead of the step that takes them; without a GPU to the
            CPU's memory. The weights are the same. Default 0: copied when they are taken.
        precision: Keras dtype policy, such as `"mixed_bfloat16"`. Heads stay in float32. Default `"float32"`.
        strategy: `""` (default: this process), `"mirrored"` or `"multiworker"`.

    Raises:
        ValueError: For values of a wrong type or range.

    Example:
        >>> config = RunConfig.from_dict({"data": "digits", "head": {"name": "RealNVP", "dim": 32}, "epochs": 3})
        >>> config.head["dim"], config.loss["name"]
        (32, 'ProxyAnchor')
    """

    data: Part = dataclasses.field(default_factory=lambda: {"name": "glyphs"})
    image_size: int | None = None
    crop: Part | None = None
    augment: tuple[Part, ...] = ()
    backbone: Part = dataclasses.field(default_factory=lambda: {"name": "small_cnn"})
    features: bool = False
    head: Part = dataclasses.field(default_factory=lambda: {"name": "RealNVP", "dim": 128, "penalty": 10.0})
    rival: Part | None = None
    loss: Part = dataclasses.field(default_factory=lambda: {"name": "ProxyAnchor"})
    interpolation: Part | None = None
    regularizers: tuple[Part, ...] = ()
    classes: int = 32
    images: int = 4
    epochs: int = 20
    optimizer: Part = dataclasses.field(default_factory=dict)
    averaging: Part | None = None
    unfreezing: Part | None = None
    health: bool = False
    monitor: str = "recall@1"
    patience: int = 0
    k: tuple[int, ...] = (1, 2, 4, 8)
    evaluate_every: int = 1
    seed: int = 0
    deterministic: bool = True
    steps_per_execution: int = 1
    jit_compile: bool = False
    prefetch_to_device: int = 0
    precision: str = "float32"
    strategy: str = ""

    def __post_init__(self) -> None:
        for field in ("data", "backbone", "head", "loss"):
            self._set(field, named(field, getattr(self, field)))
        for field in ("augment", "regularizers", "k"):
            if not isinstance(getattr(self, field), list | tuple):
                raise checks.invalid(field, "be a list", checks.shown(getattr(self, field)))
        for field in ("augment", "regularizers"):
            self._set(field, tuple(named(field, part) for part in getattr(self, field)))
        for field in ("crop", "rival", "interpolation", "averaging", "unfreezing"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, dict):
                raise checks.invalid(field, "be a table, or left out", checks.shown(value))
        checks.instance("optimizer", self.optimizer, dict, "a table of arguments of training.optimizer")
        self._set("k", tuple(self.k))
        if self.interpolation is not None and self.interpolation.get("epsilon") == 0:
            self._set("interpolation", None)
        least_of = {
            "classes": 0,
            "images": 1,
            "epochs": 1,
            "patience": 0,
            "evaluate_every": 1,
            "steps_per_execution": 1,
            "prefetch_to_device": 0,
        }
        for field, least in least_of.items():
            self._set(field, checks.integer(field, getattr(self, field), least))
        self._set("seed", checks.integer("seed", self.seed, 0, _LARGEST_SEED))
        if not self.k or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in self.k):
            raise checks.invalid("k", "be a list of whole numbers, 1 or more", checks.shown(list(self.k)))
        for field in ("features", "health", "deterministic", "jit_compile"):
            checks.flag(field, getattr(self, field))
        if self.features and (self.crop is not None or self.augment or self.unfreezing is not None):
            raise checks.invalid("features", "be false with crop, augment or unfreezing, being computed once", "true")
        adapted = [
            f"{name} of backbone" for name in ("lora_rank", "freeze_until") if self.backbone.get(name) is not None
        ]
        adapted += ["layer_decay of optimizer"] * (self.optimizer.get("layer_decay", 1) != 1)
        if self.features and adapted:
            raise checks.invalid(
                "features", f"be false with {' and '.join(adapted)}, being of a backbone as it is", "true"
            )
        checks.choice("strategy", self.strategy, ("", "mirrored", "multiworker"))
        checks.choice("precision", self.precision, _PRECISIONS)
        checks.choice("monitor", self.monitor, [*(f"recall@{k}" for k in self.k), "map@r"])

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """Return the configuration of a mapping, as read from a file.

        Raises:
            ValueError: For a key that does not exist, with the nearest one that does.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else f" Known are: {', '.join(names)}."
                raise ValueError(f"{key!r} is not an entry of a run's configuration.{hint}")
        return cls(**values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "RunConfig":
        """Load a `.toml` or `.json` file; a run's `config.json` and a copy of a recipe will do.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file cannot be read as such.
        """
        path = existing(path, "path", "Give a .toml or .json file, such as the config.json of a run.")
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except ValueError as error:
            raise ValueError(f"{path} is not valid {path.suffix[1:].upper() or 'TOML'}: {error}") from error
        values = values.get("config", values) if isinstance(values, dict) else values
        if not isinstance(values, dict):
            raise ValueError(f"{path} is no configuration: it holds {values!r:.40} in place of a table of entries.")
        try:
            return cls.from_dict(_without_title(values))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def replace(self, **changes: Any) -> "RunConfig":
        """Return a copy with some entries changed.

        Example:
            >>> RunConfig().replace(epochs=5, head="Linear").head
            {'name': 'Linear', 'dim': 128}
        """
        if isinstance(changes.get("head"), str):
            changes["head"] = {"name": changes["head"], "dim": self.head.get("dim", 128)}
        return type(self).from_dict({**dataclasses.asdict(self), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return the entries as plain JSON values."""
        result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return result


def _without_title(values: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a copy of a recipe without the table that says where the recipe comes from.

    Raises:
        ValueError: If it holds anything else: in TOML, what is written at a file's end belongs to its last table.
    """
    about = values.get("recipe", {})
    others = sorted(set(about).difference(_ABOUT)) if isinstance(about, dict) else checks.shown(about)
    if others:
        raise checks.invalid(
            "recipe",
            f"be a table of {', '.join(_ABOUT)} alone",
            others if isinstance(others, str) else ", ".join(others),
            "Entries of the run stand before the first table, or in tables such as [optimizer].",
        )
    return {name: value for name, value in values.items() if name != "recipe"}


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between two nested mappings, one line an entry.

    Example:
        >>> differences({"epochs": 3, "head": {"dim": 64}}, {"epochs": 5, "head": {"dim": 64}})
        ['epochs: 3 in the run, 5 now']
    """
    lines = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {json.dumps(a)} in the run, {json.dumps(b)} now")
    return lines


def named(field: str, value: Any) -> Part:
    """Return a part with a name; `"ProxyAnchor"` means `{"name": "ProxyAnchor"}`.

    Raises:
        ValueError: If it is neither a name nor a table with one.
    """
    if isinstance(value, str) and value:
        return {"name": value}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise checks.invalid(field, 'be a name, or a table with one ({"name": "…"})', checks.shown(value))
    return dict(value)
