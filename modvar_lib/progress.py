"""Progress a person can read: a bar in a terminal or a live notebook, a line now and then in a log."""

import os
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm
from tqdm.auto import tqdm as notebook_tqdm

LINES = 10  # in a log, for one training


def shown_range(total: int, label: str) -> Iterator[int]:
    """range(total), shown. $MODVAR_TTY names the terminal to draw on when a notebook runs without one, as under papermill."""
    terminal = os.environ.get("MODVAR_TTY")
    if terminal:
        with open(terminal, "w") as file:
            yield from tqdm(
                range(total), label, file=file, unit="epoch", leave=False, dynamic_ncols=True
            )
    elif sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ:
        yield from notebook_tqdm(range(total), label, unit="epoch")
    else:
        started, due = time.monotonic(), 0.0
        for i in range(total):
            yield i
            done, spent = i + 1, time.monotonic() - started
            if done == total or (done >= due * total and spent > 1):
                left = spent / done * (total - done)
                print(
                    f"{label}: epoch {done}/{total}, {_minutes(spent)} so far, {_minutes(left)} left",
                    flush=True,
                )
                due = done / total + 1 / LINES


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
