"""Settings of an experiment: frozen, checked, saved with every run. The same names in notebooks, config files and tables."""

import re
from itertools import product
from typing import Any

import torch
from pydantic import Field, ValidationError, field_validator, model_validator

from modvar_lib.data import DATASETS, ROOT
from modvar_lib.errors import InputError, lookup
from modvar_lib.goals import REGIMES, Schedule
from modvar_lib.models import ARCHITECTURES, OPTIMIZERS

SEEDS = "whole numbers from 0 to 4294967295, each once, as a list or as text such as 0-3 or 0,2,5"
STUDY = "letters, digits, '.', '_' and '-', starting with a letter or digit; or published/ and such a name"
VARIANT = "letters, digits, '.' and '_', starting with a letter or digit"
MAX_SEEDS = 100_000


class Settings(Schedule):
    """Everything an experiment depends on. The comment on each default says why it is the default."""

    study: str = Field("original", description=STUDY)
    dataset: str = "MNIST"  # as the original
    architecture: str = "mlp"  # the original does not say; the plainest
    regime: str = "fixed"
    variant: str = Field("default", description=VARIANT)  # a name for other settings in one study
    seeds: tuple[int, ...] = Field((0,), description=SEEDS)
    pairs_per_epoch: int = Field(
        60_000, ge=1, description="a whole number from 1"
    )  # one pair for each training digit
    batch_size: int = Field(
        256, ge=1, description="a whole number from 1"
    )  # not stated; an ordinary choice
    optimizer: str = "adam"  # not stated; the usual one
    learning_rate: float = Field(
        1e-3, gt=0, allow_inf_nan=False, description="a number above 0"
    )  # Adam's default
    standardise: bool = Field(
        False, description="True or False"
    )  # as the original, whose targets change their mean and size at every switch
    penalty: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="a number from 0"
    )  # of absolute weights before the readout, in the loss; the original has none
    test_pairs: int = Field(
        5_000, ge=2, description="a whole number from 2"
    )  # standard error of R² below 0.005
    frames: int = Field(
        0, ge=0, description="a whole number of epochs from 0, which keeps none"
    )  # epochs between two copies of the weights kept with a run; they change nothing in it
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(_one_line(error.errors()[0], type(self))) from None

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool(cls, value, info):
        if isinstance(value, bool) != (info.field_name == "standardise"):
            raise ValueError(_got(info.field_name, value, cls))
        return value

    @field_validator("study", "variant")
    @classmethod
    def _name(cls, value, info):
        patterns = {
            "study": r"(published/)?[A-Za-z0-9][A-Za-z0-9._-]*",
            "variant": r"[A-Za-z0-9][A-Za-z0-9._]*",
        }
        if not re.fullmatch(patterns[info.field_name], value):
            raise ValueError(_got(info.field_name, value, cls))
        return value

    @field_validator("dataset", "architecture", "regime", "optimizer")
    @classmethod
    def _registered(cls, value, info):
        registries = {
            "dataset": DATASETS,
            "architecture": ARCHITECTURES,
            "regime": REGIMES,
            "optimizer": OPTIMIZERS,
        }
        lookup(registries[info.field_name], info.field_name, value)
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value):
        try:
            seeds = parse_seeds(value)
        except (TypeError, ValueError):
            raise ValueError(_got("seeds", value, cls)) from None
        return seeds

    @field_validator("device")
    @classmethod
    def _device(cls, value):
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError(_got("device", value, cls))
        if value.startswith("cuda") and int(value[5:] or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"device: got {value!r}; allowed here: auto, cpu (CUDA devices found: {torch.cuda.device_count()})"
            )
        return value

    @model_validator(mode="after")
    def _final_phase(self):
        if self.final_epochs > self.epochs:
            raise ValueError(
                f"final_epochs: got {self.final_epochs}; allowed: a whole number from 0 to epochs, which is {self.epochs}"
            )
        return self

    @property
    def torch_device(self) -> str:
        """The device that `auto` stands for."""
        return (
            self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        )

    def of_run(self, seed: int) -> dict[str, Any]:
        """The part that determines one run: no study, no device, no frames, the seed alone."""
        return {**self.model_dump(exclude={"study", "device", "frames", "seeds"}), "seed": seed}


