"""Settings of an experiment: frozen, checked, saved with every run. The same names in notebooks,
config files and tables."""

from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from modvar_lib import architectures  # noqa: F401 (it registers its own)
from modvar_lib.data import DATASETS, RESERVED
from modvar_lib.errors import InputError, lookup
from modvar_lib.goals import REGIMES, Schedule, whole_number
from modvar_lib.models import ARCHITECTURES, OPTIMIZERS

REGISTRIES = {
    "dataset": DATASETS,
    "architecture": ARCHITECTURES,
    "regime": REGIMES,
    "optimizer": OPTIMIZERS,
}
EXTRAS = dict.fromkeys("untrained shuffled rotated shifted seen clusterability transfer".split())
NOT_SAVED = {"study", "device", "frames", "extras", "seeds"}  # they do not determine a run
MAX_SEEDS = 100_000
NAME = "^[A-Za-z0-9][A-Za-z0-9._]{0,99}$"


def parse_seeds(value: Any) -> tuple[int, ...]:
    """(0, 1, 2, 3) from "0-3", "0,1,2-3", [0, 1, 2, 3] or range(4). Errors: InputError."""
    got = value
    try:
        if isinstance(value, str):
            ends = [[int(end) for end in part.split("-", 1)] for part in value.split(",")]
            spans = [range(span[0], span[-1] + 1) for span in ends]
            value = chain(*spans) if all(spans) else ()
        seeds = (value,) if isinstance(value, int) else tuple(islice(value, MAX_SEEDS + 1))
        whole = all(type(seed) is int and 0 <= seed < RESERVED for seed in seeds)
        if whole and 0 < len(set(seeds)) == len(seeds) <= MAX_SEEDS:
            return seeds
    except (TypeError, ValueError):
        pass
    raise InputError(
        f"seeds: got {got!r:.200}; allowed: whole numbers from 0 to {RESERVED - 1}, each once, as a "
        "list or as text such as 0-3 or 0,2,5"
    )


class Settings(Schedule, allow_inf_nan=False, populate_by_name=True):
    """Everything an experiment depends on. The comment on each default says why it is the
    default. Errors: InputError, for a value that is not allowed."""

    study: str = Field("original", pattern=NAME.replace("]{", "-]{"))
    dataset: str = "MNIST"  # as the original
    architecture: str = "mlp"  # the original does not say; the plainest
    regime: str = "fixed"
    variant: str = Field("default", pattern=NAME)
    seeds: Annotated[tuple[int, ...], BeforeValidator(parse_seeds)] = (0,)
    pairs_per_epoch: int = whole_number(60_000)  # one pair for each training digit
    batch_size: int = whole_number(256)  # not stated; an ordinary choice
    optimizer: str = "adam"  # not stated; the usual one
    learning_rate: float = Field(1e-3, gt=0)  # Adam's
    standardise: bool = False  # the original's goals change their size
    penalty: float = Field(0.0, ge=0)  # as the original
    test_pairs: int = whole_number(5_000, 2)  # standard error of R² below 0.005
    frames: int = whole_number(0, 0, 10_000)  # about so many are kept; they change nothing
    extras: str = Field("", validation_alias="also")  # of EXTRAS, with commas; its former name
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise input_error(error) from None

    @field_validator(*REGISTRIES)
    @classmethod
    def _registered(cls, value, info):
        lookup(REGISTRIES[info.field_name], info.field_name, value)
        return value

    @field_validator("extras")
    @classmethod
    def _extras(cls, value):
        for name in filter(None, value.split(",")):
            lookup(EXTRAS, "extras", name.strip())
        return value

    @field_validator("device")
    @classmethod
    def _device(cls, value):
        count = torch.cuda.device_count()
        if value.startswith("cuda") and int(value[5:] or 0) >= count:
            here = f"auto, cpu (CUDA devices there are: {count})"
            raise InputError(f"device: got {value!r}; allowed: {here}")
        return value

    @model_validator(mode="after")
    def _final_phase(self):
        most = self.epochs - REGIMES[self.regime].ends_on_the_sum  # or it would never vary
        if self.final_epochs > most:
            raise InputError(
                f"final_epochs: got {self.final_epochs}; allowed: 0 to {most}, of {self.epochs} "
                f"epochs in the regime {self.regime}"
            )
        return self

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
        """The first and the last seed, as a folder's name."""
        return f"{self.seeds[0]:03d}-{self.seeds[-1]:03d}"

    @property
    def seed(self) -> int:
        """Of the settings of one network."""
        (seed,) = self.seeds
        return seed

    def of(self, seeds: tuple[int, ...]) -> "Settings":
        """The same, of other seeds."""
        return self.model_copy(update={"seeds": seeds})

    def runs(self) -> "list[Settings]":
        """The settings of each single network."""
        return [self.of((seed,)) for seed in self.seeds]

    def saved(self) -> dict[str, Any]:
        """What determines one network, as it is written beside it."""
        return {**self.model_dump(exclude=NOT_SAVED), "seed": self.seed}

    @classmethod
    def of_saved(cls, values: dict, study: str = "original") -> "Settings":
        """Those of a network that was saved, or of a row of a table; what did not exist when it was
        trained has its default. Errors: InputError."""
        known = {name: values[name] for name in cls().saved() if name in values}
        return cls(seeds=known.pop("seed", 0), study=study, **known)

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


def input_error(error: ValidationError) -> InputError:
    """The first of what pydantic refuses, as one line."""
    first = error.errors()[0]
    if first["type"] == "value_error":  # a line of ours
        return InputError(str(first["ctx"]["error"]))
    name, allowed = str(first["loc"][0]), first["msg"].removeprefix("Input should be ")
    if first["type"] == "extra_forbidden":
        lookup(Settings.model_fields, "unknown parameter", name)  # which fails
    return InputError(f"{name}: got {first['input']!r:.200}; allowed: {allowed}")
