"""Training: all seeds of an experiment in lockstep, as one batched program.

Letters: R replicas (one a seed), B pairs in a batch, N evaluation pairs. Every replica has its own initial weights, pairs
and goals; the losses are summed, so each replica's gradient is its own, and Adam works element by element.
"""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from modvar_lib import data, goals, models
from modvar_lib.progress import shown_range
from modvar_lib.settings import Settings


@dataclass(frozen=True)
class Trained:
    """One finished network. history: a row an epoch (see `train`); weights: {name: tensor}; seconds: for the whole
    group of seeds trained together."""

    settings: dict
    history: pd.DataFrame
    weights: dict[str, Tensor]
    device: str
    seconds: float
    group_size: int


def evaluate(
    replicas: models.Replicas, images: Tensor, pairs: Tensor, buffer: Tensor, chunk: int
) -> Tensor:
    """Outputs [R, N] for each replica's pairs [R, N, 2], `chunk` pairs at a time."""
    with torch.no_grad():
        return torch.cat(
            [replicas(data.halves(images, part, buffer)) for part in pairs.split(chunk, 1)], 1
        )


def mse_and_r2(outputs: Tensor, target: Tensor) -> tuple[list[float], list[float]]:
    """Per replica: mean squared error, and R² = 1 - MSE / Var(target). Both [R, N] -> two lists of R."""
    mse = (outputs - target).double().square().mean(1)
    return mse.tolist(), (1 - mse / target.double().var(1, correction=0)).tolist()


def train(settings: Settings, splits: tuple[data.Digits, data.Digits]) -> list[Trained]:
    """Train one network a seed; return them in the order of `settings.seeds`.

    History columns: epoch (from 0), a, b (the goal, nan if it is not a·x + b·y), train_mse (mean over the epoch, while
    learning), and after the epoch on held-out pairs: test_mse and test_r2 on the goal of the epoch, sum_mse and sum_r2 on x + y.
    R² is 1 at best, 0 for the best constant, and unbounded below.
    """
    started, device, seeds = time.perf_counter(), settings.torch_device, settings.seeds
    regime = goals.REGIMES[settings.regime]
    training_digits, test_digits = (split.to(device) for split in splits)
    replicas = models.Replicas(settings.architecture, seeds, device)
    optimizer = torch.optim.Adam(replicas.leaves.values(), lr=settings.learning_rate, fused=True)

    def on_device(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(device)

    test_pairs = on_device(
        [data.evaluation_pairs(s, settings.test_pairs, len(test_digits))[:, :2] for s in seeds]
    )
    sums = targets_of([goals.SUM] * len(seeds), test_digits, test_pairs)
    histories: list[list[dict]] = [[] for _ in seeds]
    label = f"{settings.dataset} {settings.architecture} {settings.regime}, {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    buffer = torch.empty(len(seeds) * settings.batch_size * 2 * 784, device=device)
    for epoch in shown_range(settings.epochs, label):
        tables = [regime(epoch, seed, settings) for seed in seeds]
        pairs = on_device(
            [
                data.training_pairs(s, epoch, settings.pairs_per_epoch, len(training_digits))
                for s in seeds
            ]
        )
        wanted = targets_of(tables, training_digits, pairs)
        squared = torch.zeros(len(seeds), device=device)
        for batch, target in zip(
            pairs.split(settings.batch_size, 1), wanted.split(settings.batch_size, 1)
        ):
            errors = (
                replicas(data.halves(training_digits.images, batch, buffer)) - target
            ).square()  # [R, B]
            optimizer.zero_grad()
            errors.mean(1).sum().backward()
            optimizer.step()
            squared += errors.detach().sum(1)
        outputs = evaluate(replicas, test_digits.images, test_pairs, buffer, settings.batch_size)
        columns = {
            "train_mse": (squared.double() / settings.pairs_per_epoch).tolist(),
            **dict(
                zip(
                    ("test_mse", "test_r2"),
                    mse_and_r2(outputs, targets_of(tables, test_digits, test_pairs)),
                )
            ),
            **dict(zip(("sum_mse", "sum_r2"), mse_and_r2(outputs, sums))),
        }
        for i, (history, table) in enumerate(zip(histories, tables)):
            a, b = goals.coefficients(table)
            history.append(
                {
                    "epoch": epoch,
                    "a": a,
                    "b": b,
                    **{name: values[i] for name, values in columns.items()},
                }
            )
    seconds = time.perf_counter() - started
    return [
        Trained(
            settings.of_run(seed),
            pd.DataFrame(histories[i]),
            replicas.weights(i),
            device,
            seconds,
            len(seeds),
        )
        for i, seed in enumerate(seeds)
    ]


def targets_of(tables: list[goals.Goal], split: data.Digits, pairs: Tensor) -> Tensor:
    """[R, N] targets of [R, N, 2] pairs, each replica by its own 10 x 10 table."""
    left, right = split.labels[pairs].unbind(-1)
    stacked = torch.from_numpy(np.stack(tables)).to(pairs.device).flatten(1)  # [R, 100]
    return stacked.gather(1, 10 * left + right)