def experiments_of(config: dict) -> tuple[int, list[Settings]]:
    """(group size, experiments) of a config file: settings that all share, of which any but seeds may be a list, and, if it
    likes, `arms`, each with settings of its own on top. Lists are crossed. `notebooks` are those that analyse the study.

    >>> size, found = experiments_of({"group_size": 8, "regime": ["fixed", "varying"]})
    >>> size, [(one.architecture, one.regime) for one in found]
    (8, [('mlp', 'fixed'), ('mlp', 'varying')])
    """
    if not isinstance(config, dict):
        raise InputError(f"config: got {config!r}; allowed: names of settings with their values")
    shared = {k: v for k, v in config.items() if k not in ("arms", "group_size", "notebooks")}
    size, arms, found = config.get("group_size"), config.get("arms", [{}]), []
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InputError(f"group_size: got {size!r}; allowed: a whole number from 1")
    for arm in arms if isinstance(arms, list) else [arms]:
        if not isinstance(arm, dict) or not isinstance(arms, list):
            raise InputError(
                f"arms: got {arm!r}; allowed: a list of settings, such as - {{period: [1, 2]}}"
            )
        values = shared | arm
        lists = [v if isinstance(v, list) and k != "seeds" else [v] for k, v in values.items()]
        found += [Settings(**dict(zip(values, one))) for one in product(*lists)]
    if not found:
        raise InputError(f"config: got {config!r}; allowed: at least one value of each setting")
    names = [(one.dataset, one.architecture, one.regime, one.variant) for one in found]
    for name in names:
        if names.count(name) > 1 or found[0].study != found[-1].study:
            raise InputError(
                f"arms: {' '.join(name)} is there {names.count(name)} times; allowed: each once, in one study; "
                "give arms that differ in other settings a variant"
            )
    return size, found


def analyses_of(config: dict) -> list[str]:
    """The notebooks, by their names without .ipynb, that analyse the study of a config file.

    >>> analyses_of({})
    ['04_analysis']
    """
    notebooks = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    allowed = [name for name in notebooks if name[:2] not in ("01", "02", "03", "10")]
    found = config.get("notebooks", ["04_analysis"])
    if not isinstance(found, list):
        raise InputError(f"notebooks: got {found!r}; allowed: a list of {', '.join(allowed)}")
    for name in found:
        lookup(dict.fromkeys(allowed), "notebooks", name)
    return found


def parse_seeds(value: Any) -> tuple[int, ...]:
    """(0, 1, 2, 3) from "0-3", [0, 1, 2, 3], range(4); ValueError or TypeError for anything else."""
    if isinstance(value, int):
        value = [value]
    if isinstance(value, str):
        parts = [re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part) for part in value.split(",")]
        spans = [(int(m[1]), int(m[2] or m[1])) for m in parts if m]
        if len(spans) < len(parts) or any(
            last < first or last - first >= MAX_SEEDS for first, last in spans
        ):
            raise ValueError
        value = [seed for first, last in spans for seed in range(first, last + 1)]
    seeds = tuple(value)
    whole = all(isinstance(s, int) and not isinstance(s, bool) and 0 <= s < 2**32 for s in seeds)
    if not whole or not 0 < len(seeds) <= MAX_SEEDS or len(set(seeds)) < len(seeds):
        raise ValueError
    return seeds


def _got(field: str, value: Any, model: type[Settings]) -> str:
    return f"{field}: got {value!r}; allowed: {model.model_fields[field].description or 'text'}"


def _one_line(error: dict, model: type[Settings]) -> str:
    if error["type"] == "value_error":  # a message of ours
        return str(error["ctx"]["error"])
    field = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return unknown_parameter(field, model.model_fields)
    return _got(field, error["input"], model)


def unknown_parameter(name: str, allowed) -> str:
    """One line for a parameter that does not exist."""
    try:
        lookup(dict.fromkeys(allowed), "unknown parameter", name)
    except InputError as error:
        return str(error)
    raise AssertionError(f"{name} is known")
