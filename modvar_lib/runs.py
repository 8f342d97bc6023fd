"""A finished run on disk: results/<study>/runs/<dataset>-<architecture>-<regime>[-<variant>]/seed-000/, complete or absent.

settings.json       what determines the run, the seed included
history.csv         a row an epoch (columns: see training.train)
weights.safetensors the final weights
provenance.json     git commit, versions, hardware, threads, seconds, checksums of data, code and these files
frames.safetensors  where `frames` asked for them: weights from within training, "<epochs done>/<name>", float16
"""

import inspect
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import pandas as pd
import torch
import yaml
from pandas.api.types import is_numeric_dtype
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from modvar_lib import data, files, goals, models, streams, training
from modvar_lib.checkpoints import Checkpoints
from modvar_lib.errors import InputError
from modvar_lib.settings import Settings
from modvar_lib.training import Trained

FILES = ("settings.json", "history.csv", "weights.safetensors", "provenance.json")
KEYS = [
    "dataset",
    "architecture",
    "regime",
    "variant",
    "seed",
]  # the columns that name a run in every table
SMALL = 1_000_000  # bytes that settings.json or provenance.json may have
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scipy")


@dataclass(frozen=True)
class Run:
    """A run read back from disk."""

    path: Path
    settings: dict
    history: pd.DataFrame
    weights: dict[str, Tensor]
    provenance: dict

    @property
    def key(self) -> dict:
        return {name: self.settings[name] for name in KEYS}

    @cached_property
    def frames(self) -> dict[int, dict[str, Tensor]]:
        """Weights that were kept from within training, in float16: {epochs done: {name: tensor}}, in order; often none."""
        path, sums = self.path / "frames.safetensors", self.path / "provenance.json"
        if not path.exists():
            return {}
        found: dict[int, dict[str, Tensor]] = {}
        try:
            size = sum(weight.numel() for weight in self.weights.values())
            content = files.read(path, SMALL + 2 * (size + 1000) * self.settings["epochs"])
            _compare(content, _object(files.read(sums, SMALL)).get("files", {}).get(path.name))
            for name, tensor in safetensors.load(content).items():
                done, weight = name.split("/")
                if tensor.shape != self.weights[weight].shape:
                    raise ValueError(f"{name} has the shape {tuple(tensor.shape)}")
                found.setdefault(int(done), {})[weight] = tensor
            if any(frame.keys() != self.weights.keys() for frame in found.values()):
                raise ValueError("a frame is not whole")
        except (ValueError, KeyError, SafetensorError) as error:
            raise InputError(
                f"run: {path} is damaged ({error}); delete it, or the folder and train again"
            ) from None
        return dict(sorted(found.items()))

    def network(self, epochs: int | None = None) -> torch.nn.Module:
        """The trained network, on the CPU; or as it was after so many epochs: 0, or one of `frames`."""
        network = network_of(self.settings)
        if epochs in (None, self.settings["epochs"]):
            network.load_state_dict(self.weights)
        elif epochs in self.frames:
            network.load_state_dict(self.frames[epochs])
        elif epochs:
            raise InputError(
                f"epochs: got {epochs}; kept of {self.path.name}: {[0, *self.frames, self.settings['epochs']]}"
            )
        return network.eval()


def network_of(run: dict) -> torch.nn.Module:
    """The network of a run with these settings, before training; one line of error if its regime or architecture is not right."""
    schedule = Settings(**{k: v for k, v in run.items() if k != "seed"}, seeds=run["seed"])
    goal = goals.REGIMES[schedule.regime](0, run["seed"], schedule)
    goals.check(schedule.regime, goal)
    network = models.initial(schedule.architecture, run["seed"], goals.outputs(goal))
    models.check(schedule.architecture, network, goals.outputs(goal))
    return network


def primary() -> dict:
    """What config/primary.yaml declares: the primary measure, the bound for a failed run, the original's values."""
    return yaml.safe_load((data.ROOT / "config" / "primary.yaml").read_text())


