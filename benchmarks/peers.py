"""What one would write instead: `mlp` on the same pairs of digits for an epoch, then its error.

Every function returns seconds per network and epoch of 60,000 pairs. `python benchmarks/peers.py
PAIRS` runs the DataLoader loop.
"""

import argparse
import copy
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from modvar_lib import data, training

EPOCH = 60_000  # pairs


class Pairs(Dataset):
    """What one would write first: two of torchvision's digits side by side, and the sum of their
    labels."""

    def __init__(self, digits, rows):
        self.digits, self.rows = digits, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        (left, x), (right, y) = (self.digits[row] for row in self.rows[i])
        return torch.cat([left, right], dim=2), torch.tensor([float(x + y)])


def pair_sets(pairs: int) -> tuple[Pairs, Pairs]:
    """Training and held-out pairs of torchvision's MNIST, with the transform of tutorials."""
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root, "MNIST", "raw")
        raw.mkdir(parents=True)
        for path in data.files("MNIST"):
            (raw / path.name).symlink_to(path)
        digits = [
            datasets.MNIST(root, train, transforms.ToTensor(), download=True)
            for train in (True, False)
        ]
    rows = data.training_pairs(0, 0, pairs), data.evaluation_pairs(0, 5_000 * pairs // EPOCH)[:, :2]
    return tuple(Pairs(split, part.tolist()) for split, part in zip(digits, rows))


def network() -> nn.Module:
    first, second, *rest = [
        nn.Linear(*shape) for shape in ((1568, 128), (128, 64), (64, 2), (2, 1))
    ]
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), *rest)


def dataloader(pairs: int) -> float:
    """A Dataset, a DataLoader and one network: training, then R² on held-out pairs, as `train`
    does."""
    learn, test = (DataLoader(part, batch_size=256) for part in pair_sets(pairs))
    net, loss = network(), nn.MSELoss()
    optimizer = torch.optim.Adam(net.parameters())
    started, squared = time.perf_counter(), 0.0
    for x, y in learn:
        optimizer.zero_grad()
        error = loss(net(x), y)
        error.backward()
        optimizer.step()
        squared += error.item() * len(y)
    with torch.no_grad():
        outputs, targets = (torch.cat(t)[None] for t in zip(*((net(x), y) for x, y in test)))
    training.mse_and_r2(outputs, targets)
    return (time.perf_counter() - started) * EPOCH / pairs


def skorch(pairs: int) -> float:
    """The same network and Dataset in skorch's NeuralNetRegressor."""
    from skorch import NeuralNetRegressor
    from skorch.helper import predefined_split

    learn, test = pair_sets(pairs)
    options = {
        "batch_size": 256,
        "max_epochs": 1,
        "train_split": predefined_split(test),
        "verbose": 0,
    }
    net = NeuralNetRegressor(network(), optimizer=torch.optim.Adam, lr=1e-3, **options)
    started = time.perf_counter()
    net.fit(learn, y=None)
    return (time.perf_counter() - started) * EPOCH / pairs


def processes(pairs: int) -> float:
    """The DataLoader loop once per core, in processes of one thread each, all at once."""
    cores = len(os.sched_getaffinity(0))
    words, env = [sys.executable, __file__, str(pairs)], os.environ | {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) for _ in range(cores)
    ]
    return max(float(process.communicate()[0]) for process in running) / cores


def tutorial_vmap(pairs: int, replicas: int = 8) -> float:
    """Networks stacked as in PyTorch's tutorial on model ensembling, with Adam; pixels in memory,
    taken by indexing."""
    networks, (digits, _) = [network() for _ in range(replicas)], data.digits()
    parameters, buffers = stack_module_state(networks)
    base = copy.deepcopy(networks[0]).to("meta")

    def fmodel(parameters, buffers, x):
        return functional_call(base, (parameters, buffers), (x,))

    optimizer = torch.optim.Adam(parameters.values())
    images = digits.images.float() / 255
    rows = torch.stack(
        [torch.from_numpy(data.training_pairs(i, 0, pairs)) for i in range(replicas)]
    )
    started = time.perf_counter()
    for batch in rows.split(256, 1):
        x = images[batch].flatten(-2)  # [R, B, 1568]
        y = digits.labels[batch].sum(-1, keepdim=True).float()
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(vmap(fmodel)(parameters, buffers, x), y) * replicas
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - started) / replicas * EPOCH / pairs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=int, help="how many the DataLoader loop trains on")
    print(dataloader(parser.parse_args().pairs))
