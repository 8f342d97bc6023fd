"""Digits, pairs of digits side by side (left, right; 28 x 56 pixels in all), and the random
streams.

Letters: N pairs, P = 784 pixels of one digit. A pair is two row numbers into the images of one
split, so a pair costs 16 bytes and the images are in memory once. Training pairs use the 60,000
training digits, evaluation pairs the 10,000 others.
"""

import gzip
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modvar_lib.errors import command, lookup, reading

ROOT = Path(__file__).resolve().parents[1]
STREAMS = ["weights", "pairs", "goals", "evaluation", "tables", "measures", "additive"]
STREAMS += ["onehot", "many"]
# New streams go to the end: what is published rests on their numbers.
RESERVED = 2**31  # seeds and epochs from here on are for measures that train; no study has them


def rng(stream: str, seed: int, index: int = 0) -> np.random.Generator:
    """The generator of one stream of one seed: every draw is a pure function of (stream, seed,
    index), and streams, seeds and indices are independent of each other."""
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
    """The folder that an environment variable names, from the project's root."""
    return ROOT / os.path.expanduser(os.environ.get(variable) or default)


def files(dataset: str) -> list[Path]:
    """The four .gz files of a data set, in $MODVAR_DATA or the project's data/; none of one that is
    made."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    raw = folder("MODVAR_DATA", "data") / dataset / "raw"
    return [] if lookup(DATASETS, "dataset", dataset) else [raw / f"{x}-ubyte.gz" for x in names]


def checksums(dataset: str) -> dict[str, str]:
    """SHA-256 of each file of a data set, or of the images of each split of one that is made."""
    parts = {path.name: path.read_bytes() for path in files(dataset)}
    if make := DATASETS[dataset]:
        parts = dict(zip(("train", "test"), (split.images.numpy() for split in make())))
    return {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}


def digits(dataset: str = "MNIST") -> tuple[Digits, Digits]:
    """The training and the test split. Only local files are read; none is fetched or written.
    Errors: InputError, when one is missing or damaged."""
    if make := lookup(DATASETS, "dataset", dataset):
        return make()
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    paths = files(dataset)
    mend = f"put the original files there, or run: make data DATASET={dataset}"
    with reading(f"dataset: {paths[0].parent} cannot be read", mend):
        for path, (_, md5) in zip(paths, getattr(datasets, dataset).resources):
            if not check_integrity(path, md5):
                raise ValueError(f"{path.name} is missing, or not the original file")
        images, labels, test_images, test_labels = map(_idx, paths)
        test = Digits(test_images.flatten(1), test_labels.long())
        return Digits(images.flatten(1), labels.long()), test


def _idx(path: Path) -> Tensor:
    """A file in MNIST's format: 4 bytes of which the last is the number of dimensions, their sizes
    as big-endian 4-byte numbers, then one byte per value."""
    content = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(content, ">i4", count=content[3], offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    return torch.from_numpy(values.reshape(sizes).copy())


def one_hot() -> tuple[Digits, Digits]:
    """The data set OneHot, 60,000 and 10,000 pictures, always the same: digit d is a block of 10 x
    4 pixels, 200 brighter than the rest, at the d-th of ten places, in two rows of five. Every
    pixel has noise of its own, 0 to 32."""
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
    return splits[0], splits[1]


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
    of each pair; pairs: [..., 2] rows of images.

    With `buffer`, 1-D and large enough, the result lies in it and lasts until its next use: fresh
    memory for every batch would cost three times as much as the gathering itself.
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
    """Download data sets by torchvision: the one place that may fetch, and only when asked."""
    from torchvision import datasets

    for name in names:
        lookup({name: 0 for name, make in DATASETS.items() if not make}, "dataset", name)
        raw = folder("MODVAR_DATA", "data") / name / "raw"
        with reading(f"dataset: {name} cannot be downloaded", f"allowed: its files in {raw}"):
            getattr(datasets, name)(raw.parents[1], download=True)
        print(f"{name} is in {raw}")


if __name__ == "__main__":
    command(fetch, "dataset...", about="Download data sets, such as KMNIST, into data/.")
