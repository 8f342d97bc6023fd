"""A config file: which networks a study has, in groups, and which notebooks analyse them.

A group is the seeds of one arm that one job trains (02_train) and measures (03_metric).
"""

import os
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from modvar_lib import data, runs
from modvar_lib.errors import InputError, command, lookup, reading
from modvar_lib.settings import Settings, input_error

MOST_BYTES = 100_000  # of a file; reading YAML takes a second for so many
MOST_GROUPS = 100_000


@dataclass(frozen=True)
class Config:
    """What a config file asks for. groups: the settings of each; notebooks: names of those that
    analyse the study."""

    study: str
    groups: list[Settings]
    notebooks: list[str]


class _File(BaseModel):
    """Its own names; all others are settings."""

    model_config = ConfigDict(extra="allow")
    group_size: PositiveInt = 8
    arms: list[dict[str, Any]] = [{}]
    notebooks: list[str] = ["04_analysis"]


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a name stands once, and only text and numbers are repeated by an alias:
    lists of aliases of lists would grow without end."""

    def fetch_flow_collection_start(self, TokenClass):
        if self.flow_level > 20:
            raise yaml.YAMLError("it is nested too deeply")
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent, index):
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and not isinstance(node, yaml.ScalarNode):
            raise yaml.YAMLError("an alias of a list or of names with values")
        return node

    def construct_mapping(self, node, deep=False):
        names = sorted(str(key.value) for key, _ in node.value)
        if len(set(names)) < len(names):
            raise yaml.YAMLError(f"a name is there twice: {', '.join(names)}")
        return super().construct_mapping(node, deep)


def read_config(config: Path | str | dict) -> Config:
    """A config file: settings that all arms share, of which any but seeds may be a list,
    `group_size`, and, if it likes, `arms`, each with settings of its own on top, and `notebooks`.
    Lists are crossed. Errors: InputError.

    >>> config = read_config({"seeds": "0-3", "group_size": 2, "regime": ["fixed", "varying"]})
    >>> [(group.regime, group.group) for group in config.groups]
    [('fixed', '000-001'), ('fixed', '002-003'), ('varying', '000-001'), ('varying', '002-003')]
    """
    try:
        asked = _File.model_validate(config if isinstance(config, dict) else _parsed(Path(config)))
    except ValidationError as error:
        raise input_error(error) from None
    arms, groups, size = set(), [], asked.group_size
    too_many = InputError(f"arms: got too many; allowed: {MOST_GROUPS} groups in a study")
    for arm in asked.arms:
        values = (asked.model_extra or {}) | arm
        lists = [v if isinstance(v, list) and k != "seeds" else [v] for k, v in values.items()]
        if prod(map(len, lists)) > MOST_GROUPS:
            raise too_many
        for one in product(*lists):
            settings = Settings(**dict(zip(values, one)))
            if settings.arm in arms or (groups and settings.study != groups[0].study):
                raise InputError(
                    f"arms: got {settings.study} {settings.arm} again, or in another study; "
                    "allowed: each once, in one study; give arms that differ in other settings a "
                    "variant"
                )
            arms.add(settings.arm)
            starts = range(0, len(settings.seeds), size)
            if len(groups) + len(starts) > MOST_GROUPS:
                raise too_many
            groups += [settings.of(settings.seeds[first : first + size]) for first in starts]
    if not groups:
        raise InputError("config: got no arm; allowed: a value of each setting, or more")
    for group in groups:
        _same_settings(group)
    every = sorted(path.stem for path in (data.ROOT / "notebooks").glob("*.ipynb"))
    analyses = dict.fromkeys(name for name in every if name[:2] not in ("01", "02", "03", "10"))
    for name in asked.notebooks:
        lookup(analyses, "notebooks", name)
    return Config(groups[0].study, groups, list(dict.fromkeys(asked.notebooks)))


def _parsed(path: Path) -> dict:
    with reading(f"config: {path} cannot be read", "allowed: a YAML file"):
        if not path.is_file():  # a folder, or what would never end: a pipe, a device
            raise ValueError("there is no such file")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        names = _Loader(path.read_text()).get_single_data()
        if not isinstance(names, dict):
            raise ValueError("it has no names with values")
        return names


def _same_settings(group: Settings) -> None:
    """Raise InputError when the tables of a group are there, of networks with other seeds or
    settings."""
    path = runs.group_folder(group) / "runs.csv"
    if not path.is_file():
        return
    there = runs.read_table(path, runs.KEYS)
    if set(there["seed"]) != set(group.seeds):
        raise InputError(
            f"seeds: got {group.group}, but the networks of {path.parent} are "
            f"{', '.join(map(str, there['seed']))}; delete that folder"
        )
    group.refuse_other(there.iloc[0].to_dict(), path.parent)


def _folder(config: str) -> None:
    from modvar_lib.notebook import own_code

    own_code()
    print(os.path.relpath(runs.study_folder(read_config(config).study)))


if __name__ == "__main__":
    command(_folder, "config", about="Print the folder of the study that a config file describes.")
