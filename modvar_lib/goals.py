"""Goals: what a network is asked for, and the regimes that set them epoch by epoch.

A goal is a 10 x 10 float32 table T: the target of a pair with labels x (left) and y (right) is T[x,
y]. It is modular exactly when T[x, y] = f(x) + g(y). A goal of K outputs is a 10 x 10 x K table. A
regime is a pure function (epoch, seed, schedule) -> goal.

`fixed` and `varying` are the experiment's. The others are controls, each with one thing of
`varying` and not the rest. Goals that vary change when `varying` does, with the mean and variance
of its a·x + b·y where they can.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from modvar_lib.data import rng
from modvar_lib.errors import InputError, lookup

DIGITS = np.arange(10, dtype=np.float32)
MOST = 10**9


def whole_number(default: int | None, least: int = 1, most: int = MOST):
    """A field of settings."""
    return Field(default, ge=least, le=most, validate_default=True)


class Schedule(BaseModel):
    """What a regime may depend on besides epoch and seed. The defaults are the original's."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: int = whole_number(100)
    period: int = whole_number(10)
    final_epochs: int = whole_number(None, 0)  # left out: a tenth of epochs
    max_coefficient: int = whole_number(8)

    @field_validator("final_epochs", mode="before")
    @classmethod
    def _a_tenth(cls, value, info):
        return info.data.get("epochs", 100) // 10 if value is None else value


Goal = np.ndarray


@dataclass(frozen=True)
class Regime:
    """A function (epoch, seed, schedule) -> goal. ends_on_the_sum: the last `final_epochs` epochs
    are x + y, whatever it says. restarts: the optimiser starts afresh where `varying` switches."""

    function: Callable[[int, int, Schedule], Goal]
    restarts: bool = False
    ends_on_the_sum: bool = False

    def __call__(self, epoch: int, seed: int, schedule: Schedule) -> Goal:
        final = epoch >= schedule.epochs - schedule.final_epochs
        return SUM if self.ends_on_the_sum and final else self.function(epoch, seed, schedule)


REGIMES: dict[str, Regime] = {}


def regime(function: Callable | None = None, **flags: bool):
    """Register a regime under its function's name. flags: see `Regime`.

    >>> @regime(ends_on_the_sum=True)
    ... def difference(epoch, seed, schedule):
    ...     return linear(1, -1)
    >>> goal("difference", 0, 0, Schedule())[7, 2]
    np.float32(5.0)
    >>> del REGIMES["difference"]
    """
    if function is None:
        return lambda function: regime(function, **flags)
    name = getattr(function, "__name__", "")
    REGIMES[name] = Regime(function, **flags)
    return REGIMES[name]


def goal(name: str, epoch: int, seed: int, schedule: Schedule) -> Goal:
    """The goal of a regime in an epoch. Errors: InputError unless it is a finite float32 table."""
    table = np.asarray(lookup(REGIMES, "regime", name)(epoch, seed, schedule))
    if table.shape[:2] != (10, 10) or table.ndim > 3 or table.dtype != np.float32:
        got = f"regime: {name} gives an array of shape {table.shape} and type {table.dtype}"
        raise InputError(f"{got}; allowed: a 10 x 10 or 10 x 10 x K table of float32")
    if not np.isfinite(table).all():
        raise InputError(f"regime: {name} gives targets that are not finite; allowed: finite ones")
    return table


def restart(epoch: int, name: str, schedule: Schedule) -> bool:
    """Whether the optimiser starts afresh at the beginning of this epoch."""
    final = schedule.epochs - schedule.final_epochs
    switch = (epoch % schedule.period == 0 and epoch < final) or epoch == final
    return REGIMES[name].restarts and epoch > 0 and switch


def linear(a: float, b: float) -> Goal:
    """The goal a·x + b·y."""
    return (a * DIGITS[:, None] + b * DIGITS[None, :]).astype(np.float32)


def coefficients(goal: Goal) -> tuple[float, float]:
    """(a, b) such that the goal is a·x + b·y; (nan, nan) when it is not of that form.

    >>> coefficients(linear(3, -2)), coefficients(linear(1, 1) + 1)
    ((3.0, -2.0), (nan, nan))
    """
    if goal.ndim > 2:
        return np.nan, np.nan
    a, b = float(goal[1, 0]), float(goal[0, 1])
    return (a, b) if np.array_equal(goal, linear(a, b)) else (np.nan, np.nan)


