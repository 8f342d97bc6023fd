"""Speed and memory of training, beside what one would write instead, and the price of measuring.

`make benchmark`. Seconds are per replica-epoch: one network, 60,000
pairs, held-out evaluation included. The floor is the multiply-adds of forward and backward over the
rate of a large float32 matrix product with all cores. Machines are noisy: everything takes its turn
in each round, the rate is measured again around every timing, ratios are medians over rounds, and
ratios are what to read.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import pandas as pd
import peers
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modvar_lib import data, metrics, models, runs, training
from modvar_lib.architectures.calibration import Dose
from modvar_lib.settings import Settings

EPOCH = peers.EPOCH
GROWTH = {  # what grows, and its value while something else does
    "replicas": ([1, 2, 4, 8, 16, 32, 64], 8),
    "epochs": ([1, 2, 4, 8], 2),
    "batch_size": ([64, 128, 256, 512, 1024], 256),
    "width": ([32, 64, 128, 256, 512], 128),
}


def multiply_adds(name: str) -> int:
    """Of forward and backward for one pair, as PyTorch's FlopCounterMode counts them; no gradient
    of the pixels is computed, and none is counted."""
    network = models.initial(name, 0)
    with FlopCounterMode(display=False) as counted:
        network(torch.zeros(1, 2, 28, 28)).sum().backward()
    return counted.get_total_flops() // 2


def peak(device: str, size: int = 4096, seconds: float = 1.0, multiply=torch.mm) -> float:
    """Multiply-adds per second of a large float32 matrix product: the best of those that fit in
    `seconds`."""
    a, b, out = (torch.rand(size, size, device=device) for _ in range(3))
    if multiply is not torch.mm:  # one of numpy
        a, b, out = (matrix.numpy() for matrix in (a, b, out))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        multiply(a, b, out=out)
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, size**3 / (time.perf_counter() - started))
    return best


def batched(pairs: int, device: str, architecture: str, replicas: int) -> peers.Result:
    """Of `training.train`, start-up left out; R² after one epoch."""
    splits, seconds, r2 = data.digits(), [], []
    sizes = {"pairs_per_epoch": pairs, "test_pairs": max(2, pairs // 12), "device": device}
    for epochs in (1, 3):  # the second minus the first: two epochs without the start
        settings = Settings(
            architecture=architecture, seeds=range(replicas), epochs=epochs, **sizes
        )
        started = time.perf_counter()
        trained = training.train(settings, splits)
        seconds.append(time.perf_counter() - started)
        r2.append(statistics.mean(one.history["test_r2"].iloc[0] for one in trained))
    return peers.Result((seconds[1] - seconds[0]) / 2 / replicas * EPOCH / pairs, r2[0])


def side_by_side(pairs: int, device: str) -> peers.Result:
    """The same of two trainings of 8 `mlp` at once, a process each."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as two:
        list(two.map(data.digits, ["MNIST"] * 2))  # both have started
        jobs = [two.submit(batched, pairs, device, "mlp", 8) for _ in range(2)]
        one, other = (job.result() for job in jobs)
        return one._replace(seconds=(one.seconds + other.seconds) / 4)


def measuring(device: str, pairs: int) -> pd.DataFrame:
    """Minutes of a group of 8 networks: 100 epochs of training, measuring it with ten moments of
    training, and their ratio; from 2 networks and 10 short epochs."""
    rows = []
    for name in ("mlp", "cnn", "resnet", "vit", "mixer"):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MODVAR_RESULTS"] = folder
            sizes = {"epochs": 10, "pairs_per_epoch": 1024, "frames": 10, "device": device}
            settings = Settings(architecture=name, seeds=range(2), **sizes)
            networks = runs.complete(settings)
            started = time.perf_counter()
            metrics.measure_group(settings, networks)
            measured = 4 * (time.perf_counter() - started) / 60
        trained = 800 * batched(pairs, device, name, 8).seconds / 60
        rows.append([name, trained, measured, measured / trained])
    return pd.DataFrame(rows, columns=["architecture", "training", "measuring", "ratio"])


