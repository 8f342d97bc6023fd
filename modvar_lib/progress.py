"""Progress a person can read: a bar in a terminal or a live notebook, a line now and then in a log."""

import os
import sys
import threading
import time
from collections.abc import Iterator

from tqdm import tqdm
from tqdm.auto import tqdm as notebook_tqdm

LINES = 10  # in a log, for one training


class Shown:
    """Counts epochs (or what `unit` says) of `lots` trainings that run at once or one after the other, and shows how far all of
    them together are.

    $MODVAR_TTY names the terminal to draw on when a notebook runs without one, as under papermill.
    """

    def __init__(self, epochs: int, lots: int, label: str, unit: str = "epoch"):
        self.each, self.lots, self.label, self.unit = epochs, lots, label, unit
        self.done, self.resumed, self.stopped, self.lock = 0, 0, False, threading.Lock()
        self.file = self.bar = None

    def __enter__(self):
        terminal = os.environ.get("MODVAR_TTY")
        settings = {"total": self.each, "desc": self.label, "unit": self.unit}
        if terminal:
            self.file = open(terminal, "w")
            self.bar = tqdm(**settings, file=self.file, leave=False, dynamic_ncols=True)
        elif sys.stderr.isatty() or live():
            self.bar = notebook_tqdm(**settings)
        self.started, self.due = time.monotonic(), 0.0
        return self

    def __exit__(self, *error):
        for opened in (self.bar, self.file):
            if opened is not None:
                opened.close()

    def epochs(self, first: int = 0) -> Iterator[int]:
        """The epochs of one training from `first` on, counted as they end; cut short when `stopped` is set."""
        for epoch in range(self.each):
            if self.stopped:
                return
            if epoch >= first:
                yield epoch
            self.count(resumed=epoch < first)

    def count(self, resumed: bool = False) -> None:
        """One more is done, in one of the lots; `resumed`: it was done before this started."""
        with self.lock:
            self.done += 1
            self.resumed += resumed
            if self.done % self.lots == 0:
                self.show(self.done // self.lots)

    def show(self, epoch: int) -> None:
        """So many epochs of all trainings are done."""
        if self.bar is not None:
            self.bar.update()
            return
        spent = time.monotonic() - self.started
        if epoch == self.each or (epoch >= self.due * self.each and spent > 1):
            left = spent / max(1, self.done - self.resumed) * (self.each * self.lots - self.done)
            print(
                f"{self.label}: {self.unit} {epoch}/{self.each}, {_minutes(spent)} so far, {_minutes(left)} left",
                flush=True,
            )
            self.due = epoch / self.each + 1 / LINES


def live() -> bool:
    """Whether somebody looks on in Jupyter: a kernel of papermill, nbconvert or nbval has no front end."""
    return "JPY_SESSION_NAME" in os.environ


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
