"""A finished run on disk: results/<study>/runs/<dataset>-<architecture>-<regime>[-<variant>]/seed-000/, complete or absent.

settings.json       what determines the run, the seed included
history.csv         a row an epoch (columns: see training.train)
weights.safetensors the final weights
provenance.json     git commit, versions, hardware, threads, seconds, checksums of the data
"""

import json
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from modvar_lib import data, goals, models
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

    def network(self) -> torch.nn.Module:
        """The trained network, on the CPU."""
        seed = self.settings["seed"]
        schedule = Settings(**{k: v for k, v in self.settings.items() if k != "seed"}, seeds=seed)
        outputs = goals.outputs(goals.REGIMES[schedule.regime](0, seed, schedule))
        network = models.initial(schedule.architecture, seed, outputs)
        network.load_state_dict(self.weights)
        return network.eval()


def primary() -> dict:
    """What config/primary.yaml declares: the primary measure, the bound for a failed run, the original's values."""
    return yaml.safe_load((data.ROOT / "config" / "primary.yaml").read_text())


def table(study: str, name: str) -> pd.DataFrame:
    """One of a study's tables, such as measures.csv; one line of error when it is not there or empty."""
    path = study_folder(study) / name
    if not path.is_file():
        raise InputError(
            f"study: {study!r} has no {path}; measure its runs first, with 03_metric.ipynb"
        )
    try:
        found = pd.read_csv(path, low_memory=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"study: {path} cannot be read ({error}); delete it and run 03_metric.ipynb again"
        ) from None
    if found.empty:
        raise InputError(
            f"study: {path} has no rows; measure some runs first, with 03_metric.ipynb"
        )
    return found


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
    return Path(os.environ.get("MODVAR_RESULTS", data.ROOT / "results")) / study


def run_folder(study: str, settings: dict) -> Path:
    """Where the run with these settings belongs."""
    return study_folder(study).joinpath("runs", *_names(settings))


def save(study: str, trained: Trained) -> Path:
    """Write a run aside and rename it into place, so that a run is complete or absent."""
    path = run_folder(study, trained.settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        _write_json(aside / "settings.json", trained.settings)
        trained.history.to_csv(aside / "history.csv", index=False)
        save_file(trained.weights, aside / "weights.safetensors")
        _write_json(aside / "provenance.json", provenance(trained))
        for private, mode in ((aside, 0o755), (aside / "weights.safetensors", 0o644)):
            private.chmod(mode)
        if path.exists():
            shutil.rmtree(path)
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def load(path: Path) -> Run:
    """Read a run and check it; one line of error that names the file when it is missing or damaged."""
    for name in FILES:
        if not (path / name).is_file():
            raise InputError(
                f"run: {path / name} is missing; allowed: a complete run; delete the folder and train again"
            )
    try:
        name = "settings.json"
        settings = _read_json(path / name)
        seed = settings.pop("seed")
        checked = Settings(**settings, seeds=seed).of_run(seed)
        if (path.parent.name, path.name) != _names(checked):
            raise ValueError(f"it belongs in {'/'.join(_names(checked))}")
        name = "history.csv"
        history = pd.read_csv(path / name)
        if list(history["epoch"]) != list(range(checked["epochs"])):
            raise ValueError("its epochs are not 0 to epochs - 1")
        name = "provenance.json"
        origin = _read_json(path / name)
        name = "weights.safetensors"
        run = Run(path, checked, history, load_file(path / name), origin)
        run.network()
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"run: {path / name} is damaged ({why}); delete the folder and train again"
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
    found = [load(path) for path in paths(study)]
    flat = [
        pd.json_normalize(run.provenance | {"data": None}).drop(columns="data") for run in found
    ]
    about = [pd.DataFrame([run.settings]).join(table) for run, table in zip(found, flat)]
    histories = [run.history.assign(**run.key)[[*KEYS, *run.history.columns]] for run in found]
    return pd.concat(about, ignore_index=True), pd.concat(histories, ignore_index=True)


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


def _read_json(path: Path) -> dict:
    found = json.loads(path.read_text())
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
