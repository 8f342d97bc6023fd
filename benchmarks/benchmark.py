"""Speed and memory of training, in one run of about six minutes on two cores.

`make benchmark`. Seconds are per replica-epoch: one network, 60,000 pairs, held-out evaluation
included. The floor is the multiply-adds of forward and backward over the rate of a large float32
matrix product with all cores. Machines are noisy: everything takes its turn in each round, the rate
is measured again around every timing, ratios are medians over rounds, and ratios are what to read.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import pandas as pd
import peers
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modvar_lib import data, models, training
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


def peak(device: str, size: int = 4096, seconds: float = 1.0) -> float:
    """Multiply-adds per second of a large float32 matrix product: the best of those that fit in
    `seconds`."""
    a, b, out = (torch.rand(size, size, device=device) for _ in range(3))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, size**3 / (time.perf_counter() - started))
    return best


def batched(pairs: int, device: str, architecture: str, replicas: int) -> float:
    """Seconds per replica-epoch of `training.train`, start-up left out."""
    splits, seconds = data.digits(), []
    for epochs in (1, 3):  # the second minus the first: two epochs without the start
        settings = Settings(
            architecture=architecture,
            regime="varying",
            seeds=range(replicas),
            epochs=epochs,
            final_epochs=0,
            device=device,
            pairs_per_epoch=pairs,
            test_pairs=max(2, 5_000 * pairs // EPOCH),
        )
        started = time.perf_counter()
        training.train(settings, splits)
        seconds.append(time.perf_counter() - started)
    return (seconds[1] - seconds[0]) / 2 / replicas * EPOCH / pairs


def side_by_side(pairs: int, device: str) -> float:
    """The same of two trainings of 8 `mlp` at once, a process each."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as two:
        list(two.map(data.digits, ["MNIST"] * 2))  # both have started
        jobs = [two.submit(batched, pairs, device, "mlp", 8) for _ in range(2)]
        return statistics.mean(job.result() for job in jobs) / 2


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
    """{name: function that returns seconds per replica-epoch}; a name starts with its architecture,
    unless `mlp`."""
    counts, slow = (1, 4, 8, 16) if device == "cpu" else (1, 8, 64, 128), pairs // 2
    others = [
        name
        for name, cls in models.ARCHITECTURES.items()
        if not ("_" in name or name == "mlp" or issubclass(cls, Dose))
    ]
    return {
        **{f"mlp, {n} together": lambda n=n: batched(pairs, device, "mlp", n) for n in counts},
        **{
            f"{name}, 8 together": lambda name=name: batched(slow, device, name, 8)
            for name in others
        },
        "two trainings of 8 mlp at once": lambda: side_by_side(pairs, device),
        "DataLoader loop": lambda: peers.dataloader(slow),
        "DataLoader loop, a process per core": lambda: peers.processes(slow),
        **({"skorch": lambda: peers.skorch(slow)} if find_spec("skorch") else {}),
        "vmap as in the tutorial, 8 together": lambda: peers.tutorial_vmap(slow),
    }


def speed(pairs: int, device: str, rounds: int) -> pd.DataFrame:
    """Every contestant once per round; medians over rounds."""
    what, work, rates = (
        contestants(pairs, device),
        {n: multiply_adds(n) for n in models.ARCHITECTURES},
        [peak(device)],
    )
    times, ratios = {name: [] for name in what}, {name: [] for name in what}
    for i in range(rounds):
        for name, seconds in what.items():
            times[name].append(seconds())
            rates.append(peak(device))
            floor = work.get(name.split(",")[0], work["mlp"]) * EPOCH / max(rates[-2:])
            ratios[name].append(times[name][-1] / floor)
        print(f"round {i + 1} of {rounds}", flush=True)
    lowest, rate, highest = (2e-9 * f(rates) for f in (min, statistics.median, max))
    print(
        f"peak rate {rate:.0f} GFLOP/s (median; {lowest:.0f} to {highest:.0f}); multiply-adds per pair in all:"
    )
    print(", ".join(f"{name} {count:,}" for name, count in work.items()))
    table = pd.DataFrame(
        {"what": list(what), "s per replica-epoch": map(statistics.median, times.values())}
    )
    for name, f in (("x floor", statistics.median), ("lowest", min), ("highest", max)):
        table[name] = list(map(f, ratios.values()))
    loop = table["s per replica-epoch"][table["what"] == "DataLoader loop"].item()
    return table.assign(**{"x faster than the loop": loop / table["s per replica-epoch"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=12_000, help="per epoch that is timed")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, help="a folder to write the tables to")
    chosen = parser.parse_args()
    print(
        f"torch {torch.__version__}, {chosen.device}, {torch.get_num_threads()} threads, {os.cpu_count()} cores"
    )
    for name, rows in (
        ("speed", (chosen.pairs, chosen.device, chosen.rounds)),
        ("growth", (chosen.device, chosen.pairs // 2)),
    ):
        table = {"speed": speed, "growth": growth}[name](*rows)
        print("\n" + table.to_markdown(index=False, floatfmt=".3g") + "\n", flush=True)
        if chosen.out:
            chosen.out.mkdir(parents=True, exist_ok=True)
            table.to_csv(
                chosen.out / f"{name}-{chosen.device}.csv", index=False, float_format="%.4g"
            )


if __name__ == "__main__":
    main()
