"""A config file: which networks a study has, in groups, and which notebooks analyse it.

python -m modvar_lib.config CONFIG prints the folder of its study.
"""

import os
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import yaml

from modvar_lib import data, runs
from modvar_lib.errors import InputError, command, lookup
from modvar_lib.settings import Settings


@dataclass(frozen=True)
class Config:
    """What a config file asks for. groups: the settings of each; notebooks: names of those that
    analyse the study."""

    study: str
    groups: list[Settings]
    notebooks: list[str]


class _Once(yaml.SafeLoader):
    """Safe YAML in which no name is there twice."""

    def construct_mapping(self, node, deep=False):
        names = [str(key.value) for key, _ in node.value]
        if len(set(names)) < len(names):
            raise yaml.YAMLError(f"a name is there twice: {', '.join(sorted(names))}")
        return super().construct_mapping(node, deep)


def read_config(config: Path | str | dict) -> Config:
    """A config file: settings that all arms share, of which any but seeds may be a list,
    `group_size`, and, if it likes, `arms`, each with settings of its own on top, and `notebooks`.
    Lists are crossed. Errors: InputError.

    >>> config = read_config({"seeds": "0-3", "group_size": 2, "regime": ["fixed", "varying"]})
    >>> [(group.regime, group.group) for group in config.groups]
    [('fixed', '000-001'), ('fixed', '002-003'), ('varying', '000-001'), ('varying', '002-003')]
    """
    if not isinstance(config, dict):
        try:
            config = _Once(Path(config).read_text()).get_single_data()
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(
                f"config: {config} cannot be read ({str(error).splitlines()[0]}); allowed: a YAML file"
            ) from None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise InputError(
            f"config: got {config!r:.200}; allowed: names of settings with their values"
        )
    shared, experiments = dict(config), []
    size, arms, notebooks = (
        shared.pop(k, default)
        for k, default in (("group_size", 8), ("arms", [{}]), ("notebooks", None))
    )
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InputError(f"group_size: got {size!r}; allowed: a whole number from 1")
    for arm in arms if isinstance(arms, list) else [arms]:
        if not isinstance(arm, dict) or not isinstance(arms, list):
            raise InputError(
                f"arms: got {arm!r}; allowed: a list of settings, such as - {{period: [1, 2]}}"
            )
        values = shared | arm
        lists = [v if isinstance(v, list) and k != "seeds" else [v] for k, v in values.items()]
        experiments += [Settings(**dict(zip(values, one))) for one in product(*lists)]
    if not experiments:
        raise InputError(
            f"config: got {config!r:.200}; allowed: at least one value of each setting"
        )
    names = [(one.study, one.arm) for one in experiments]
    for name in names:
        if names.count(name) > 1 or name[0] != names[0][0]:
            raise InputError(
                f"arms: {' '.join(name)} is there {names.count(name)} times; allowed: each once, in one study; "
                "give arms that differ in other settings a variant"
            )
    groups = [
        one.model_copy(update={"seeds": one.seeds[first : first + size]})
        for one in experiments
        for first in range(0, len(one.seeds), size)
    ]
    for group in groups:
        _same_settings(group)
    return Config(names[0][0], groups, _analyses(notebooks))


def _same_settings(group: Settings) -> None:
    """One line of error when the tables of a group are there, of networks with other seeds or
    settings."""
    path = runs.group_folder(group) / "runs.csv"
    if not path.is_file():
        return
    there = runs.read_table(path, runs.KEYS)
    if set(there["seed"]) != set(group.seeds):
        seeds = ", ".join(map(str, there["seed"]))
        raise InputError(
            f"seeds: got {group.group}, but the networks of {path.parent} are {seeds}; delete that folder"
        )
    first = there.iloc[0].to_dict()
    for name, value in group.runs()[0].saved().items():
        if name != "seed" and first.get(name, value) != value:
            raise InputError(
                f"{name}: got {value!r}, but the networks of {path.parent} have {first[name]!r}; "
                "allowed: the same value, another study or variant, or delete that folder"
            )


def _analyses(names) -> list[str]:
    every = sorted(path.stem for path in (data.ROOT / "notebooks").glob("*.ipynb"))
    allowed = dict.fromkeys(name for name in every if name[:2] not in ("01", "02", "03", "10"))
    names = ["04_analysis"] if names is None else names
    if not isinstance(names, list) or len({*map(str, names)}) < len(names):
        raise InputError(
            f"notebooks: got {names!r}; allowed: a list of {', '.join(allowed)}, each once"
        )
    for name in names:
        lookup(allowed, "notebooks", name)
    return names


if __name__ == "__main__":  # python -m modvar_lib.config CONFIG
    from modvar_lib.notebook import own_code

    command(
        lambda: (
            own_code(),
            print(os.path.relpath(runs.study_folder(read_config(sys.argv[1]).study))),
        )
    )
