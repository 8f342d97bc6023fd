"""Training: the seeds of an experiment in lockstep, as a batched program; on a CPU, one such program a core.

Letters: R replicas (one a seed), B pairs in a batch, N evaluation pairs, K outputs. Every replica has its own initial weights,
pairs and goals; the losses are summed, so each replica's gradient is its own, and optimisers work element by element.
"""

import resource
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from torch import Tensor

from modvar_lib import data, goals, models
from modvar_lib.checkpoints import Checkpoints
from modvar_lib.errors import InputError, out_of_memory
from modvar_lib.progress import Shown
from modvar_lib.settings import Settings

COLUMNS = "epoch a b train_mse test_mse test_r2 sum_mse sum_r2".split()  # of a history
SHARE = 0.8  # of the free memory that training may plan with


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
    """Outputs [R, N, K] for each replica's pairs [R, N, 2], `chunk` pairs at a time."""
    with torch.no_grad():
        return torch.cat(
            [replicas(data.halves(images, part, buffer)) for part in pairs.split(chunk, 1)], 1
        )


def mse_and_r2(outputs: Tensor, target: Tensor) -> tuple[list[float], list[float]]:
    """Per replica: squared error, summed over K outputs and averaged over pairs, and R² = 1 - that / the same of the best
    constant. Both [R, N, K] -> two lists of R."""
    mse = (outputs - target).double().square().sum(-1).mean(1)
    return mse.tolist(), (1 - mse / target.double().var(1, correction=0).sum(-1)).tolist()


def train(
    settings: Settings,
    splits: tuple[data.Digits, data.Digits],
    checkpoints: Checkpoints | None = None,
) -> list[Trained]:
    """Train one network a seed; return them in the order of `settings.seeds`. With `checkpoints`, lots that were being trained go
    on where they were.

    History columns: epoch (from 0), a, b (the goal, before it is standardised; nan if it is not a·x + b·y), train_mse (mean over the epoch, while
    learning), and after the epoch on held-out pairs: test_mse and test_r2 on the goal of the epoch, sum_mse and sum_r2 on x + y
    (against the sum of the outputs, when there are several).
    R² is 1 at best, 0 for the best constant, and unbounded below.

    Seeds are trained in lots: on a CPU a lot a core (of torch.get_num_threads()), each on one thread, so that trainings side by
    side share the cores fairly and no sum depends on their number; and smaller lots, one after the other, where memory is short.
    A lot that runs out of memory all the same is trained in halves.
    """
    started, device, seeds = time.perf_counter(), settings.torch_device, settings.seeds
    splits = tuple(split.to(device) for split in splits)
    fitting = max(1, free_memory(device) // memory_a_replica(settings))
    group, kept = (checkpoints.seeds, checkpoints.kept) if checkpoints else (seeds, {})
    at_once = min(len(group), fitting, torch.get_num_threads()) if device == "cpu" else 1
    parts = [lot for lot in kept if set(lot) & set(seeds)]
    for usual in (lots(group, at_once, fitting), None):  # as if nothing had happened; then others
        rest = tuple(s for s in seeds if s not in sum(parts, ()))
        parts += [lot for lot in usual or lots(rest, at_once, fitting) if set(lot) <= set(rest)]
    label = f"{settings.dataset} {settings.architecture} {settings.regime}, {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    with (
        Shown(settings.epochs, len(parts), label) as shown,
        one_thread(device == "cpu"),
        ThreadPoolExecutor(at_once) as pool,
    ):
        jobs = [pool.submit(halving, settings, lot, splits, shown, checkpoints) for lot in parts]
        try:
            finished = dict(zip(sum(parts, ()), [run for job in jobs for run in job.result()]))
        finally:  # after an error or an interrupt in one lot, the others stop at their next epoch
            shown.stopped = True
            pool.shutdown(cancel_futures=True)
    seconds = checkpoints.seconds if checkpoints else time.perf_counter() - started
    return [
        Trained(settings.of_run(seed), *finished[seed], device, seconds, len(group))
        for seed in seeds
    ]