def table(study: str, name: str) -> pd.DataFrame:
    """One of a study's tables, such as measures.csv; one line of error when it is not there, empty, or not what was written."""
    path = study_folder(study) / name
    if not path.is_file():
        raise InputError(
            f"study: {study!r} has no {path}; measure its runs first, with 03_metric.ipynb"
        )
    try:
        found = files.read_table(path)
        if absent := [key for key in KEYS if key not in found]:
            raise ValueError(f"it has no column {absent[0]}")
        for name in found.select_dtypes(exclude="number"):
            for text in found[name].dropna().unique():
                if re.search(r"[<>\x00-\x1f]", str(text)):
                    raise ValueError(
                        f"in {name} it has {text!r}, with signs that no table of ours has"
                    )
        rows = [
            *KEYS,
            *found.columns.intersection(["epoch", "layer", "unit", "side", "measure", "copy"]),
        ]
        if found.duplicated(rows).any():
            raise ValueError("it has the same row of the same run twice")
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"study: {path} is damaged ({error}); delete it and run 03_metric.ipynb again"
        ) from None
    if found.empty:
        raise InputError(
            f"study: {path} has no rows; measure some runs first, with 03_metric.ipynb"
        )
    return found


def final(history: pd.DataFrame, of: str = "sum_r2") -> pd.DataFrame:
    """The last epoch of every run in a table of histories, with `failed`: its R² (`sum_r2` on x + y; `test_r2` on the goal of
    that epoch) is below the declared bound, or not a number."""
    last = history.groupby(KEYS, as_index=False).tail(1)
    return last.assign(failed=~(last[of] >= primary()["failed_below"]))


def write(table: pd.DataFrame, study: str, name: str, **options) -> None:
    """Write one of a study's tables, whole or not at all. Options are those of `to_csv`."""
    files.write_table(table, study_folder(study) / name, **options)


def need(measures: pd.DataFrame, notebook: str, arms: list[str]) -> None:
    """One line of error unless a table of measures has these arms, each `architecture regime`."""
    have = set(measures["architecture"] + " " + measures["regime"])
    absent = [arm for arm in arms if arm not in have]
    if absent:
        raise InputError(
            f"study: it has no networks of {', '.join(absent)}; {notebook} needs {', '.join(arms)}, as config/paper.yaml has"
        )


def study_folder(study: str) -> Path:
    """results/<study> of the project, or of $MODVAR_RESULTS."""
    Settings(study=study)  # a name, not a path to anywhere
    return Path(os.environ.get("MODVAR_RESULTS", data.ROOT / "results")) / study


def run_folder(study: str, settings: dict) -> Path:
    """Where the run with these settings belongs."""
    return study_folder(study).joinpath("runs", *_names(settings))


def save(study: str, trained: Trained, frames: dict[str, Tensor] | None = None) -> Path:
    """Write a run aside and rename it into place, so that a run is complete or absent. frames: as in frames.safetensors."""
    path = run_folder(study, trained.settings)
    content = {
        "settings.json": _json(trained.settings),
        "history.csv": trained.history.to_csv(index=False).encode(),
        "weights.safetensors": safetensors.save(trained.weights),
    }
    if frames:
        content["frames.safetensors"] = safetensors.save(frames)
    sums = {name: files.digest(what) for name, what in content.items()}
    content["provenance.json"] = _json(provenance(trained) | {"files": sums})
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        for name, what in content.items():
            files.write(aside / name, what)
        aside.chmod(0o755)
        if path.exists():  # incomplete: out of the way whole, so that it is never half there
            path.rename(aside.with_name(f"{aside.name}-old"))
        aside.rename(path)
    finally:
        for left in path.parent.glob(f"{aside.name}*"):
            shutil.rmtree(left, ignore_errors=True)
    return path


