"""Training: the seeds of an experiment in lockstep, as a batched program; on a CPU, one such
program per core.

Letters: R replicas (one per seed), B pairs in a batch, N evaluation pairs, K outputs. Every replica
has its own initial weights, pairs and goals. The losses are summed, so each replica's gradient is
its own, and optimisers work element by element.
"""

import threading
import time
from collections.abc import Generator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from modvar_lib import data, goals, models
from modvar_lib.errors import InputError
from modvar_lib.settings import Settings

_ALONE = threading.Lock()
COLUMNS = "epoch a b train_mse test_mse test_r2 sum_mse sum_r2".split()  # of a history


@dataclass(frozen=True)
class Trained:
    """One finished network. history: see `train`; frames: its weights from within training, {epochs
    done: {name: float16 tensor}}; seconds: of all seeds trained together, `group_size`."""

    settings: Settings
    history: pd.DataFrame
    weights: dict[str, Tensor]
    frames: dict[int, dict[str, Tensor]]
    device: str
    seconds: float
    group_size: int


def train(settings: Settings, splits: tuple[data.Digits, data.Digits]) -> list[Trained]:
    """Train one network per seed, in the order of `settings.seeds`.

    History columns: epoch (from 0), a, b (the goal as drawn, before it is standardised; nan if it
    is not a·x + b·y), train_mse (mean over the epoch, while learning, without the penalty), and
    after the epoch on held-out pairs: test_mse and test_r2 on the goal of the epoch, sum_mse and
    sum_r2 on x + y (of the sum of several outputs). R² is 1 at best, 0 for the best constant, and
    unbounded below.

    On a CPU the seeds are trained in lots, one per core, each on one thread, so that no sum depends
    on the number of threads; on a GPU, all in one.
    """
    started, device, runs = time.perf_counter(), settings.torch_device, settings.runs()
    splits = splits[0].to(device), splits[1].to(device)
    label, stop = f"{settings.arm} {settings.group}", threading.Event()
    with (
        one_thread(device == "cpu") as cores,
        tqdm(desc=label, unit="epoch", mininterval=5) as bar,
        ThreadPoolExecutor(cores) as pool,
    ):
        count = min(len(runs), cores) if device == "cpu" else 1
        parts = np.array_split(settings.seeds, count)
        lots = [settings.of(tuple(part.tolist())) for part in parts]
        bar.reset(settings.epochs * count)
        jobs = [pool.submit(train_lot, lot, splits, bar, stop) for lot in lots]
        try:
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:  # after an error in one lot, or an interrupt, the others stop at their next epoch
            stop.set()
        networks = [network for job in jobs for network in job.result()]
    shared = device, time.perf_counter() - started, len(runs)
    return [Trained(run, *network, *shared) for run, network in zip(runs, networks)]


