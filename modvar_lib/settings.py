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
from modvar_lib.goals import REGIMES, Schedule
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
MOST = 10**9
NAME = "^[A-Za-z0-9][A-Za-z0-9._]{0,99}$"
LETTERS = "up to 100 letters, digits, '.' and '_', first a letter or digit"


def _number(default: int, least: int = 1, most: int = MOST):
    return Field(default, ge=least, le=most, description=f"a whole number from {least} to {most}")


class Settings(Schedule):
    """Everything an experiment depends on. The comment on each default says why it is the
    default."""

    study: str = Field(
        "original", pattern=NAME.replace("]{", "-]{"), description=f"{LETTERS}, or '-' within"
    )
    dataset: str = "MNIST"  # as the original
    architecture: str = "mlp"  # the original does not say; the plainest
    regime: str = "fixed"
    variant: str = Field("default", pattern=NAME, description=LETTERS)
    seeds: tuple[int, ...] = Field((0,), description=SEEDS)
    pairs_per_epoch: int = _number(60_000)  # one pair for each training digit
    batch_size: int = _number(256)  # not stated; an ordinary choice
    optimizer: str = "adam"  # not stated; the usual one
    learning_rate: float = Field(
        1e-3, gt=0, allow_inf_nan=False, description="a number above 0"
    )  # Adam's default
    standardise: bool = Field(
        False, description="True or False"
    )  # the original's targets change their size
    penalty: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="a number from 0"
    )  # the original has none
    test_pairs: int = _number(5_000, least=2)  # standard error of R² below 0.005
    frames: int = _number(0, 0, 10_000)  # about so many are kept; they change nothing
    also: str = Field(
        "", description=f"names among {', '.join(BESIDES)}, with commas between"
    )  # measured besides
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
        got, all_of_them = (
            f"final_epochs: got {self.final_epochs}; allowed:",
            f"epochs, which is {self.epochs}",
        )
        if self.final_epochs > self.epochs:
            raise ValueError(f"{got} a whole number from 0 to {all_of_them}")
        if self.final_epochs == self.epochs and REGIMES[self.regime].ends_on_the_sum:
            raise ValueError(
                f"{got} fewer than {all_of_them}, or {self.regime} would train x + y throughout"
            )
        return self

    @property
    def torch_device(self) -> str:
        """The device that `auto` stands for."""
        return (
            self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        )

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
        """Raise InputError unless networks that are in a folder were trained with these settings."""
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
        return cls(
            **{("seeds" if name == "seed" else name): value for name, value in values.items()},
            **others,
        )


def parse_seeds(value: Any) -> tuple[int, ...]:
    """(0, 1, 2, 3) from "0-3", [0, 1, 2, 3], range(4); ValueError or TypeError for anything
    else."""
    if isinstance(value, str):
        spans = [re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part) for part in value.split(",")]
        ends = [(int(span[1]), int(span[2] or span[1])) for span in spans if span]
        if len(ends) < len(spans) or any(
            last < first or last - first >= MAX_SEEDS for first, last in ends
        ):
            raise ValueError
        value = [seed for first, last in ends for seed in range(first, last + 1)]
    seeds = (value,) if isinstance(value, int) else tuple(value)
    whole = all(isinstance(s, int) and not isinstance(s, bool) and 0 <= s < RESERVED for s in seeds)
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
