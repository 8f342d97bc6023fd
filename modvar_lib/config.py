"""A config file: which networks a study has, in groups, and which notebooks analyse them.

A group is the seeds of one arm that one job trains (02_train) and measures (03_metric).
"""

import os
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

import yaml

from modvar_lib import data, runs
from modvar_lib.errors import InputError, command, lookup, shown
from modvar_lib.settings import Settings

MOST_BYTES = 100_000  # of a file; reading YAML takes a second for so many
MOST_GROUPS = 100_000


@dataclass(frozen=True)
class Config:
    """What a config file asks for. groups: the settings of each; notebooks: names of those that
    analyse the study."""

    study: str
    groups: list[Settings]
    notebooks: list[str]


class _Once(yaml.SafeLoader):
    """Safe YAML in which no name is there twice, and none is merged in by <<, which can multiply
    without end."""

    def fetch_flow_collection_start(self, token):
        if self.flow_level > 20:
            raise yaml.YAMLError("it is nested too deeply")
        super().fetch_flow_collection_start(token)

    def construct_mapping(self, node, deep=False):
        names = [str(key.value) for key, _ in node.value]
        if "<<" in names or len(set(names)) < len(names):
            raise yaml.YAMLError(f"a name is there twice, or <<: {', '.join(sorted(names))}")
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
        config = _parsed(Path(config))
    shared = _names_and_values("config", config)
    size = shared.pop("group_size", 8)
    arms, notebooks = shared.pop("arms", [{}]), shared.pop("notebooks", ["04_analysis"])
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InputError(f"group_size: got {shown(size)}; allowed: a whole number from 1")
    if not isinstance(arms, list):
        raise InputError(f"arms: got {shown(arms)}; allowed: a list of settings")
    experiments = []
    for arm in arms:
        values = shared | _names_and_values("arms", arm)
        lists = [v if isinstance(v, list) and k != "seeds" else [v] for k, v in values.items()]
        if len(experiments) + prod(map(len, lists)) > MOST_GROUPS:
            raise InputError(f"arms: got too many; allowed: {MOST_GROUPS} groups in a study")
        experiments += [Settings(**dict(zip(values, one))) for one in product(*lists)]
    if not experiments:
        raise InputError(f"config: got {shown(config)}; allowed: a value of each setting, or more")
    arm_names = Counter((one.study, one.arm) for one in experiments)
    for (study, arm), count in arm_names.items():
        if count > 1 or study != experiments[0].study:
            raise InputError(
                f"arms: {study} {arm} is there {count} times; allowed: each once, in one study; "
                "give arms that differ in other settings a variant"
            )
    if sum(len(one.seeds) / size for one in experiments) > MOST_GROUPS:
        raise InputError(f"seeds: got too many; allowed: {MOST_GROUPS} groups in a study")
    groups = [
        one.model_copy(update={"seeds": one.seeds[first : first + size]})
        for one in experiments
        for first in range(0, len(one.seeds), size)
    ]
    for group in groups:
        _same_settings(group)
    return Config(experiments[0].study, groups, _analyses(notebooks))


def _parsed(path: Path):
    try:
        if not path.is_file():  # a folder, or what would never end: a pipe, a device
            raise OSError("there is no such file")
        if path.stat().st_size > MOST_BYTES:
            raise OSError(f"more than {MOST_BYTES} bytes")
        return _Once(path.read_text()).get_single_data()
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        why = str(error).splitlines()[0]
    except RecursionError:
        why = "it is nested too deeply"
    raise InputError(f"config: {path} cannot be read ({why}); allowed: a YAML file")


def _names_and_values(parameter: str, got) -> dict:
    if not isinstance(got, dict) or not all(isinstance(name, str) for name in got):
        raise InputError(
            f"{parameter}: got {shown(got)}; allowed: names of settings with their values"
        )
    return dict(got)


def _same_settings(group: Settings) -> None:
    """Raise InputError when the tables of a group are there, of networks with other seeds or
    settings."""
    path = runs.group_folder(group) / "runs.csv"
    if not path.is_file():
        return
    there = runs.read_table(path, runs.KEYS)
    seeds = list(there["seed"])
    if set(seeds) != set(group.seeds):
        raise InputError(
            f"seeds: got {group.group}, but the networks of {path.parent} are "
            f"{', '.join(map(str, seeds))}; delete that folder"
        )
    group.refuse_other(there.iloc[0].to_dict(), path.parent)


def _analyses(names) -> list[str]:
    every = sorted(path.stem for path in (data.ROOT / "notebooks").glob("*.ipynb"))
    allowed = dict.fromkeys(name for name in every if name[:2] not in ("01", "02", "03", "10"))
    if not isinstance(names, list) or len({*map(str, names)}) < len(names):
        raise InputError(
            f"notebooks: got {shown(names)}; allowed: a list of {', '.join(allowed)}, each once"
        )
    for name in names:
        lookup(allowed, "notebooks", name)
    return names


if __name__ == "__main__":  # python -m modvar_lib.config FILE: the study's folder
    from modvar_lib.notebook import own_code

    def _folder() -> None:
        own_code()
        if len(sys.argv) != 2:
            raise InputError(f"config: got {sys.argv[1:]}; allowed: one file")
        print(os.path.relpath(runs.study_folder(read_config(sys.argv[1]).study)))

    command(_folder)
