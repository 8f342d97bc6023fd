"""Networks and groups on disk, each whole or absent.

results/<study>/runs/<dataset>-<architecture>-<regime>[-<variant>]/seed-000/, a network:

settings.json       what determines it, the seed included
history.csv         a row per epoch (columns: see training.train)
weights.safetensors the final weights
provenance.json     git commit, versions, hardware, threads, seconds, checksums of the data
frames.safetensors  where `frames` asked for them: weights from within training, "<epochs
                    done>/<name>", float16

results/<study>/groups/<the same>/<first seed>-<last seed>/, what is published of networks that were
trained together: their tables (see study.py), and their final weights, "<seed>/<name>", float16.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from errno import EEXIST, ENOTEMPTY
from functools import cache
from glob import escape
from importlib.metadata import version
from itertools import count
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from modvar_lib import data, goals, models, training
from modvar_lib.errors import InputError, command, reading
from modvar_lib.settings import Settings
from modvar_lib.training import Trained

KEYS = ["dataset", "architecture", "regime", "variant", "seed"]  # name a network in every table
TEXT = {*KEYS[:-1], "copy", "layer", "place", "side", "measure", "note"}  # columns with text
TABLES = ("runs.csv", "history.csv", "measures.csv", "training.csv")  # of a group; last: if frames
ALONE = ("01_data", "11_positive_control")  # analyses that read no groups
FILES = ("settings.json", "history.csv", "weights.safetensors", "provenance.json")
FRAMES = "frames.safetensors"


@dataclass(frozen=True)
class Run:
    """A network read back from disk. frames: weights that were kept from within training, {epochs
    done: {name: float16 tensor}}, in order; often none."""

    path: Path
    settings: Settings
    history: pd.DataFrame
    weights: dict[str, Tensor]
    provenance: dict
    frames: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def key(self) -> dict:
        """What names it in a table."""
        return {**self.settings.model_dump(include=set(KEYS)), "seed": self.settings.seed}

    def network(self, epochs: int | None = None) -> torch.nn.Module:
        """The trained network, on the CPU; or as it was after so many epochs: 0, or one of
        `frames`."""
        one = self.settings
        outputs = goals.outputs(goals.goal(one.regime, 0, one.seed, one))
        network = models.initial(one.architecture, one.seed, outputs)
        kept = {0: network.state_dict(), **self.frames, one.epochs: self.weights}
        if epochs is not None and epochs not in kept:
            raise InputError(f"epochs: got {epochs}; kept of {self.path.name}: {[*kept]}")
        network.load_state_dict(kept[one.epochs if epochs is None else epochs])
        return network.eval()


def study_folder(study: str) -> Path:
    """results/<study> of the project, or of $MODVAR_RESULTS."""
    Settings(study=study)  # a name, not a path to anywhere
    return inside(data.folder("MODVAR_RESULTS", "results") / study)


@cache
def inside(folder: Path) -> Path:
    """The folder, unless a link in it, or itself, leads out of it: nothing is read, written or
    deleted through such a link."""
    for link in (path for path in [folder, *folder.rglob("*")] if path.is_symlink()):
        if not link.resolve().is_relative_to(folder.parent.resolve() / folder.name):
            raise InputError(f"study: {link} is a link out of {folder}; allowed: what is in it")
    return folder


def run_folder(settings: Settings) -> Path:
    """Where the network with these settings, of one seed, belongs."""
    return study_folder(settings.study) / "runs" / settings.arm / f"seed-{settings.seed:03d}"


def group_folder(settings: Settings) -> Path:
    """Where the tables of the networks with these settings belong."""
    return study_folder(settings.study) / "groups" / settings.arm / settings.group


def complete(settings: Settings) -> list[Run]:
    """The networks of all seeds: those that are missing are trained and saved first. A finished
    network with other settings is an error, never overwritten.

    >>> sizes = {"epochs": 1, "pairs_per_epoch": 256, "test_pairs": 100, "device": "cpu"}
    >>> run, _ = complete(Settings(study="example", regime="varying", seeds="0-1", **sizes))
    >>> run.key["regime"], len(run.history), run.network()(torch.zeros(1, 2, 28, 28)).shape
    ('varying', 1, torch.Size([1, 1]))
    """
    absent = missing(settings)
    networks = trained(settings.of(tuple(s for s in settings.seeds if s not in absent)))
    if not absent:
        return networks
    for path in group_folder(settings).parent.glob("*/runs.csv"):
        if twice := {*absent} & {*read_table(path, KEYS)["seed"]}:
            raise InputError(
                f"study: {path.parent} has seed {min(twice)} already; allowed: another study, or "
                "delete that folder"
            )
    save(training.train(settings.of(absent), data.digits(settings.dataset)))
    return trained(settings)  # another process may have been sooner


def missing(settings: Settings) -> tuple[int, ...]:
    """The seeds that are still to be trained: their folder is absent, or emptied by hand."""
    return tuple(run.seed for run in settings.runs() if not _has(run_folder(run), FILES))


def trained(settings: Settings, named: bool = False) -> list[Run]:
    """The networks as they are on disk. named: the settings are those of the first, found by its
    name, not those that were asked for. Errors: InputError."""
    networks = [load(run_folder(run), run.study) for run in settings.runs()]
    for network in networks:
        asked = networks[0].settings if named else settings
        asked.refuse_other(network.settings.saved(), network.path)
        if training.kept_epochs(settings) and not network.frames:
            raise InputError(
                f"frames: got {settings.frames}, but none were kept of {network.path}; allowed: 0, "
                "another study or variant, or delete that folder"
            )
    return networks


def lacks(settings: Settings) -> list[str]:
    """The tables that a group still lacks: none of a whole one. Errors: InputError where a part of
    them is there and its networks are not, so that only training others could bring the rest."""
    folder, names = group_folder(settings), TABLES[: None if training.kept_epochs(settings) else -1]
    absent = [name for name in names if not (folder / name).is_file()]
    if 0 < len(absent) < len(names) and missing(settings):
        raise InputError(
            f"study: {folder} lacks {', '.join(absent)}, and its networks are not here to be measured "
            "again; restore the file, or delete the folder to train the group anew"
        )
    return absent


def digest(study: str, notebook: str) -> str:
    """Of what an analysis depends on: the notebook, the library's analysis shelf, what is declared,
    and the tables of all groups. SHA-256, 64 letters."""
    root, groups = data.ROOT, study_folder(study) / "groups"
    paths = [root / "notebooks" / f"{notebook}.ipynb", root / "config" / "primary.yaml"]
    paths += sorted((root / "modvar_lib" / "analysis").glob("*.py"))
    tables = [] if notebook in ALONE else sorted(groups.glob("*/*/*.csv"))
    whole = hashlib.sha256()
    for folder, path in [*((root, one) for one in paths), *((groups, one) for one in tables)]:
        whole.update(path.relative_to(folder).as_posix().encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def save(networks: list[Trained]) -> list[Path]:
    """Write networks, all or none, each whole or absent; their folders."""
    folders = [run_folder(network.settings) for network in networks]
    with ExitStack() as stack:
        for network, path in zip(networks, folders):
            aside = stack.enter_context(whole(path, FILES))
            write(aside / "settings.json", _json(network.settings.saved()))
            write_table(network.history, aside / "history.csv")
            write(aside / "weights.safetensors", to_bytes(network.weights))
            write(aside / "provenance.json", _json(provenance(network)))
            if network.frames:
                write(aside / FRAMES, to_bytes(_prefixed(network.frames)))
    return folders


def save_group(settings: Settings, networks: list[Run], tables: dict[str, pd.DataFrame]) -> Path:
    """Write a group, whole or not at all: its tables, to 8 significant digits, and the final
    weights of its networks, float16; its folder."""
    weights = _prefixed({run.settings.seed: run.weights for run in networks})
    named = {"arm": settings.arm, "group": settings.group}
    with whole(group_folder(settings)) as aside:
        for name, table in tables.items():
            write_table(table, aside / f"{name}.csv", float_format="%.8g")
        halved = {name: weight.half() for name, weight in weights.items()}
        write(aside / "weights.safetensors", to_bytes(halved, metadata=named))
    return group_folder(settings)


def _prefixed(parts: dict[int, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{key}/{name}": w for key, part in parts.items() for name, w in part.items()}


def _parts(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Undo `_prefixed`; keys in order."""
    parts = {}
    for key, tensor in tensors.items():
        number, name = key.split("/")
        parts.setdefault(int(number), {})[name] = tensor
    return dict(sorted(parts.items()))


