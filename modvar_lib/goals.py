"""Goals: what a network is asked for, and the regimes that set them epoch by epoch.

A goal is a 10 x 10 float32 table T; the target of a pair with labels x (left) and y (right) is T[x, y].
A regime is a pure function (epoch, seed, schedule) -> goal, so it can be read and tested without training.
"""

from collections.abc import Callable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from modvar_lib.streams import rng

DIGITS = np.arange(10, dtype=np.float32)


class Schedule(BaseModel):
    """What a regime may depend on besides epoch and seed. Defaults are the original experiment's."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: int = Field(100, ge=1, description="a whole number from 1")
    period: int = Field(10, ge=1, description="a whole number of epochs from 1")
    final_epochs: int = Field(10, ge=0, description="a whole number from 0 to epochs")
    max_coefficient: int = Field(8, ge=1, description="a whole number from 1")


Goal = np.ndarray
Regime = Callable[[int, int, Schedule], Goal]
REGIMES: dict[str, Regime] = {}


def regime(function: Regime) -> Regime:
    """Register a regime under its function's name (use as a decorator)."""
    REGIMES[function.__name__] = function
    return function


def linear(a: float, b: float) -> Goal:
    """The goal a·x + b·y."""
    return (a * DIGITS[:, None] + b * DIGITS[None, :]).astype(np.float32)


def coefficients(goal: Goal) -> tuple[float, float]:
    """(a, b) such that the goal is a·x + b·y; (nan, nan) when it is not of that form."""
    a, b = float(goal[1, 0]), float(goal[0, 1])
    return (a, b) if np.array_equal(goal, linear(a, b)) else (np.nan, np.nan)


SUM = linear(1, 1)


@regime
def fixed(epoch: int, seed: int, schedule: Schedule) -> Goal:
    """x + y in every epoch."""
    return SUM


@regime
def varying(epoch: int, seed: int, schedule: Schedule) -> Goal:
    """a·x + b·y; a and b independent and uniform over the integers -max..max without 0, drawn anew at epochs
    0, period, 2·period, ...; in the last `final_epochs` epochs a = b = 1."""
    if epoch >= schedule.epochs - schedule.final_epochs:
        return SUM
    top = schedule.max_coefficient
    a, b = rng("goals", seed, epoch // schedule.period).integers(-top, top, size=2)
    return linear(*(k + (k >= 0) for k in (a, b)))  # -top..top-1, shifted over the gap at 0
