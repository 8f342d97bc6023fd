"""Speed and memory of training, in one run: python benchmarks/benchmark.py (or make benchmark). About six minutes on two cores.

Seconds are per replica-epoch: one network, 60,000 pairs, held-out evaluation included. The floor is the multiply-adds of forward
and backward over the rate of a large float32 matrix product with all cores. These machines are noisy: everything takes its turn
in each round, the rate is measured again around every timing, ratios are medians over rounds, and ratios are what to read.
"""

import argparse
import contextlib
import io
import multiprocessing
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import peers
import psutil
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modvar_lib import data, figures, models, training
from modvar_lib.settings import Settings

EPOCH = peers.EPOCH
GROWTH = {  # what grows, and the value of the others meanwhile
    "replicas": ([1, 2, 4, 8, 16, 32, 64], 8),
    "epochs": ([1, 2, 4, 8], 2),
    "batch_size": ([64, 128, 256, 512, 1024], 256),
    "width": ([32, 64, 128, 256, 512], 128),
}


def multiply_adds(name: str) -> int:
    """Of forward and backward for one pair, as PyTorch's FlopCounterMode counts them; none for the gradient of the pixels."""
    network = models.initial(name, 0)
    with FlopCounterMode(display=False) as counted:
        network(torch.zeros(1, 2, 28, 28)).sum().backward()
    return counted.get_total_flops() // 2


def peak(device: str, size: int = 4096, seconds: float = 1.0) -> float:
    """Multiply-adds a second of a large float32 matrix product: the best of the products that fit in `seconds`."""
    a, b, out = (torch.rand(size, size, device=device) for _ in range(3))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, size**3 / (time.perf_counter() - started))
    return best