def kept_epochs(settings: Settings) -> tuple[int, ...]:
    """After how many epochs weights are kept within training: about `frames` moments, denser early,
    and where a final phase begins, but not the start and the end.

    >>> kept_epochs(Settings(frames=8)), kept_epochs(Settings())
    ((1, 2, 4, 7, 14, 27, 52, 90, 91, 95), ())
    """
    if not settings.frames:
        return ()
    final = settings.epochs - settings.final_epochs
    epochs = {*np.geomspace(1, settings.epochs, settings.frames).round(), final}
    if settings.final_epochs:
        few = max(2, settings.frames // 8)
        epochs |= {*(final + np.geomspace(1, settings.final_epochs / 2, few).round())}
    return tuple(sorted(int(e) for e in epochs if 0 < e < settings.epochs))


@contextmanager
def one_thread(applies: bool) -> Generator[int, None, None]:
    """torch's operations on one thread each, if it applies; gives how many they had. The number is
    the whole process's, so two of these wait for each other."""
    with _ALONE:
        before = torch.get_num_threads()
        if applies:
            torch.set_num_threads(1)
        try:
            yield before
        finally:
            torch.set_num_threads(before)


def train_lot(
    settings: Settings, splits: tuple[data.Digits, data.Digits], bar: tqdm, stop: threading.Event
) -> list[tuple]:
    """Train some seeds as one batched program: (history, weights, frames) of each. `splits` are on
    the device already."""
    device, seeds = settings.torch_device, settings.seeds
    training_digits, test_digits = splits
    outputs = goals.outputs(goals.goal(settings.regime, 0, seeds[0], settings))
    networks = [models.initial(settings.architecture, seed, outputs) for seed in seeds]
    models.check(settings.architecture, networks[0], outputs)
    replicas = models.Replicas(networks, device)
    kind, leaves = models.OPTIMIZERS[settings.optimizer], replicas.leaves.values()
    fresh_optimizer = partial(kind, leaves, lr=settings.learning_rate)

    def on_device(arrays) -> Tensor:
        return torch.from_numpy(np.stack(list(arrays))).to(device)

    optimizer = fresh_optimizer()
    count = settings.test_pairs
    test_pairs = on_device(data.evaluation_pairs(s, count, len(test_digits))[:, :2] for s in seeds)
    sums = targets_of([goals.SUM] * len(seeds), test_digits, test_pairs)
    histories, frames, kept = [[] for _ in seeds], [{} for _ in seeds], kept_epochs(settings)
    buffer = torch.empty(len(seeds) * settings.batch_size * 2 * 784, device=device)
    for epoch in range(settings.epochs):
        if stop.is_set():
            break
        if goals.restart(epoch, settings.regime, settings):
            optimizer = fresh_optimizer()
        drawn = [goals.goal(settings.regime, epoch, seed, settings) for seed in seeds]
        if any(goals.outputs(table) != outputs for table in drawn):
            changes = f"{settings.regime} changes its number of outputs in epoch {epoch}"
            raise InputError(f"regime: {changes}; allowed: one throughout")
        tables = [goals.standardised(table) for table in drawn] if settings.standardise else drawn
        count = settings.pairs_per_epoch
        pairs = on_device(data.training_pairs(s, epoch, count, len(training_digits)) for s in seeds)
        targets = targets_of(tables, training_digits, pairs)
        squared = torch.zeros(len(seeds), device=device)
        for batch, target in zip(*(of.split(settings.batch_size, 1) for of in (pairs, targets))):
            answers = replicas(data.halves(training_digits.images, batch, buffer))
            errors = (answers - target).square().sum(-1)  # [R, B]
            loss = errors.mean(1).sum()
            if settings.penalty:
                sizes = sum(weights.abs().sum() for weights in replicas.connections())
                loss = loss + settings.penalty * sizes
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            squared += errors.detach().sum(1)
        answers = evaluate(replicas, test_digits.images, test_pairs, buffer, settings.batch_size)
        test = mse_and_r2(answers, targets_of(tables, test_digits, test_pairs))
        on_sum = mse_and_r2(answers.sum(-1, keepdim=True), sums)
        a_and_b = zip(*(goals.coefficients(table) for table in drawn))
        train_mse = (squared.double() / count).tolist()
        for history, row in zip(histories, zip(*a_and_b, train_mse, *test, *on_sum)):
            history.append((epoch, *row))
        for i, moments in enumerate(frames if epoch + 1 in kept else ()):
            moments[epoch + 1] = {k: weight.half() for k, weight in replicas.weights(i).items()}
        bar.update()
    return [
        (pd.DataFrame(history, columns=COLUMNS), replicas.weights(i), frames[i])
        for i, history in enumerate(histories)
    ]


def evaluate(
    replicas: models.Replicas, images: Tensor, pairs: Tensor, buffer: Tensor | None, chunk: int
) -> Tensor:
    """Outputs [R, N, K] for each replica's pairs [R, N, 2], `chunk` pairs at a time."""
    with torch.no_grad():
        parts = pairs.split(chunk, 1)
        return torch.cat([replicas(data.halves(images, part, buffer)) for part in parts], 1)


def mse_and_r2(outputs: Tensor, target: Tensor) -> tuple[list[float], list[float]]:
    """Per replica: squared error, summed over outputs and averaged over pairs; R² = 1 - that / the
    same of the best constant. Both [R, N, K] -> two lists of R."""
    mse = (outputs - target).double().square().sum(-1).mean(1)
    return mse.tolist(), (1 - mse / target.double().var(1, correction=0).sum(-1)).tolist()


def targets_of(tables: list[goals.Goal], split: data.Digits, pairs: Tensor) -> Tensor:
    """[R, N, K] targets of [R, N, 2] pairs, each replica by its own table."""
    left, right = split.labels[pairs].unbind(-1)
    stacked = torch.from_numpy(np.stack(tables)).to(pairs.device).reshape(len(tables), 100, -1)
    rows = (10 * left + right).unsqueeze(-1).expand(-1, -1, stacked.shape[-1])
    return stacked.gather(1, rows)