@contextmanager
def whole(path: Path, sooner: tuple[str, ...] = ()) -> Generator[Path, None, None]:
    """A folder to write into. It takes the place of `path` when all is well, and is deleted when
    not: at any moment, also with several writers, what lies there was written by one of them. A
    folder that is there and has the files `sooner` stays."""
    with _aside(path) as aside:
        aside.mkdir()
        yield aside
        for turn in count():
            try:
                aside.rename(path)
                return
            except OSError as error:
                if error.errno not in (EEXIST, ENOTEMPTY):
                    raise
            if sooner and _has(path, sooner):
                return
            with suppress(FileNotFoundError):  # another writer did the same
                path.rename(f"{aside}-{turn}")  # not removed in place: a kill would leave a part


def write(path: Path, content: bytes) -> None:
    """Write a file aside, to the disk, and rename it into place: after a kill or a full disk it is
    the old one or the new one."""
    with _aside(path) as aside:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    if stamp := os.environ.get("MODVAR_WRITTEN"):  # of the analysis that writes
        with open(stamp, "a") as file:
            file.write(f"{os.path.relpath(path)}\n")


def write_table(table: pd.DataFrame, path: Path, index: bool = False, **options) -> None:
    """Write a CSV file, whole or not at all. Options are those of `to_csv`."""
    write(path, table.to_csv(index=index, **options).encode())


