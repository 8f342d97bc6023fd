import gzip
import shutil

import numpy as np
import pytest
import torch

from modvar_lib import data
from modvar_lib.errors import InputError


def raw(name: str, header: int) -> np.ndarray:
    """The bytes of an idx file after its header, read independently of torchvision."""
    content = gzip.decompress((data.ROOT / "data" / "MNIST" / "raw" / f"{name}.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=header)


def test_digits_are_the_files(splits):
    for split, name, n in zip(splits, ("train", "t10k"), (60_000, 10_000)):
        assert len(split) == n and split.images.dtype == torch.uint8
        assert np.array_equal(split.images.numpy().ravel(), raw(f"{name}-images-idx3-ubyte", 16))
        assert np.array_equal(split.labels.numpy(), raw(f"{name}-labels-idx1-ubyte", 8))


def test_halves_are_the_very_digits(splits):
    pairs = torch.from_numpy(data.training_pairs(3, 2, 50))
    halves = data.halves(splits[0].images, pairs)
    picture = data.side_by_side(halves)
    assert halves.shape == (50, 2, 28, 28) and picture.shape == (50, 28, 56)
    digits = splits[0].images.view(-1, 28, 28).float() / 255
    assert torch.allclose(picture[..., :28], digits[pairs[:, 0]]) and torch.allclose(
        picture[..., 28:], digits[pairs[:, 1]]
    )


def test_a_buffer_changes_nothing_but_the_memory(splits):
    pairs = torch.from_numpy(data.training_pairs(0, 0, 6)).view(2, 3, 2)
    buffer = torch.full((10_000,), -1.0)
    halves = data.halves(splits[0].images, pairs, buffer)
    assert torch.equal(halves, data.halves(splits[0].images, pairs))
    assert halves.data_ptr() == buffer.data_ptr() and (buffer[2 * 3 * 2 * 784 :] == -1).all()


def test_training_pairs_are_fresh_for_every_epoch_and_seed():
    first = data.training_pairs(0, 0, 1000)
    assert np.array_equal(first, data.training_pairs(0, 0, 1000))
    for seed, epoch in ((0, 1), (1, 0)):
        assert (first == data.training_pairs(seed, epoch, 1000)).mean() < 0.01
    assert first.shape == (1000, 2) and first.min() >= 0 and first.max() < 60_000


def test_pairs_are_uniform_and_independent():
    left, right = data.training_pairs(0, 0, 60_000).T
    assert abs(left.mean() / 59_999 - 0.5) < 0.01 and abs(right.mean() / 59_999 - 0.5) < 0.01
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.02


def test_longer_evaluation_lists_start_with_the_shorter():
    assert np.array_equal(data.evaluation_pairs(4, 500)[:200], data.evaluation_pairs(4, 200))


@pytest.fixture
def copy(tmp_path, monkeypatch):
    shutil.copytree(data.ROOT / "data" / "MNIST", tmp_path / "MNIST")
    monkeypatch.setenv("MODVAR_DATA", str(tmp_path))
    return tmp_path / "MNIST" / "raw"


def test_a_missing_file_is_one_line(copy):
    (copy / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        InputError,
        match=r"^dataset: .*t10k-labels-idx1-ubyte.gz is missing; .*make data DATASET=MNIST$",
    ):
        data.digits("MNIST")


def test_a_damaged_file_is_one_line(copy):
    path = copy / "train-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^dataset: .*train-labels-idx1-ubyte.gz is damaged"):
        data.digits("MNIST")


def test_reading_writes_nothing_beside_the_files(copy):
    before = sorted(copy.iterdir())
    data.digits("MNIST")
    assert sorted(copy.iterdir()) == before


def test_other_data_sets_go_through_the_same_code(tmp_path, monkeypatch, splits):
    """FashionMNIST's real files are not at hand: MNIST's, under its name and with their checksums, must come out the same."""
    from torchvision import datasets

    monkeypatch.setenv("MODVAR_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"FashionMNIST/raw/train-images-idx3-ubyte.gz is missing"):
        data.digits("FashionMNIST")
    shutil.copytree(data.ROOT / "data" / "MNIST", tmp_path / "FashionMNIST")
    monkeypatch.setattr(datasets.FashionMNIST, "resources", datasets.MNIST.resources)
    assert torch.equal(data.digits("FashionMNIST")[1].images, splits[1].images)


def test_unknown_data_set_lists_the_known():
    with pytest.raises(
        InputError,
        match=r"^dataset: got 'MNITS'; allowed: MNIST, FashionMNIST, KMNIST \(did you mean MNIST\?\)$",
    ):
        data.files("MNITS")
