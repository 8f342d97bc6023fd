"""What one would write or pick instead: one `mlp`, or several, on the same pairs of MNIST digits, for one epoch, then R².

Every function returns seconds per network and epoch of 60,000 pairs. `python benchmarks/peers.py PAIRS` runs the DataLoader loop.
"""

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
NORMALIZE = transforms.Normalize((0.1307,), (0.3081,))  # as in PyTorch's own MNIST example


def mnist(*steps) -> tuple[Dataset, Dataset]:
    """torchvision's MNIST, training and test, with a transform as tutorials use it."""
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root, "MNIST", "raw")
        raw.mkdir(parents=True)
        for path in data.files("MNIST"):
            (raw / path.name).symlink_to(path)
        transform = transforms.Compose([transforms.ToTensor(), *steps])
        return tuple(
            datasets.MNIST(root, train, transform, download=True) for train in (True, False)
        )


class Pairs(Dataset):
    """What one would write first: two digits of torchvision's MNIST side by side, and the sum of their labels."""

    def __init__(self, digits, rows):
        self.digits, self.rows = digits, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        (left, x), (right, y) = (self.digits[row] for row in self.rows[i])
        return torch.cat([left, right], dim=2), torch.tensor([float(x + y)])


def pair_sets(splits, pairs: int) -> tuple[Pairs, Pairs]:
    held_out = data.evaluation_pairs(0, 5_000 * pairs // EPOCH)[:, :2]
    rows = data.training_pairs(0, 0, pairs)
    return Pairs(splits[0], rows.tolist()), Pairs(splits[1], held_out.tolist())


def network() -> nn.Module:
    layers = [(1568, 128), (128, 64), (64, 2), (2, 1)]
    linear = [nn.Linear(*shape) for shape in layers]
    return nn.Sequential(nn.Flatten(), linear[0], nn.ReLU(), linear[1], nn.ReLU(), *linear[2:])


def dataloader(splits, pairs: int) -> float:
    """A Dataset, a DataLoader, one network: training, then R² on held-out pairs, as `train` does."""
    learn, test = (DataLoader(part, batch_size=256) for part in pair_sets(splits, pairs))
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
        outputs, targets = (torch.cat(t) for t in zip(*((net(x), y) for x, y in test)))
    training.mse_and_r2(outputs.T, targets.T)
    return (time.perf_counter() - started) * EPOCH / pairs


def skorch(splits, pairs: int) -> float:
    """The same network and Dataset in skorch's NeuralNetRegressor."""
    from skorch import NeuralNetRegressor
    from skorch.helper import predefined_split

    learn, test = pair_sets(splits, pairs)
    net = NeuralNetRegressor(
        network(),
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=256,
        max_epochs=1,
        train_split=predefined_split(test),
        verbose=0,
    )
    started = time.perf_counter()
    net.fit(learn, y=None)
    return (time.perf_counter() - started) * EPOCH / pairs


def processes(pairs: int) -> float:
    """The DataLoader loop once a core, in processes of their own with one thread each, all at once."""
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, __file__, str(pairs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(cores)
    ]
    return max(float(process.communicate()[0]) for process in running) / cores


def tutorial_vmap(digits: data.Digits, pairs: int, replicas: int) -> float:
    """Networks stacked as in PyTorch's tutorial on model ensembling, with Adam; pixels in memory, gathered by indexing."""
    networks = [network() for _ in range(replicas)]
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
    print(dataloader(mnist(), int(sys.argv[1])))