@contextmanager
def _aside(path: Path) -> Generator[Path, None, None]:
    """What this process writes before it takes the place of `path`. What is left of it at the end
    is deleted, and the same of processes of this machine that were killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = f".{path.name}-{platform.node()}-"

    def clear():
        for left in path.parent.glob(f"{escape(mine)}*"):
            pid = left.name.removeprefix(mine).split("-")[0]
            if pid == str(os.getpid()) or not Path("/proc", pid).exists():
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)  # another process may be at it
                else:
                    left.unlink(missing_ok=True)

    clear()
    try:
        yield path.with_name(f"{mine}{os.getpid()}")
    finally:
        clear()


def _has(path: Path, names: tuple[str, ...]) -> bool:
    return all((path / name).is_file() for name in names)


def load(path: Path, study: str = "original") -> Run:
    """Read a network. Errors: InputError, when a file of it is missing or damaged."""
    mend = "delete it and train again, or, if it is of your own code, set MODVAR_OWN to its file"
    with reading(f"run: {path} cannot be used", mend):
        settings = Settings.of_saved(json.loads((path / "settings.json").read_text()), study)
        if (path.parent.name, path.name) != (settings.arm, f"seed-{settings.seed:03d}"):
            raise ValueError(f"it is of {settings.arm}, seed {settings.seed}")
        history = pd.read_csv(path / "history.csv", dtype=float).astype({"epoch": int})
        if list(history) != training.COLUMNS or len(history) != settings.epochs:
            raise ValueError(f"history.csv is not of {settings.epochs} epochs")
        provenance = json.loads((path / "provenance.json").read_text())
        provenance["data"]  # or it is none
        weights = load_file(path / "weights.safetensors")
        frames = _parts(load_file(path / FRAMES)) if (path / FRAMES).is_file() else {}
        run = Run(path, settings, history, weights, provenance, frames)
        for epochs in (None, *frames):
            run.network(epochs)
    return run


def published(study: str, **where) -> Iterator[Run]:
    """Networks whose weights are kept with the tables of their group; of their training there is
    the history, and no frames. Of the study's folder, or, where there is none, of the project's
    own. Errors: InputError, for a file that is damaged or of other networks.

    where: settings that they have, each a value or a list of values."""
    folder = study_folder(study)
    folder = folder if folder.exists() else data.ROOT / "results" / study
    for path in sorted((folder / "groups").glob("*/*/weights.safetensors")):
        with reading(f"study: {path} cannot be used", "restore it"):
            rows = read_table(path.with_name("runs.csv"), KEYS)
            for name, value in where.items():
                rows = rows.loc[rows[name].isin(value if isinstance(value, list) else [value])]
            if rows.empty:
                continue
            with safe_open(path, "pt") as file:
                if file.metadata() != {"arm": path.parts[-3], "group": path.parts[-2]}:
                    raise ValueError(f"it is of {file.metadata()}")
            every = pd.read_csv(path.with_name("history.csv")).groupby("seed")
            weights = _parts(load_file(path))
            for row in rows.to_dict("records"):
                settings = Settings.of_saved(row, study)
                history = every.get_group(settings.seed)[training.COLUMNS].reset_index(drop=True)
                run = Run(path.parent, settings, history, weights[settings.seed], row)
                run.network()
                yield run


def read_table(path: Path, keys: list[str], others: list[str] | tuple[()] = ()) -> pd.DataFrame:
    """A table of a group; keys: columns that tell its rows apart, others: more that it must have.
    Errors: InputError, when it is damaged or of another arm."""
    with reading(f"study: {path} is damaged", "restore or delete its group"):
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXT, str),
            keep_default_na=False,
            na_values=[""],
            low_memory=False,
        )
        if table.empty:
            raise ValueError("it has no rows")
        for name in (*keys, *others):
            if name not in table:
                raise ValueError(f"it has no column {name}")
            if name not in TEXT and not pd.api.types.is_numeric_dtype(table[name]):
                raise ValueError(f"{name} has text where numbers belong")
        if not path.read_bytes().endswith(b"\n") or table[keys].isna().any(axis=None):
            raise ValueError("a line is cut short")
        arms = table[KEYS[:-1]].drop_duplicates().agg("-".join, axis=1)
        names = [arm.removesuffix("-default") for arm in arms]
        if names != [path.parent.parent.name] or not re.fullmatch(r"[\w.-]+", names[0]):
            raise ValueError(f"it is of {' and '.join(names)}")
    return table.fillna({"note": ""})


def paths(study: str) -> list[Path]:
    """The folders of all networks of a study. Errors: InputError when there are none."""
    if folders := sorted((folder := study_folder(study)).glob("runs/*/seed-*")):
        return folders
    raise InputError(f"study: {study!r} has no networks in {folder}; train some, with 02_train")


def processor() -> str:
    """Its name and how many cores it has."""
    cpus = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    model = re.search(r"model name\s*: (.*)", cpus)
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores"


def provenance(trained: Trained) -> dict:
    """Where a network came from."""
    git = ["git", "-C", data.ROOT, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    said = subprocess.run(git, capture_output=True, text=True).stdout if shutil.which("git") else ""
    commit, dirty, _ = said.strip().partition("-dirty")
    packages = ("torch", "torchvision", "numpy", "pandas", "scipy")
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": {"commit": commit, "dirty": bool(dirty)} if commit else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "device": trained.device,
        "cpu": processor(),
        "gpu": torch.cuda.get_device_name() if trained.device.startswith("cuda") else None,
        "threads": torch.get_num_threads(),
        "group_size": trained.group_size,
        "group_seconds": round(trained.seconds, 1),
        "data": data.checksums(trained.settings.dataset),
    }


def tables(networks: list[Run]) -> dict[str, pd.DataFrame]:
    """What is known of networks before they are measured: `runs`, settings and provenance, and
    `history`, a row per epoch."""
    rows, histories = [], []
    for run in networks:
        origin = {name: value for name, value in run.provenance.items() if name != "files"}
        origin["data"] = hashlib.sha256(_json(origin["data"])).hexdigest()[:12]  # one for all files
        rows.append(pd.DataFrame([run.settings.saved()]).join(pd.json_normalize(origin)))
        histories.append(run.history.assign(**run.key)[[*KEYS, *run.history.columns]])
    parts = {"runs": rows, "history": histories}
    return {name: pd.concat(part, ignore_index=True) for name, part in parts.items()}


def _json(value: dict) -> bytes:
    return f"{json.dumps(value, indent=2)}\n".encode()


if __name__ == "__main__":
    about = "Print the digest of what an analysis of a study depends on."
    command(lambda *of: print(digest(*of)), "study", "notebook", about=about)