def load(path: Path) -> Run:
    """Read a run and check it; one line of error that names the file when it is missing or damaged."""
    for name in FILES:
        if not (path / name).is_file():
            raise InputError(
                f"run: {path / name} is missing; allowed: a complete run; delete the folder and train again"
            )
    try:
        name = "provenance.json"
        origin = _object(files.read(path / name, SMALL))
        sums = origin.pop("files", {})  # runs of before there were any have none
        name = "settings.json"
        content = files.read(path / name, SMALL)
        settings = _object(content)
        _compare(content, sums.get(name))
        seed = settings.pop("seed")
        checked = Settings(**settings, seeds=seed).of_run(seed)
        if (path.parent.name, path.name) != _names(checked):
            raise ValueError(f"it belongs in {'/'.join(_names(checked))}")
        name = "history.csv"
        content = files.read(path / name, SMALL + 1000 * checked["epochs"])
        history = pd.read_csv(BytesIO(content))
        _compare(content, sums.get(name))
        if list(history) != training.COLUMNS or not all(map(is_numeric_dtype, history.dtypes)):
            raise ValueError(f"it has not the columns {', '.join(training.COLUMNS)}, all numbers")
        if len(history) != checked["epochs"] or (history["epoch"] != history.index).any():
            raise ValueError("its epochs are not 0 to epochs - 1")
        name = "weights.safetensors"
        untrained = network_of(checked)
        numbers = sum(p.numel() for p in untrained.parameters())
        content = files.read(path / name, SMALL + 8 * numbers)
        run = Run(path, checked, history, safetensors.load(content), origin)
        _compare(content, sums.get(name))
        untrained.load_state_dict(run.weights)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        SafetensorError,
    ) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        own = why.startswith(("architecture: got", "regime: got"))
        mend = "if that is of your own, set MODVAR_OWN to its file; else " if own else ""
        raise InputError(
            f"run: {path / name} is damaged ({why}); {mend}delete the folder and train again"
        ) from None
    return run


def paths(study: str) -> list[Path]:
    """The folders of all runs of a study; one line of error when there are none."""
    found = sorted((study_folder(study) / "runs").glob("*/seed-*"))
    if not found:
        raise InputError(
            f"study: {study!r} has no runs in {study_folder(study)}; train some first, with 02_train.ipynb"
        )
    return found


