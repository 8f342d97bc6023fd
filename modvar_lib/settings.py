"""Settings of an experiment: frozen, checked, saved with every run. The same names in notebooks,
config files and tables."""

import re
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError, field_validator, model_validator

from modvar_lib import architectures, calibration  # noqa: F401 (architectures registers its own)
from modvar_lib.data import DATASETS, RESERVED
from modvar_lib.errors import InputError, lookup, shown
from modvar_lib.goals import REGIMES, Schedule, whole_number
from modvar_lib.models import ARCHITECTURES, OPTIMIZERS

REGISTRIES = {
    "dataset": DATASETS,
    "architecture": ARCHITECTURES,
    "regime": REGIMES,
    "optimizer": OPTIMIZERS,
}
BESIDES = dict.fromkeys([*calibration.COPIES, "seen", "clusterability", "transfer"])
NOT_SAVED = {"study", "device", "frames", "also", "seeds"}  # they do not determine a run
SEEDS = "whole numbers from 0 to 2147483647, each once, as a list or as text such as 0-3 or 0,2,5"
MAX_SEEDS = 100_000
NAME = "^[A-Za-z0-9][A-Za-z0-9._]{0,99}$"
STUDY = NAME.replace("]{", "-]{")
LETTERS = "up to 100 letters, digits, '.' and '_', first a letter or digit"
ALSO = f"names among {', '.join(BESIDES)}, with commas between"
FINITE = {"allow_inf_nan": False}


class Settings(Schedule):
    """Everything an experiment depends on. The comment on each default says why it is the
    default."""

    study: str = Field("original", pattern=STUDY, description=f"{LETTERS}, or '-' within")
    dataset: str = "MNIST"  # as the original
    architecture: str = "mlp"  # the original does not say; the plainest
    regime: str = "fixed"
    variant: str = Field("default", pattern=NAME, description=LETTERS)
    seeds: tuple[int, ...] = Field((0,), description=SEEDS)
    pairs_per_epoch: int = whole_number(60_000)  # one pair for each training digit
    batch_size: int = whole_number(256)  # not stated; an ordinary choice
    optimizer: str = "adam"  # not stated; the usual one
    learning_rate: float = Field(1e-3, gt=0, **FINITE, description="a number above 0")  # Adam's
    standardise: bool = Field(False, description="True or False")  # the original's change size
    penalty: float = Field(0.0, ge=0, **FINITE, description="a number from 0")  # as the original
    test_pairs: int = whole_number(5_000, 2)  # standard error of R² below 0.005
    frames: int = whole_number(0, 0, 10_000)  # about so many are kept; they change nothing
    also: str = Field("", description=ALSO)  # measured besides
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(_one_line(error.errors()[0], type(self))) from None

    @field_validator("*", mode="before")
    @classmethod
    def _bool_where_asked(cls, value, info):
        if isinstance(value, bool) != (info.field_name == "standardise"):
            raise ValueError(_got(info.field_name, value, cls))
        return value

    @field_validator(*REGISTRIES)
    @classmethod
    def _registered(cls, value, info):
        lookup(REGISTRIES[info.field_name], info.field_name, value)
        return value

    @field_validator("also")
    @classmethod
    def _besides(cls, value):
        for name in filter(None, value.split(",")):
            lookup(BESIDES, "also", name.strip())
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value):
        try:
            return parse_seeds(value)
        except (TypeError, ValueError):
            raise ValueError(_got("seeds", value, cls)) from None

    @field_validator("device")
    @classmethod
    def _device(cls, value):
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError(_got("device", value, cls))
        count = torch.cuda.device_count()
        if value.startswith("cuda") and int(value[5:] or 0) >= count:
            raise ValueError(
                f"device: got {value!r}; allowed here: auto, cpu (CUDA devices there are: {count})"
            )
        return value

    @model_validator(mode="after")
    def _final_phase(self):
        allowed = f"a whole number from 0 to epochs, which is {self.epochs}"
        if self.final_epochs == self.epochs and REGIMES[self.regime].ends_on_the_sum:
            allowed = (
                f"fewer than epochs, which is {self.epochs}, or {self.regime} would never vary"
            )
        elif self.final_epochs <= self.epochs:
            return self
        raise ValueError(f"final_epochs: got {self.final_epochs}; allowed: {allowed}")

    @property
    def torch_device(self) -> str:
        """The device that `auto` stands for."""
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        return auto if self.device == "auto" else self.device

    @property
    def arm(self) -> str:
        """What networks of a study that differ in their seed alone have in common, as a folder's
        name.

        >>> Settings(regime="varying").arm, Settings(variant="sgd", seeds="0-3").arm
        ('MNIST-mlp-varying', 'MNIST-mlp-fixed-sgd')
        """
        names = [self.dataset, self.architecture, self.regime, self.variant]
        return "-".join(names[: 3 if self.variant == "default" else 4])

    @property
    def group(self) -> str:
        """The first and the last seed, as a folder's name: those of one arm that are trained and
        measured together."""
        return f"{self.seeds[0]:03d}-{self.seeds[-1]:03d}"

    @property
    def seed(self) -> int:
        """Of the settings of one network."""
        (seed,) = self.seeds
        return seed

    def runs(self) -> "list[Settings]":
        """The settings of each single network."""
        return [self.model_copy(update={"seeds": (seed,)}) for seed in self.seeds]

    def saved(self) -> dict[str, Any]:
        """What determines one network, as it is written beside it."""
        return {**self.model_dump(exclude=NOT_SAVED), "seed": self.seed}

    def refuse_other(self, saved: dict[str, Any], folder: Path) -> None:
        """Raise InputError unless networks that are in a folder were trained with these
        settings."""
        for name, value in self.runs()[0].saved().items():
            if name != "seed" and saved.get(name, value) != value:
                raise InputError(
                    f"{name}: got {value!r}, but the networks of {folder} have {saved[name]!r}; "
                    "allowed: the same value, or another study (-p study mine, or study: mine in "
                    "a config file) or variant, or delete that folder"
                )

    @classmethod
    def of_saved(cls, values: dict, **others) -> "Settings":
        """Those of a network that was saved; what did not exist when it was trained has its
        default. Errors: InputError."""
        values = {"seeds" if name == "seed" else name: value for name, value in values.items()}
        return cls(**values, **others)


def parse_seeds(value: Any) -> tuple[int, ...]:
    """(0, 1, 2, 3) from "0-3", [0, 1, 2, 3], range(4); ValueError or TypeError for anything
    else."""
    if isinstance(value, str):
        spans = [re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part) for part in value.split(",")]
        if not all(spans):
            raise ValueError
        ends = [(int(span[1]), int(span[2] or span[1])) for span in spans]
        steps = [last - first for first, last in ends]
        if min(steps) < 0 or sum(steps) > MAX_SEEDS:
            raise ValueError
        value = [seed for first, last in ends for seed in range(first, last + 1)]
    seeds = (value,) if isinstance(value, int) else tuple(value)
    whole = all(type(seed) is int and 0 <= seed < RESERVED for seed in seeds)
    if not whole or not 0 < len(seeds) <= MAX_SEEDS or len(set(seeds)) < len(seeds):
        raise ValueError
    return seeds


def _got(field: str, value: Any, model: type[Settings]) -> str:
    return (
        f"{field}: got {shown(value)}; allowed: {model.model_fields[field].description or 'text'}"
    )


def _one_line(error: dict, model: type[Settings]) -> str:
    if error["type"] == "value_error":  # a message of ours
        return str(error["ctx"]["error"])
    field = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        lookup(model.model_fields, "unknown parameter", field)  # which fails
    return _got(field, error["input"], model)
