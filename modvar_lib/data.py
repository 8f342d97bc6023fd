"""Digits, pairs of digits side by side (left, right; 28 x 56 pixels in all), and the random
streams.

Letters: N pairs, P = 784 pixels of one digit. A pair is two row numbers into the images of one
split, so a pair costs 16 bytes and the images are in memory once. Training pairs use the 60,000
training digits, evaluation pairs the 10,000 others.
"""

import gzip
import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modvar_lib.errors import InputError, command, lookup

ROOT = Path(__file__).resolve().parents[1]
STREAMS = "weights pairs goals evaluation tables measures additive onehot many".split()
# New streams go to the end: what is published rests on their numbers.
RESERVED = 2**31  # seeds and epochs from here on are for measures that train; no study has them


def rng(stream: str, seed: int, index: int = 0) -> np.random.Generator:
    """The generator of one stream of one seed: every draw is a pure function of (stream, seed,
    index), no global random state is used, and streams, seeds and indices are independent of each
    other."""
    return np.random.default_rng([STREAMS.index(stream), seed, index])


@dataclass(frozen=True)
class Digits:
    """One split. images: [n, 784] uint8 in 0..255; labels: [n] int64 in 0..9."""

    images: Tensor
    labels: Tensor

    def to(self, device: str) -> "Digits":
        return Digits(self.images.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)


def folder(variable: str, default: str) -> Path:
    """The folder that an environment variable names, from the project's root. Errors:
    InputError."""
    path = os.environ.get(variable) or default
    try:
        return ROOT / Path(path).expanduser()
    except RuntimeError:  # ~ of nobody
        raise InputError(f"{variable}: got {path!r}; allowed: a folder") from None


def data_folder() -> Path:
    """The folder that holds MNIST/raw: the project's data/, or $MODVAR_DATA."""
    return folder("MODVAR_DATA", "data")


def files(dataset: str) -> list[Path]:
    """The four .gz files of a data set, present and with the checksums that torchvision knows; none
    of one that is made. Errors: InputError."""
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    if lookup(DATASETS, "dataset", dataset):
        return []  # it is made, not read
    sums = {data_folder() / dataset / "raw" / k: v for k, v in getattr(datasets, dataset).resources}
    for path, md5 in sums.items():
        if not check_integrity(path, md5):
            state = f"damaged, its MD5 is not {md5}" if path.is_file() else "missing"
            raise InputError(
                f"dataset: {path} is {state}; put the original there, or run: make data "
                f"DATASET={dataset}"
            )
    return [*sums]


def checksums(dataset: str) -> dict[str, str]:
    """SHA-256 of each file of a data set, or of the images of each split of one that is made."""
    parts = {path.name: path.read_bytes() for path in files(dataset)}
    if DATASETS[dataset]:
        parts = dict(zip(("train", "test"), (split.images.numpy() for split in digits(dataset))))
    return {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}


def digits(dataset: str = "MNIST") -> tuple[Digits, Digits]:
    """The training and the test split. Only local files are read; none is fetched or written."""
    if make := lookup(DATASETS, "dataset", dataset):
        return make()
    arrays = {path.name[:8]: torch.from_numpy(_idx(path)) for path in files(dataset)}
    return (
        Digits(arrays["train-im"].flatten(1), arrays["train-la"].long()),
        Digits(arrays["t10k-ima"].flatten(1), arrays["t10k-lab"].long()),
    )


def _idx(path: Path) -> np.ndarray:
    """A file in MNIST's format: 4 bytes of which the last is the number of dimensions, their sizes
    as big-endian 4-byte numbers, then one byte per value."""
    content = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(sizes).copy()


def one_hot() -> tuple[Digits, Digits]:
    """The data set OneHot, 60,000 and 10,000 pictures, always the same: digit d is a block of 10 x
    4 pixels, 200 brighter than the rest, at the d-th of ten places, in two rows of five. Every
    pixel has noise of its own, 0 to 32. The two splits share no noise.

    >>> _, test = one_hot()
    >>> picture = test.images[test.labels == 7][0].view(28, 28)
    >>> (picture >= 200).nonzero().amin(0).tolist(), int((picture >= 200).sum())
    ([16, 12], 40)
    """
    lit = np.zeros((10, 28, 28), np.uint8)
    for digit in range(10):
        top, left = 2 + 14 * (digit // 5), 1 + 5 * (digit % 5) + digit % 5 // 2
        lit[digit, top : top + 10, left : left + 4] = 200
    splits = []
    for split, count in enumerate((60_000, 10_000)):
        stream = rng("onehot", split)
        labels = stream.integers(10, size=count)
        images = stream.integers(33, size=(count, 28, 28), dtype=np.uint8) + lit[labels]
        splits.append(Digits(torch.from_numpy(images).flatten(1), torch.from_numpy(labels)))
    return tuple(splits)


# Names of torchvision.datasets classes, whose files are read, and functions that make a data set
DATASETS = {"MNIST": None, "FashionMNIST": None, "KMNIST": None, "OneHot": one_hot}


def training_pairs(seed: int, epoch: int, count: int, digits_in_split: int = 60_000) -> np.ndarray:
    """[count, 2] rows (left, right), uniform and independent, drawn afresh for every (seed,
    epoch)."""
    return rng("pairs", seed, epoch).integers(digits_in_split, size=(count, 2))


def evaluation_pairs(seed: int, count: int, digits_in_split: int = 10_000) -> np.ndarray:
    """[count, 4] rows (left, right, another left, another right) of a split; a longer list starts
    with the shorter."""
    return rng("evaluation", seed).integers(digits_in_split, size=(count, 4))


def halves(images: Tensor, pairs: Tensor, buffer: Tensor | None = None) -> Tensor:
    """What a network is given: [..., 2, 28, 28] float32 in 0..1 (pixel / 255), left and right half
    of each pair.

    pairs: [..., 2] rows of images. With `buffer`, 1-D and large enough, the result lies in it and
    lasts until its next use: fresh memory for every batch would cost three times as much as the
    gathering itself.
    """
    pixels = images.index_select(0, pairs.reshape(-1))
    if buffer is None:
        buffer = torch.empty(pixels.numel(), device=pixels.device)
    out = buffer[: pixels.numel()]
    return out.copy_(pixels.view(-1)).mul_(1 / 255).view(*pairs.shape, 28, 28)


def side_by_side(pair: Tensor) -> Tensor:
    """The picture: [..., 2, 28, 28] -> [..., 28, 56]."""
    return pair.transpose(-3, -2).flatten(-2)


def fetch(*names: str) -> None:
    """Download data sets by torchvision into the data folder: the one place that may fetch, and
    only when asked."""
    from torchvision import datasets

    for name in names:
        lookup({name: 0 for name, make in DATASETS.items() if not make}, "dataset", name)
        try:
            getattr(datasets, name)(data_folder(), download=True)
        except (RuntimeError, ConnectionError, TimeoutError):
            raise InputError(
                f"dataset: {name} cannot be downloaded; allowed: a network that reaches it, or its "
                f"files in {data_folder() / name / 'raw'}"
            ) from None
        print(f"{name} is in {data_folder() / name / 'raw'}")


if __name__ == "__main__":  # python -m modvar_lib.data KMNIST
    command(lambda: fetch(*sys.argv[1:]))