def standardised(goal: Goal) -> Goal:
    """The goal rescaled, each output apart, to the mean and standard deviation of x + y over the
    digit pairs; a constant output stays as it is."""
    table, usual = goal.astype(np.float64), SUM.astype(np.float64)
    mean, deviation = table.mean((0, 1)), table.std((0, 1))
    varies = deviation > 0
    scale = np.where(varies, usual.std(), 1) / np.where(varies, deviation, 1)
    return ((table - mean) * scale + np.where(varies, usual.mean(), mean)).astype(np.float32)


def outputs(goal: Goal) -> int:
    """K, the numbers that a network is asked for."""
    return 1 if goal.ndim == 2 else goal.shape[2]


SUM = linear(1, 1)


@regime
def fixed(epoch, seed, schedule):
    """x + y in every epoch."""
    return SUM


def drawn(epoch: int, seed: int, schedule: Schedule) -> tuple[int, int]:
    """a and b of an epoch: independent and uniform over the integers -max..max without 0, drawn
    anew at epochs 0, period, 2·period, ...

    >>> [drawn(epoch, seed=0, schedule=Schedule()) for epoch in (0, 9, 10)]
    [(6, -4), (6, -4), (-2, -1)]
    """
    top = schedule.max_coefficient
    a, b = rng("goals", seed, epoch // schedule.period).integers(-top, top, size=2).tolist()
    return a + (a >= 0), b + (b >= 0)  # -top..top-1, shifted over the gap at 0


@regime(ends_on_the_sum=True)
def varying(epoch, seed, schedule):
    """a·x + b·y, a and b drawn anew every `period` epochs."""
    return linear(*drawn(epoch, seed, schedule))


@regime(ends_on_the_sum=True)
def offset(epoch, seed, schedule):
    """x + y + k: the sum, with the mean that `varying` has at that time."""
    a, b = drawn(epoch, seed, schedule)
    return SUM + np.float32(DIGITS.mean() * (a + b - 2))


@regime(ends_on_the_sum=True)
def scaled(epoch, seed, schedule):
    """s·(x + y), s the root mean square of a, constant: 5.05 for the original's -8..8."""
    size = np.sqrt(np.mean(np.arange(1, schedule.max_coefficient + 1) ** 2))
    return linear(size, size)


@regime(ends_on_the_sum=True)
def factor(epoch, seed, schedule):
    """a·(x + y): it varies, with no need to keep the digits apart."""
    a, _ = drawn(epoch, seed, schedule)
    return linear(a, a)


def _rescaled(table: Goal, like: Goal) -> Goal:
    """A table with the mean and variance of another."""
    table = (table - table.mean()) / table.std()
    return (like.mean() + like.std() * table).astype(np.float32)


@regime(ends_on_the_sum=True)
def tables(epoch, seed, schedule):
    """A random table, with the mean and variance of `varying`: it varies, and is not modular."""
    table = rng("tables", seed, epoch // schedule.period).standard_normal((10, 10))
    return _rescaled(table, linear(*drawn(epoch, seed, schedule)))


@regime(ends_on_the_sum=True)
def additive(epoch, seed, schedule):
    """Random f(x) + g(y), rescaled likewise: it varies, and is modular, but not linear."""
    f, g = rng("additive", seed, epoch // schedule.period).standard_normal((2, 10))
    return _rescaled(f[:, None] + g, linear(*drawn(epoch, seed, schedule)))


@regime
def weighted(epoch, seed, schedule):
    """2x + 7y: constant, but the digits cannot be collapsed into their sum."""
    return linear(2, 7)


@regime
def both(epoch, seed, schedule):
    """The two outputs x and y: constant, and the digits must be kept apart."""
    return np.stack([linear(1, 0), linear(0, 1)], -1)


@regime
def many(epoch, seed, schedule):
    """Eight outputs a·x + b·y, a and b of each drawn as in `varying`, once: constant, likewise."""
    top = schedule.max_coefficient
    pairs = rng("many", seed).integers(-top, top, size=(8, 2))
    return np.stack([linear(*pair) for pair in pairs + (pairs >= 0)], -1)


@regime(restarts=True)
def restarts(epoch, seed, schedule):
    """x + y in every epoch; the optimiser starts afresh whenever `varying` would switch."""
    return SUM


@regime
def interaction(epoch, seed, schedule):
    """The first of `tables` without its additive part, scaled as x + y: some layer must
    interact."""
    table = rng("tables", seed).standard_normal((10, 10))
    table = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return (SUM.mean() + SUM.std() * table / table.std()).astype(np.float32)