def batched(splits, pairs: int, device: str, architecture: str, replicas: int) -> float:
    """Seconds per replica-epoch of `training.train`, start-up left out."""
    seconds = []
    for epochs in (1, 3):  # the second minus the first: two epochs without the start
        settings = Settings(
            architecture=architecture,
            regime="varying",
            seeds=range(replicas),
            epochs=epochs,
            final_epochs=1,
            device=device,
            pairs_per_epoch=pairs,
            test_pairs=max(2, 5_000 * pairs // EPOCH),
        )
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            training.train(settings, splits)
        seconds.append(time.perf_counter() - started)
    return (seconds[1] - seconds[0]) / 2 / replicas * EPOCH / pairs


def side_by_side(splits, pairs: int) -> float:
    """Seconds per replica-epoch of two trainings of 8 `mlp` at once, both counted."""

    def one():
        settings = Settings(
            seeds=range(8), epochs=2, final_epochs=1, device="cpu", pairs_per_epoch=pairs
        )
        training.train(settings, splits)

    both = [threading.Thread(target=one) for _ in range(2)]
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
    seconds = time.perf_counter() - started
    return seconds / 2 / 8 / 2 * EPOCH / pairs


def wide(width: int) -> str:
    """Register `mlp` at another width, the second layer half as wide; its name."""

    class Wide(models.MLP):
        def __init__(self):
            super().__init__()
            self.hidden1 = models.with_relu(nn.Linear(2 * 28 * 28, width))
            self.hidden2 = models.with_relu(nn.Linear(width, width // 2))
            self.bottleneck = nn.Linear(width // 2, 2)

    Wide.__name__ = f"Wide{width}"
    models.architecture(Wide)
    return Wide.__name__.lower()


def one_growth(what: str, value: int, device: str) -> dict:
    """Seconds per replica-epoch, seconds in all and peak GB of one training in this process."""
    at = {name: chosen for name, (_, chosen) in GROWTH.items()} | {what: value}
    splits = data.digits()
    settings = Settings(
        architecture=wide(at["width"]),
        seeds=range(at["replicas"]),
        epochs=at["epochs"],
        final_epochs=1,
        batch_size=at["batch_size"],
        pairs_per_epoch=6_144,
        test_pairs=512,
        device=device,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        training.train(settings.model_copy(update={"epochs": 1, "pairs_per_epoch": 1024}), splits)
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is of reading the digits
        started = time.perf_counter()
        training.train(settings, splits)
    seconds = time.perf_counter() - started
    if device == "cpu":
        status = Path("/proc/self/status").read_text()
        peak_gb = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    else:
        peak_gb = torch.cuda.max_memory_allocated() / 1e9
    each = seconds / at["replicas"] / at["epochs"] * EPOCH / settings.pairs_per_epoch
    return {
        "grows": what,
        "value": value,
        "s per replica-epoch": each,
        "s in all": seconds,
        "peak GB": peak_gb,
    }


def growth(device: str) -> pd.DataFrame:
    """Time and memory against each of GROWTH, every value in a fresh process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__"])  # imported once, not for every value
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as fresh:
        todo = [(what, value) for what, (values, _) in GROWTH.items() for value in values]
        return pd.DataFrame([fresh.submit(one_growth, *one, device).result() for one in todo])


def growth_figure(table: pd.DataFrame, label: str):
    """Time above, memory below, a column for each thing that grows."""
    import matplotlib.pyplot as plt

    figures.style()
    figure, axes = plt.subplots(
        2,
        len(GROWTH),
        figsize=(figures.PAGE, 3.4),
        sharex="col",
        sharey="row",
        layout="constrained",
    )
    for column, what in zip(axes.T, GROWTH):
        part = table[table["grows"] == what]
        for ax, y in zip(column, ("s per replica-epoch", "peak GB")):
            ax.plot(part["value"], part[y], "o-", color=figures.COLOURS[0])
            ax.set(xscale="log", ylim=(0, 1.15 * table[y].max()))
            ax.set_xticks(part["value"], [str(v) for v in part["value"]])
            ax.minorticks_off()
        column[1].set_xlabel(what.replace("_", " "))
    axes[0][0].set_ylabel("s per replica-epoch")
    axes[1][0].set_ylabel("peak memory, GB")
    figure.suptitle(label)
    return figure


def shown(table: pd.DataFrame) -> None:
    print("\n" + table.to_markdown(index=False, floatfmt=".3g") + "\n", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--pairs", type=int, default=12_000, help="pairs an epoch that is timed")
    arguments.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments.add_argument(
        "--out", type=Path, help="a folder to write the tables and the figure to"
    )
    chosen = arguments.parse_args()
    device, pairs = chosen.device, chosen.pairs

    splits, started = data.digits(), time.perf_counter()
    machine = (
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {psutil.cpu_count()} cores"
    )
    print(f"{machine}, {device if device == 'cpu' else torch.cuda.get_device_name()}")
    alone = pairs // 2  # of the slow ones
    loops = {
        "DataLoader loop": (peers.dataloader, peers.mnist()),
        "DataLoader loop with Normalize": (peers.dataloader, peers.mnist(peers.NORMALIZE)),
    }
    if find_spec("skorch"):
        loops["skorch"] = (peers.skorch, loops["DataLoader loop"][1])
    else:
        print("skorch is not installed: pip install skorch")
    counts = (1, 4, 8, 16) if device == "cpu" else (1, 8, 64, 128)
    usual = counts[-2]
    contestants = {
        **{
            f"mlp, {n} together": lambda n=n: batched(splits, pairs, device, "mlp", n)
            for n in counts
        },
        **{
            f"{name}, {usual} together": lambda name=name: batched(
                splits, pairs // 2, device, name, usual
            )
            for name, cls in models.ARCHITECTURES.items()
            if name != "mlp" and not issubclass(cls, models.Dose)
        },
        **{name: lambda f=f, s=s: f(s, alone) for name, (f, s) in loops.items()},
        "DataLoader loop, a process a core": lambda: peers.processes(alone),
        "vmap as in the tutorial, 8 together": lambda: peers.tutorial_vmap(splits[0], alone, 8),
        "two trainings of 8 mlp at once": lambda: side_by_side(splits, pairs),
    }
    times = {name: [] for name in contestants}
    ratios = {name: [] for name in contestants}
    work = {name: multiply_adds(name) for name in models.ARCHITECTURES}
    rates = [peak(device)]
    for i in range(chosen.rounds):
        for name, seconds in contestants.items():
            times[name].append(seconds())
            rates.append(peak(device))
            each = work.get(name.split(",")[0], work["mlp"]) * EPOCH / max(rates[-2:])
            ratios[name].append(times[name][-1] / each)
        print(
            f"round {i + 1} of {chosen.rounds}, {time.perf_counter() - started:.0f} s", flush=True
        )

    rate = statistics.median(rates)
    print(
        f"peak rate {2e-9 * rate:.0f} GFLOP/s (median; {2e-9 * min(rates):.0f} to {2e-9 * max(rates):.0f});"
        f" mlp: {work['mlp']:,} multiply-adds a pair, floor {work['mlp'] * EPOCH / rate:.3f} s per replica-epoch"
    )
    grown = growth(device)
    shown(grown)
    typical = {name: statistics.median(seconds) for name, seconds in times.items()}
    ours = typical[f"mlp, {usual} together"]
    speed = pd.DataFrame(
        {
            "what": name,
            "s per replica-epoch": seconds,
            "x floor": statistics.median(ratios[name]),
            "lowest": min(ratios[name]),
            "highest": max(ratios[name]),
            f"x slower than mlp, {usual} together": seconds / ours,
            "x faster than the loop": typical["DataLoader loop"] / seconds,
        }
        for name, seconds in typical.items()
    )
    shown(speed)
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        speed.to_csv(chosen.out / f"speed-{device}.csv", index=False, float_format="%.4g")
        grown.to_csv(chosen.out / f"growth-{device}.csv", index=False, float_format="%.4g")
        label = f"training `mlp`: 8 replicas, 2 epochs, batch 256, width 128 but for what grows ({device})"
        alt = "Seconds and memory of training by replicas, epochs, batch size and width."
        figures.save(growth_figure(grown, label), chosen.out / f"growth-{device}", alt)
    print(f"{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