def wide(width: int) -> str:
    """Register `mlp` at another width, the second layer half as wide; its name."""

    class Wide(models.MLP):
        wide = width // 2

        @classmethod
        def layers(cls, digits=2, divisor=1):
            yield "hidden1", models.with_relu(nn.Linear(digits * 28 * 28, width), flat=True)
            yield "hidden2", models.with_relu(nn.Linear(width, width // 2))

    Wide.__name__ = f"Wide{width}"
    models.architecture(Wide)
    return Wide.__name__.lower()


def one_growth(what: str, value: int, device: str, pairs: int) -> dict:
    """Seconds per replica-epoch, seconds in all and peak GB of one training in this process."""
    at, splits = {name: usual for name, (_, usual) in GROWTH.items()} | {what: value}, data.digits()
    replicas, sizes = (
        at.pop("replicas"),
        {"pairs_per_epoch": pairs, "test_pairs": 512, "device": device},
    )
    settings = Settings(architecture=wide(at.pop("width")), seeds=range(replicas), **at, **sizes)
    training.train(settings.model_copy(update={"epochs": 1, "pairs_per_epoch": 1024}), splits)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is of reading the digits
    started = time.perf_counter()
    training.train(settings, splits)
    seconds = time.perf_counter() - started
    kilobytes = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    gigabytes = (
        int(kilobytes) * 1024 / 1e9 if device == "cpu" else torch.cuda.max_memory_allocated() / 1e9
    )
    each = seconds / replicas / settings.epochs * EPOCH / pairs
    return {
        "grows": what,
        "value": value,
        "s per replica-epoch": each,
        "s in all": seconds,
        "peak GB": gigabytes,
    }


def growth(device: str, pairs: int) -> pd.DataFrame:
    """Time and memory against each of GROWTH, every value in a fresh process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__"])  # imported once, not for every value
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as fresh:
        todo = [(what, value) for what, (values, _) in GROWTH.items() for value in values]
        return pd.DataFrame(
            [fresh.submit(one_growth, *one, device, pairs).result() for one in todo]
        )


def contestants(pairs: int, device: str) -> dict:
    """{name, which starts with its architecture: function that returns a `peers.Result`}."""
    counts, slow = (1, 4, 8, 16) if device == "cpu" else (1, 8, 64, 128), pairs // 2
    kinds = [
        name
        for name, cls in models.ARCHITECTURES.items()
        if not ("_" in name or name == "mlp" or issubclass(cls, Dose))
    ]
    ours = {f"mlp, {n} together": partial(batched, pairs, device, "mlp", n) for n in counts}
    ours |= {f"{name}, 8 together": partial(batched, slow, device, name, 8) for name in kinds}
    ours["mlp, two trainings of 8 at once"] = partial(side_by_side, pairs, device)
    others = {
        "vmap as in PyTorch's tutorial, 8 together": partial(peers.tutorial, replicas=8),
        "a loop, tensors in memory": peers.loop,
        "the same, a process per core": peers.processes,
        "a loop, DataLoader": peers.dataloader,
    }
    if find_spec("jax") and find_spec("optax"):
        others = {"jit and vmap of JAX, 8 together": partial(peers.in_jax, replicas=8)} | others
    else:
        print("JAX is not installed: its rows are left out (the extra `benchmark` has it)")
    named = product(("mlp", "cnn"), others.items())
    return ours | {f"{one}, {name}": partial(peer, one, slow) for one, (name, peer) in named}


def speed(device: str, pairs: int, rounds: int) -> pd.DataFrame:
    """Every contestant once per round; medians over rounds."""
    what, rates, found = contestants(pairs, device), [peak(device)], []
    work = {name: multiply_adds(name) for name in models.ARCHITECTURES}
    for i in range(rounds):
        for name, contestant in what.items():
            result = contestant()
            rates.append(peak(device))
            floor = work[name.split(",")[0]] * EPOCH / max(rates[-2:])
            found.append({"what": name, "x floor": result.seconds / floor, **result._asdict()})
        print(f"round {i + 1} of {rounds}", flush=True)
    lowest, rate, highest = (2e-9 * f(rates) for f in (min, statistics.median, max))
    by_numpy = 2e-9 * peak("cpu", multiply=np.matmul)
    print(
        f"a large product: {rate:.0f} GFLOP/s ({lowest:.0f} to {highest:.0f}), {by_numpy:.0f} by numpy"
    )
    print("multiply-adds per pair in all:", ", ".join(f"{k} {v:,}" for k, v in work.items()))
    by = pd.DataFrame(found).groupby("what", sort=False)
    table = by[["seconds", "x floor", "r2", "compiling"]].median()
    table[["lowest", "highest"]] = by["x floor"].agg(["min", "max"])
    ours = table["seconds"].reindex(table.index.str.split(",").str[0] + ", 8 together")
    table["x ours"] = table["seconds"] / ours.to_numpy()
    order = ["seconds", "x ours", "x floor", "lowest", "highest", "r2", "compiling"]
    return table[order].reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=12_000, help="per epoch that is timed")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--only", choices=("speed", "growth", "measuring"), help="one table")
    parser.add_argument("--out", type=Path, help="a folder to write the tables to")
    given = parser.parse_args()
    print(
        f"{runs.processor()}; torch {torch.__version__}, {given.device}, {torch.get_num_threads()} threads"
    )
    tables = {
        "speed": partial(speed, given.device, given.pairs, given.rounds),
        "growth": partial(growth, given.device, given.pairs // 2),
        "measuring": partial(measuring, given.device, given.pairs // 2),
    }
    for name in [given.only] if given.only else tables:
        table = tables[name]()
        print("\n" + table.to_markdown(index=False, floatfmt=".3g") + "\n", flush=True)
        if given.out:
            given.out.mkdir(parents=True, exist_ok=True)
            path = given.out / f"{name}-{given.device}.csv"
            table.to_csv(path, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