def lots(seeds: tuple[int, ...], at_once: int, fitting: int) -> list[tuple[int, ...]]:
    """Seeds in order, cut into lots as even as can be, a multiple of `at_once` of them, such that `fitting` seeds fit in memory.

    >>> lots((5, 6, 7, 8, 9), at_once=2, fitting=100)
    [(5, 6, 7), (8, 9)]
    >>> lots((5, 6, 7, 8, 9), at_once=2, fitting=3)
    [(5, 6), (7,), (8,), (9,)]
    """
    if not seeds:
        return []
    rounds = -(-len(seeds) // fitting)
    parts = np.array_split(seeds, min(len(seeds), rounds * at_once))
    return [tuple(part.tolist()) for part in parts]


def memory_a_replica(settings: Settings) -> int:
    """Bytes that one more replica takes in training: what its forward pass keeps for backward, measured on one network and
    one batch, twice (gradients of activations; fresh results), pixels, weights with gradients and Adam's two moments, pairs."""
    network, kept = models.initial(settings.architecture, 0), {}
    batch = torch.zeros(settings.batch_size, 2, 28, 28)

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(batch)
    weights = sum(4 * p.numel() for p in network.parameters())
    pairs = settings.pairs_per_epoch + settings.test_pairs
    return 2 * sum(kept.values()) + 2 * 4 * batch.numel() + 4 * weights + 40 * pairs


def free_memory(device: str, cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that training may plan with on a device: on a CPU, what the machine has free, or less where a limit is set on this
    process (ulimit -v) or on its control group (version 2), as schedulers of clusters do."""
    if device != "cpu":
        return int(SHARE * torch.cuda.mem_get_info(device)[0])
    free = [psutil.virtual_memory().available]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free.append(limit - psutil.Process().memory_info().vms)
    own = cgroups / Path("/proc/self/cgroup").read_text().split("::/")[-1].strip()
    for group in (own, *own.parents):
        if (group / "memory.max").is_file() and (group / "memory.max").read_text() != "max\n":
            used = int((group / "memory.current").read_text())
            free.append(int((group / "memory.max").read_text()) - used)
    return int(SHARE * max(0, min(free)))


@contextmanager
def one_thread(wanted: bool):
    """torch's operations on one thread each for as long as this lasts, if wanted."""
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def halving(
    settings: Settings, seeds: tuple[int, ...], *others
) -> list[tuple[pd.DataFrame, dict[str, Tensor]]]:
    """`train_lot`; when memory runs out, each half of the seeds after the other."""
    try:
        return train_lot(settings, seeds, *others)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if len(seeds) == 1:
            raise InputError(
                f"batch_size: got {settings.batch_size}, with which one {settings.architecture} does not fit in memory; "
                "allowed: a smaller one, or pairs_per_epoch and test_pairs smaller"
            ) from None
    _, shown, checkpoints = others
    print(f"{shown.label}: no memory for {len(seeds)} seeds at once, so half of them", flush=True)
    if checkpoints:
        checkpoints.drop(seeds)
    return [run for half in lots(seeds, 2, len(seeds)) for run in halving(settings, half, *others)]


def train_lot(
    settings: Settings,
    seeds: tuple[int, ...],
    splits: tuple[data.Digits, data.Digits],
    shown: Shown,
    checkpoints: Checkpoints | None = None,
) -> list[tuple[pd.DataFrame, dict[str, Tensor]]]:
    """Train some seeds as one batched program: (history, weights) of each. `splits` are on the device already."""
    device, regime = settings.torch_device, goals.REGIMES[settings.regime]
    training_digits, test_digits = splits
    shape = goals.standardised if settings.standardise else lambda goal: goal
    first = regime(0, seeds[0], settings)
    goals.check(settings.regime, first)
    outputs = goals.outputs(first)
    replicas = models.Replicas(settings.architecture, seeds, device, outputs)

    def fresh():
        return models.OPTIMIZERS[settings.optimizer](
            replicas.leaves.values(), lr=settings.learning_rate
        )

    optimizer = fresh()

    def on_device(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(device)

    test_pairs = on_device(
        [data.evaluation_pairs(s, settings.test_pairs, len(test_digits))[:, :2] for s in seeds]
    )
    sums = targets_of([goals.SUM] * len(seeds), test_digits, test_pairs)
    histories: list[list[dict]] = [[] for _ in seeds]
    if checkpoints:
        histories = checkpoints.restore(seeds, replicas.leaves, optimizer)
    buffer = torch.empty(len(seeds) * settings.batch_size * 2 * 784, device=device)
    for epoch in shown.epochs(len(histories[0])):
        if goals.restart(epoch, settings.regime, settings):
            optimizer = fresh()
        drawn = [regime(epoch, seed, settings) for seed in seeds]
        for table in drawn:
            goals.check(settings.regime, table)
        tables = [shape(table) for table in drawn]
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
                (replicas(data.halves(training_digits.images, batch, buffer)) - target)
                .square()
                .sum(-1)
            )  # [R, B]
            optimizer.zero_grad()
            loss = errors.mean(1).sum()
            if settings.penalty:
                loss = loss + settings.penalty * sum(w.abs().sum() for w in replicas.connections())
            loss.backward()
            optimizer.step()
            squared += errors.detach().sum(1)
        answers = evaluate(replicas, test_digits.images, test_pairs, buffer, settings.batch_size)
        columns = {
            "train_mse": (squared.double() / settings.pairs_per_epoch).tolist(),
            **dict(
                zip(
                    ("test_mse", "test_r2"),
                    mse_and_r2(answers, targets_of(tables, test_digits, test_pairs)),
                )
            ),
            **dict(zip(("sum_mse", "sum_r2"), mse_and_r2(answers.sum(-1, keepdim=True), sums))),
        }
        for i, (history, table) in enumerate(zip(histories, drawn)):
            a, b = goals.coefficients(table)
            history.append(
                {
                    "epoch": epoch,
                    "a": a,
                    "b": b,
                    **{name: values[i] for name, values in columns.items()},
                }
            )
        if checkpoints:
            last = epoch == settings.epochs - 1
            checkpoints.offer(seeds, replicas.leaves, optimizer, histories, last)
    return [(pd.DataFrame(history), replicas.weights(i)) for i, history in enumerate(histories)]


def targets_of(tables: list[goals.Goal], split: data.Digits, pairs: Tensor) -> Tensor:
    """[R, N, K] targets of [R, N, 2] pairs, each replica by its own table."""
    left, right = split.labels[pairs].unbind(-1)
    stacked = torch.from_numpy(np.stack(tables)).to(pairs.device)
    stacked = stacked.reshape(len(tables), 100, -1)
    rows = (10 * left + right).unsqueeze(-1).expand(-1, -1, stacked.shape[-1])
    return stacked.gather(1, rows)