def tables(study: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All runs of a study as two tidy tables: a row a run (settings and provenance), and a row an epoch of a run (history)."""
    about, histories = [], []
    for run in map(load, paths(study)):  # one after the other: their weights are not kept
        origin = run.provenance | {"data": _short(run.provenance.get("data"))}
        about.append(pd.DataFrame([run.settings]).join(pd.json_normalize(origin)))
        histories.append(run.history.assign(**run.key)[[*KEYS, *run.history.columns]])
    return pd.concat(about, ignore_index=True), pd.concat(histories, ignore_index=True)


def mixed(about: pd.DataFrame) -> list[str]:
    """What runs in a table of runs should have in common and have not, a line each: code, versions, data, hardware. An arm whose
    runs were trained with different settings is an error: no mean over them would mean anything."""
    for name in about.columns.intersection(list(Settings().of_run(0))).difference(KEYS):
        for arm, values in about.groupby(KEYS[:-1])[name]:
            if values.nunique(dropna=False) > 1:
                which = {v: about.loc[s.index, "seed"] for v, s in values.groupby(values)}
                said = " and ".join(f"{v} (seeds {_few(s)})" for v, s in which.items())
                raise InputError(
                    f"{name}: {' '.join(arm)} has {said}; allowed: one value an arm; give one of them a variant or another study"
                )
    commit = about.get("git.commit", pd.Series(None, about.index)).astype(str).str[:7]
    full = about["code"].fillna(commit) if "code" in about else commit
    one_own = full.groupby([about[key] for key in KEYS[:-1]]).transform("nunique") == 1
    about = about.assign(code=full.where(~one_own, full.str.split("+").str[0]))
    one = ["code", "data", "device", "cpu", "gpu", *about.filter(like="versions.")]
    lines = []
    for name in about.columns.intersection(one):
        values = about[name].astype(object).fillna("none").astype(str)
        if values.nunique() > 1:
            parts = [
                f"{value} ({len(rows)} runs, of {_few(rows['architecture'] + ' ' + rows['regime'])})"
                for value, rows in about.groupby(values)
            ]
            lines.append(f"mixed {name}: {'; '.join(parts)}")
    return lines


def complete(settings: Settings) -> list[Run]:
    """The runs of all seeds: those that are missing are trained and saved first. A training that was killed goes on from its
    checkpoints; while another process trains one of the seeds, this one waits, and then finds it done.

    >>> sizes = {"epochs": 1, "final_epochs": 0, "pairs_per_epoch": 256, "test_pairs": 100, "device": "cpu"}
    >>> settings = Settings(study="example", regime="varying", seeds="0-1", **sizes)
    >>> run, _ = complete(settings)  # doctest: +ELLIPSIS
    MNIST mlp varying, 2 seeds: epoch 1/1, ...
    >>> run.key["regime"], len(run.history), load(run.path).network()(torch.zeros(1, 2, 28, 28)).shape
    ('varying', 1, torch.Size([1, 1]))
    """
    arm, _ = _names(settings.of_run(0))
    folder = study_folder(settings.study) / "checkpoints" / arm
    if missing(settings) or folder.exists():
        network_of(settings.of_run(settings.seeds[0]))
        splits = data.digits(settings.dataset)
        waiting = (
            f"{settings.study} {arm}: another process trains some of these seeds; waiting for it"
        )
        with files.locked(folder.with_name(f"{arm}.lock"), settings.seeds, waiting):
            for stale in _stale(settings):
                shutil.rmtree(stale)
            todo = missing(settings)
            checkpoints = Checkpoints(folder, settings, code(settings))
            if todo:
                own = settings.model_copy(update={"seeds": todo})
                for trained in training.train(own, splits, checkpoints):
                    save(settings.study, trained, checkpoints.frames(trained.settings["seed"]))
            checkpoints.clear()
    return [load(run_folder(settings.study, settings.of_run(seed))) for seed in settings.seeds]


def _stale(settings: Settings) -> Iterator[Path]:
    """What a killed process left of runs it was writing."""
    for seed in settings.seeds:
        path = run_folder(settings.study, settings.of_run(seed))
        yield from path.parent.glob(f".{path.name}-*")


def code(settings: Settings | dict) -> str:
    """What the code that trains is known by: a checksum; after a +, that of an architecture or regime of one's own."""
    run = settings if isinstance(settings, dict) else settings.of_run(0)
    used = models.ARCHITECTURES[run["architecture"]], goals.REGIMES[run["regime"]]
    own = [one for one in used if not one.__module__.startswith("modvar_lib")]
    ours = fingerprint([streams, goals, data, models, training])
    return f"{ours}+{fingerprint([], own)}" if own else ours


def fingerprint(modules, own=()) -> str:
    """Of the sources of modules, and of functions and classes of one's own outside of them."""
    sources = [inspect.getsource(module) for module in modules]
    for one in own:
        try:
            sources.append(inspect.getsource(one))
        except (OSError, TypeError):  # made without a source, as doses are
            sources.append(one.__qualname__)
    return files.digest("".join(sources).encode())[:12]


def missing(settings: Settings) -> tuple[int, ...]:
    """The seeds that are still to be trained. A finished run made with other settings is an error, never overwritten."""
    todo = []
    for seed in settings.seeds:
        wanted = settings.of_run(seed)
        path = run_folder(settings.study, wanted)
        if not all(
            (path / name).is_file() for name in FILES
        ):  # absent, or emptied by hand: train it
            todo.append(seed)
            continue
        for name, value in load(path).settings.items():
            if value != wanted[name]:
                raise InputError(
                    f"{name}: got {wanted[name]!r}, but {path} was trained with {value!r}; "
                    "allowed: the same value, another study, or delete that folder"
                )
    return tuple(todo)


def provenance(trained: Trained) -> dict:
    """Where a run came from."""
    gpu = torch.cuda.get_device_name() if trained.device.startswith("cuda") else None
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _git(),
        "code": code(trained.settings),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "device": trained.device,
        "cpu": _cpu(),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "group_size": trained.group_size,
        "group_seconds": round(trained.seconds, 1),
        "data": data.checksums(trained.settings["dataset"]),
    }


def _git() -> dict | None:
    def ask(*words):
        return subprocess.run(
            ["git", "-C", data.ROOT, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _names(settings: dict) -> tuple[str, str]:
    parts = [settings[name] for name in ("dataset", "architecture", "regime", "variant")]
    return "-".join(parts[: 3 if parts[3] == "default" else 4]), f"seed-{settings['seed']:03d}"


def _object(content: bytes) -> dict:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def _json(value: dict) -> bytes:
    return f"{json.dumps(value, indent=2)}\n".encode()


def _compare(content: bytes, wanted: str | None) -> None:
    if wanted not in (None, files.digest(content)):
        raise ValueError("its SHA-256 is not the one in provenance.json")


def _short(sums: dict | None) -> str | None:
    """One checksum for several."""
    return files.digest(_json(sums))[:12] if sums else None


def _few(values: pd.Series) -> str:
    found = values.astype(str).unique()
    return ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
