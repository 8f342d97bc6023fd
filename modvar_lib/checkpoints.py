"""Checkpoints of training: where a lot of seeds is, so that a training that was killed goes on and ends in the same bits.

A file a lot, results/<study>/checkpoints/<arm>/<first>-<last>-<how many>.safetensors, replaced about once a minute, removed when
the runs of all seeds are complete. It has the weights, the optimiser's state and the histories of the lot, which say what epoch
is next. Random streams need no state: every draw is a pure function of (purpose, seed, epoch). A checkpoint that is damaged, or
of other settings, code, torch or device, is not used.

With `frames`, a copy of each network's weights every so many epochs lies beside them, in float16, until it goes into the run.
"""

import json
import os
import re
import time
from contextlib import suppress
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from modvar_lib import files, models
from modvar_lib.settings import Settings

SECONDS = 60.0  # between two checkpoints of a lot; $MODVAR_CHECKPOINT_SECONDS says otherwise


class Checkpoints:
    """Those of one experiment, for the seeds of `settings`. code: what the training code is known by."""

    def __init__(self, folder: Path, settings: Settings, code: str):
        self.folder, self.seeds, self.every_frame = folder, settings.seeds, settings.frames
        device = torch.device(settings.torch_device).type
        run = {k: v for k, v in settings.of_run(0).items() if k != "seed"}
        self.made_by = {"settings": run, "code": code, "torch": torch.__version__, "device": device}
        self.every = float(os.environ.get("MODVAR_CHECKPOINT_SECONDS", SECONDS))
        self.written = dict.fromkeys(self.seeds, time.monotonic())
        self.started = time.monotonic()
        self.kept = {}  # seeds of a lot: (about, tensors)
        for path in self._own():
            if path.name.startswith("."):
                continue
            about, tensors = self._read(path)
            seeds = tuple(about.get("seeds", ()))
            fits = {name: about.get(name) for name in self.made_by} == self.made_by
            if not fits:
                print(f"{path} is damaged or from another version; it is not used", flush=True)
            elif set(seeds) <= set(self.seeds) - {s for lot in self.kept for s in lot}:
                self.kept[seeds] = about, tensors
        self.before = max((about["seconds"] for about, _ in self.kept.values()), default=0.0)

    @property
    def seconds(self) -> float:
        """Spent on the training by now, before it was killed included."""
        return self.before + time.monotonic() - self.started

    def restore(self, seeds: tuple[int, ...], leaves: dict[str, Tensor], optimizer) -> list[list]:
        """Put a lot where its checkpoint was; its histories, empty ones without a checkpoint. They say which epoch is next."""
        about, tensors = self.kept.pop(seeds, ({}, {}))
        for name, leaf in leaves.items() if tensors else ():
            with torch.no_grad():
                leaf.copy_(tensors.pop(name))
            own = [key for key in tensors if key.endswith(f"/{name}")]
            optimizer.state[leaf] = {k.split("/")[0]: tensors.pop(k).to(leaf.device) for k in own}
        return about.get("histories", [[] for _ in seeds])

    def offer(self, seeds, leaves: dict[str, Tensor], optimizer, histories, last: bool) -> None:
        """Write a lot's frames and checkpoint if they are due, or this is the last epoch."""
        done = len(histories[0])
        if self.every_frame and done % self.every_frame == 0 and not last:
            tensors = {
                name: models.turned(leaf.detach()).cpu().half() for name, leaf in leaves.items()
            }
            for i, seed in enumerate(seeds):
                own = {f"{done}/{name}": value[i].contiguous() for name, value in tensors.items()}
                files.write(self.folder / f"frame-{seed:03d}-{done}.safetensors", save(own))
        if not last and time.monotonic() - self.written[seeds[0]] < self.every:
            return
        tensors = dict(leaves)
        for name, leaf in leaves.items():
            tensors |= {f"{key}/{name}": value for key, value in optimizer.state[leaf].items()}
        tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        about = self.made_by | {"seeds": seeds, "histories": histories, "seconds": self.seconds}
        text = json.dumps(about)
        content = save(tensors, {"about": text, "sha256": _digest(text, tensors)})
        files.write(self._path(seeds), content)
        self.written[seeds[0]] = time.monotonic()

    def frames(self, seed: int) -> dict[str, Tensor]:
        """Those kept of one network, {"<epochs done>/<name>": float16}."""
        tensors = {}
        for path in self.folder.glob(f"frame-{seed:03d}-*"):
            tensors |= load_file(path)
        return tensors

    def drop(self, seeds: tuple[int, ...]) -> None:
        """Forget the checkpoint of a lot."""
        self._path(seeds).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all of these seeds, what a kill left of a write included: their runs are complete."""
        frames = [self.folder.glob(f"*frame-{seed:03d}-*") for seed in self.seeds]
        for path in chain(self._own(), *frames):
            path.unlink()
        with suppress(OSError):  # another group's are there, or none were
            self.folder.rmdir()

    def _own(self) -> list[Path]:
        """The files of these seeds, not those of another group."""
        found = [(path, re.match(r"\.?(\d+)-(\d+)-", path.name)) for path in self.folder.glob("*")]
        own = set(self.seeds)
        return sorted(path for path, ends in found if ends and {int(ends[1]), int(ends[2])} <= own)

    def _path(self, seeds: tuple[int, ...]) -> Path:
        return self.folder / f"{seeds[0]:03d}-{seeds[-1]:03d}-{len(seeds)}.safetensors"

    @staticmethod
    def _read(path: Path) -> tuple[dict, dict]:
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if metadata["sha256"] != _digest(metadata["about"], tensors):
                raise ValueError
            return json.loads(metadata["about"]), tensors
        except (SafetensorError, ValueError, KeyError, OSError):
            return {}, {}


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    parts = [
        f"{k}{v.dtype}{tuple(v.shape)}".encode() + v.numpy().tobytes()
        for k, v in sorted(tensors.items())
    ]
    return files.digest(b"".join([text.encode(), *parts]))
