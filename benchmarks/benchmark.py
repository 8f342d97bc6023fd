"""Speed and memory of training, in one run: python benchmarks/benchmark.py (or make benchmark). Takes about three minutes.

Prints seconds per replica-epoch (one network, 60,000 pairs) for several numbers of replicas trained together, for an ordinary
torchvision Dataset + DataLoader + one-model loop, and for the floor: the multiply-adds of forward and backward over the peak
rate of a large float32 matrix product at the same number of threads. These machines are noisy: the floor is measured again
around every timing, timings are medians over rounds in which everything takes its turn, and ratios are what to read.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from modvar_lib import data, models, training
from modvar_lib.settings import Settings

EPOCH = 60_000  # pairs


def multiply_adds(name: str) -> tuple[int, int]:
    """(forward, forward and backward) a pair. Backward: one product for the weights, one for the inputs but the first layer's."""
    forward = backward = 0
    network, first = models.initial(name, 0), True

    def count(layer, args, out):
        nonlocal forward, backward, first
        positions = out[0].numel() // layer.weight.shape[0]
        products = layer.weight.numel() * positions
        forward += products
        backward += products * (1 if first else 2)
        first = False

    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.zeros(1, 2, 28, 28))
    return forward, forward + backward


def peak(size: int = 4096, seconds: float = 1.5) -> float:
    """Multiply-adds a second of a large float32 matrix product: the best of the products that fit in `seconds`."""
    a, b, out = (torch.rand(size, size) for _ in range(3))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        best = max(best, size**3 / (time.perf_counter() - started))
    return best


def batched(name: str, replicas: int, pairs: int, splits) -> float:
    """Seconds per replica-epoch of `training.train`, evaluation on held-out pairs included, start-up left out."""
    short = {
        "architecture": name,
        "regime": "varying",
        "seeds": range(replicas),
        "final_epochs": 1,
        "device": "cpu",
    }
    seconds = []
    for epochs in (1, 3):  # the second minus the first: two epochs without the start
        settings = Settings(
            **short, epochs=epochs, pairs_per_epoch=pairs, test_pairs=max(2, 5_000 * pairs // EPOCH)
        )
        started = time.perf_counter()
        training.train(settings, splits)
        seconds.append(time.perf_counter() - started)
    return (seconds[1] - seconds[0]) / 2 / replicas * EPOCH / pairs


class Pairs(Dataset):
    """What one would write first: two digits of torchvision's MNIST side by side, and the sum of their labels."""

    def __init__(self, digits, rows):
        self.digits, self.rows = digits, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        (left, x), (right, y) = (self.digits[row] for row in self.rows[i])
        return torch.cat([left, right], dim=2), torch.tensor(float(x + y))


def dataloader(splits, pairs: int) -> float:
    """Seconds per epoch of a Dataset + DataLoader + one-model loop: training, then R² on held-out pairs, as `train` does."""
    training_digits, test_digits = splits
    rows = data.training_pairs(0, 0, pairs).tolist()
    held_out = data.evaluation_pairs(0, 5_000 * pairs // EPOCH)[:, :2].tolist()
    loader = DataLoader(Pairs(training_digits, rows), batch_size=256)
    test_loader = DataLoader(Pairs(test_digits, held_out), batch_size=256)
    layers = [
        nn.Linear(1568, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 2),
        nn.Linear(2, 1),
    ]
    network, loss = nn.Sequential(nn.Flatten(), *layers), nn.MSELoss()
    optimizer = torch.optim.Adam(network.parameters())
    started, squared = time.perf_counter(), 0.0
    for x, y in loader:
        optimizer.zero_grad()
        error = loss(network(x).squeeze(1), y)
        error.backward()
        optimizer.step()
        squared += error.item() * len(y)
    with torch.no_grad():
        outputs, targets = zip(*((network(x).squeeze(1), y) for x, y in test_loader))
    training.mse_and_r2(torch.cat(outputs)[None], torch.cat(targets)[None])
    return (time.perf_counter() - started) * EPOCH / pairs


def memory(name: str, replicas: int, epochs: int) -> float:
    """Peak resident memory in GB of a fresh process that trains so many replicas for so many epochs."""
    code = (
        "import resource; from modvar_lib import data, training; from modvar_lib.settings import Settings;"
        f"training.train(Settings(architecture={name!r}, seeds=range({replicas}), epochs={epochs}, final_epochs=1, device='cpu',"
        " pairs_per_epoch=10_000), data.digits());"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    return int(said.split()[-1]) * 1024 / 1e9


def torchvision_splits(*steps):
    """torchvision's MNIST, training and test, with a transform as tutorials use it."""
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root, "MNIST", "raw")
        raw.mkdir(parents=True)
        for path in data.files("MNIST"):
            (raw / path.name).symlink_to(path)
        transform = transforms.Compose([transforms.ToTensor(), *steps])
        return [datasets.MNIST(root, train, transform, download=True) for train in (True, False)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--architecture", default="mlp", choices=models.ARCHITECTURES)
    arguments.add_argument(
        "--replicas", default="1,4,8,16", help="numbers of replicas trained together"
    )
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument(
        "--pairs",
        type=int,
        default=20_000,
        help="pairs an epoch that are timed; results are per 60,000",
    )
    chosen = arguments.parse_args()
    name, counts = chosen.architecture, [int(n) for n in chosen.replicas.split(",")]
    forward, both = multiply_adds(name)
    splits = data.digits()
    loops = {  # the second is the transform of PyTorch's own MNIST example
        "DataLoader loop, one mlp": torchvision_splits(),
        "the same, with Normalize": torchvision_splits(transforms.Normalize((0.1307,), (0.3081,))),
    }
    print(
        f"{name}: {forward:,} multiply-adds forward, {both:,} forward and backward a pair, {EPOCH:,} pairs an epoch"
    )
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {psutil.cpu_count()} cores, CPU"
    )

    times = {label: [] for label in [*counts, *loops]}
    floors = {label: [] for label in times}
    rates = [peak()]
    for _ in range(chosen.rounds):
        for label, seconds in times.items():
            one = (
                dataloader(loops[label], 6_000)
                if label in loops
                else batched(name, label, chosen.pairs, splits)
            )
            seconds.append(one)
            rates.append(peak())
            floors[label].append(both * EPOCH / max(rates[-2:]))
    loop, normalized = (statistics.median(times[label]) for label in loops)
    print(
        f"\npeak rate: {2e-9 * statistics.median(rates):.0f} GFLOP/s (median; {2e-9 * min(rates):.0f} to {2e-9 * max(rates):.0f})"
    )
    print(f"floor: {both * EPOCH / statistics.median(rates):.3f} s per replica-epoch\n")
    print(
        "| trained together | s per replica-epoch | x floor | x faster than loop | than with Normalize | peak GB |"
    )
    print("|---|---|---|---|---|---|")
    for label, seconds in times.items():
        typical = statistics.median(seconds)
        ratio = statistics.median(s / f for s, f in zip(seconds, floors[label]))
        used = "" if label in loops else f"{memory(name, label, 2):.2f}"
        print(
            f"| {label} | {typical:.3f} | {ratio:.2f} | {loop / typical:.1f} | {normalized / typical:.1f} | {used} |"
        )
    few, many = (memory(name, 8, epochs) for epochs in (2, 12))
    print(f"\nmemory of 8 replicas: {few:.2f} GB after 2 epochs, {many:.2f} GB after 12")


if __name__ == "__main__":
    main()
