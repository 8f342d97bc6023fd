"""What one would write instead: the same networks, the same pairs, an epoch, then their error.

Every peer takes an architecture (`mlp`, `cnn`), pairs and replicas, and returns a `Result`.
`python benchmarks/peers.py loop mlp 12000 1` runs one alone.
"""

import argparse
import copy
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from modvar_lib import data, training

EPOCH, BATCH, RATE = 60_000, 256, 1e-3  # pairs; of Adam


class Result(NamedTuple):
    """Seconds per network and epoch of 60,000 pairs; held-out R² at its end, mean over networks;
    seconds to compile, which are not part of the first."""

    seconds: float
    r2: float
    compiling: float = 0.0


def network(architecture: str) -> nn.Sequential:
    """As one would write it: [B, 1, 28, 56] -> [B, 1]."""
    if architecture == "cnn":
        wide = [nn.Conv2d(1, 8, 5, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Flatten()]
        wide += [nn.Linear(384, 64), nn.ReLU()]
    else:
        wide = [nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()]
    return nn.Sequential(*wide, nn.Linear(64, 2), nn.Linear(2, 1))


def networks(architecture: str, replicas: int) -> list[nn.Sequential]:
    """The same for every peer."""
    torch.manual_seed(0)
    return [network(architecture) for _ in range(replicas)]


def rows(pairs: int, replicas: int) -> tuple[Tensor, Tensor]:
    """Training and held-out pairs of each network, [replicas, pairs, 2]."""
    learn = [data.training_pairs(seed, 0, pairs) for seed in range(replicas)]
    held = [data.evaluation_pairs(seed, max(2, pairs // 12))[:, :2] for seed in range(replicas)]
    return tuple(torch.stack([*map(torch.from_numpy, part)]) for part in (learn, held))


class Pairs(Dataset):
    """Two of torchvision's digits side by side, and the sum of their labels."""

    def __init__(self, digits, rows):
        self.digits, self.rows = digits, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        (left, x), (right, y) = (self.digits[row] for row in self.rows[i])
        return torch.cat([left, right], dim=2), torch.tensor([float(x + y)])


def torchvision_digits() -> list[datasets.MNIST]:
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root, "MNIST", "raw")
        raw.mkdir(parents=True)
        for path in data.files("MNIST"):
            (raw / path.name).symlink_to(path)
        make = transforms.ToTensor()
        return [datasets.MNIST(root, train, make, download=True) for train in (True, False)]


def r2(outputs: Tensor, targets: Tensor) -> float:
    """Mean over networks, [replicas, N, 1] each."""
    return float(torch.as_tensor(training.mse_and_r2(outputs, targets)[1]).mean())


def one_by_one(batches, held, nets) -> Result:
    """Train networks one after the other; batches, held: of each network pictures and targets."""
    started, loss, found = time.perf_counter(), nn.MSELoss(), []
    for net, learn, test in zip(nets, batches, held):
        optimizer = torch.optim.Adam(net.parameters(), RATE)
        for x, y in learn:
            optimizer.zero_grad()
            loss(net(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            outputs, targets = (torch.cat(t)[None] for t in zip(*((net(x), y) for x, y in test)))
        found.append(r2(outputs, targets))
    return Result((time.perf_counter() - started) / len(nets), sum(found) / len(nets))


def scaled(result: Result, pairs: int) -> Result:
    return result._replace(seconds=result.seconds * EPOCH / pairs)


def dataloader(architecture: str, pairs: int, replicas: int = 1) -> Result:
    """A Dataset and a DataLoader, as in tutorials."""
    learn, held = (
        [DataLoader(Pairs(split, one.tolist()), BATCH) for one in part]
        for split, part in zip(torchvision_digits(), rows(pairs, replicas))
    )
    return scaled(one_by_one(learn, held, networks(architecture, replicas)), pairs)


def memory() -> list[tuple[Tensor, Tensor]]:
    """(pixels [n, 28, 28] in 0..1, labels [n]) of both splits."""
    return [(s.images.view(-1, 28, 28).float() / 255, s.labels.float()) for s in data.digits()]


def taken(split: tuple[Tensor, Tensor], batch: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [..., 1, 28, 56] and sums [..., 1] of rows [..., 2]."""
    pixels, labels = split
    return data.side_by_side(pixels[batch]).unsqueeze(-3), labels[batch].sum(-1, keepdim=True)


def loop(architecture: str, pairs: int, replicas: int = 1) -> Result:
    """The same loop over tensors in memory."""
    learn, held = (
        [map(partial(taken, split), one.split(BATCH)) for one in part]
        for split, part in zip(memory(), rows(pairs, replicas))
    )
    return scaled(one_by_one(learn, held, networks(architecture, replicas)), pairs)


def processes(architecture: str, pairs: int) -> Result:
    """`loop` once per core, in processes of one thread each, all at once."""
    cores = len(os.sched_getaffinity(0))
    words = [sys.executable, __file__, "loop", architecture, str(pairs), "1"]
    options = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "stdout": subprocess.PIPE}
    running = [subprocess.Popen(words, text=True, **options) for _ in range(cores)]
    found = [Result(*map(float, process.communicate()[0].split())) for process in running]
    return Result(max(found).seconds / cores, found[0].r2)


def tutorial(architecture: str, pairs: int, replicas: int) -> Result:
    """Networks stacked as in PyTorch's tutorial on model ensembling, tensors in memory."""
    nets, (digits, test), (learn, held) = (
        networks(architecture, replicas),
        memory(),
        rows(pairs, replicas),
    )
    parameters, buffers = stack_module_state(nets)
    base = copy.deepcopy(nets[0]).to("meta")
    every = vmap(lambda parameters, buffers, x: functional_call(base, (parameters, buffers), (x,)))
    optimizer = torch.optim.Adam(parameters.values(), RATE)
    started = time.perf_counter()
    for batch in learn.split(BATCH, 1):
        x, y = taken(digits, batch)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(every(parameters, buffers, x), y) * replicas
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        tests = [taken(test, batch) for batch in held.split(BATCH, 1)]
        outputs = torch.cat([every(parameters, buffers, x) for x, _ in tests], 1)
    found = r2(outputs, torch.cat([y for _, y in tests], 1))
    return scaled(Result((time.perf_counter() - started) / replicas, found), pairs)


def in_jax(architecture: str, pairs: int, replicas: int) -> Result:
    """jit and vmap of JAX: an epoch is one compiled scan over its steps; Adam of optax."""
    import jax
    import jax.numpy as jnp
    import optax

    def answer(weights, x):  # [B, 28, 56]
        weights = iter(weights)
        if architecture == "cnn":
            x = x[:, None]
            for stride in (3, 2):
                x = jax.lax.conv(x, next(weights), (stride, stride), "VALID")
                x = jax.nn.relu(x + next(weights)[:, None, None])
        x = x.reshape(len(x), -1)
        for relu in (True, False, False) if architecture == "cnn" else (True, True, False, False):
            x = x @ next(weights).T + next(weights)
            x = jax.nn.relu(x) if relu else x
        return x

    def taken(split, batch):
        pixels, labels = split
        x = pixels[batch].astype(jnp.float32) / 255  # [B, 2, 28, 28]
        return x.swapaxes(1, 2).reshape(-1, 28, 56), labels[batch].sum(-1, keepdims=True)

    def loss(weights, split, batch):
        x, y = taken(split, batch)
        return jnp.square(answer(weights, x) - y).mean()

    adam = optax.adam(RATE)

    def epoch(weights, split, learn):
        def step(state, batch):
            weights, moments = state
            gradients = jax.vmap(jax.grad(loss), (0, None, 0))(weights, split, batch)
            change, moments = adam.update(gradients, moments)
            return (optax.apply_updates(weights, change), moments), None

        whole = learn.shape[1] // BATCH * BATCH
        steps = learn[:, :whole].reshape(replicas, -1, BATCH, 2).swapaxes(0, 1)
        state, _ = jax.lax.scan(step, (weights, adam.init(weights)), steps)
        if whole < learn.shape[1]:
            state, _ = step(state, learn[:, whole:])
        return state[0]

    def outputs(weights, split, held):
        return jax.vmap(lambda w, batch: answer(w, taken(split, batch)[0]))(weights, held)

    stacked = stack_module_state(networks(architecture, replicas))[0].values()
    weights = [jnp.asarray(one.detach().numpy()) for one in stacked]
    digits, test = (
        (jnp.asarray(s.images.view(-1, 28, 28).numpy()), jnp.asarray(s.labels.float().numpy()))
        for s in data.digits()
    )
    learn, held = (jnp.asarray(part.numpy()) for part in rows(pairs, replicas))
    started = time.perf_counter()
    epoch = jax.jit(epoch).lower(weights, digits, learn).compile()
    outputs = jax.jit(outputs).lower(weights, test, held).compile()
    compiled = time.perf_counter()
    found = jax.block_until_ready(outputs(epoch(weights, digits, learn), test, held))
    seconds = (time.perf_counter() - compiled) / replicas
    targets = test[1][held].sum(-1, keepdims=True)
    error = r2(*(torch.tensor(jax.device_get(part)) for part in (found, targets)))
    return scaled(Result(seconds, error, compiled - started), pairs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train one peer for an epoch.")
    peers = {one.__name__: one for one in (dataloader, loop, tutorial, in_jax)}
    parser.add_argument("peer", choices=peers)
    parser.add_argument("architecture", choices=("mlp", "cnn"))
    parser.add_argument("pairs", type=int)
    parser.add_argument("replicas", type=int)
    given = parser.parse_args()
    print(*peers[given.peer](given.architecture, given.pairs, given.replicas))
