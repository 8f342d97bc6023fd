import gzip
import itertools
import shutil
from unittest.mock import Mock
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import mnist

from modvar_lib import data
from modvar_lib.errors import InputError


def test_digits_are_the_files(splits):
    """Read by hand: the bytes of an idx file after its header."""
    for split, name, n in zip(splits, ("train", "t10k"), (60_000, 10_000)):
        assert len(split) == n and split.images.dtype == torch.uint8
        for values, kind, header in (
            (split.images, "images-idx3", 16),
            (split.labels, "labels-idx1", 8),
        ):
            path = data.ROOT / "data" / "MNIST" / "raw" / f"{name}-{kind}-ubyte.gz"
            raw = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)
            assert np.array_equal(values.numpy().ravel(), raw)


def test_halves_are_the_very_digits(splits):
    pairs = torch.from_numpy(data.training_pairs(3, 2, 50))
    halves = data.halves(splits[0].images, pairs)
    picture = data.side_by_side(halves)
    assert halves.shape == (50, 2, 28, 28) and picture.shape == (50, 28, 56)
    digits = splits[0].images.view(-1, 28, 28).float() / 255
    assert torch.allclose(picture[..., :28], digits[pairs[:, 0]])
    assert torch.allclose(picture[..., 28:], digits[pairs[:, 1]])


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


def test_streams_are_independent_of_each_other_and_keep_their_order():
    """What is published rests on their numbers: a new stream goes to the end."""
    published = "weights pairs goals evaluation tables measures additive".split()
    assert data.STREAMS[:7] == published
    keys = [*itertools.product(data.STREAMS, (0, 1), (0, 1))]
    assert len({data.rng(*key).integers(2**63) for key in keys}) == len(keys)
    drawn = data.rng("pairs", 3, 2).integers(60_000, size=2).tolist()
    assert drawn == data.training_pairs(3, 2, 1)[0].tolist()
    assert data.rng("weights", 7).integers(1000) == np.random.default_rng([0, 7, 0]).integers(1000)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    shutil.copytree(data.ROOT / "data" / "MNIST", tmp_path / "MNIST")
    monkeypatch.setenv("MODVAR_DATA", str(tmp_path))
    return tmp_path / "MNIST" / "raw"


def test_reading_writes_nothing_beside_the_files(copy):
    before = sorted(copy.iterdir())
    data.digits("MNIST")
    assert sorted(copy.iterdir()) == before


def other(content: bytes) -> bytes:
    """A whole file of other digits: every value one more."""
    values = np.frombuffer(gzip.decompress(content), np.uint8).copy()
    values[16:] += 1
    return gzip.compress(values.tobytes(), compresslevel=1)


def flipped(content: bytes) -> bytes:
    return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


@pytest.mark.parametrize(
    "damage", [None, other, flipped, lambda c: c[:5000], lambda c: b"", gzip.decompress]
)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
def test_a_file_that_is_not_whole_is_one_line(copy, name, damage):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(damage(content)) if damage else (copy / name).unlink()
    with pytest.raises(InputError, match=rf"^dataset: {copy} cannot be read \([^\n]*make data"):
        data.digits("MNIST")


def test_one_hot_digits_are_blocks_at_ten_places_with_noise_of_their_own():
    training, test = data.digits("OneHot")
    assert (len(training), len(test)) == (60_000, 10_000)
    assert data.checksums("OneHot") == data.checksums("OneHot")
    lit = test.images >= 200
    assert (lit.sum(1) == 40).all() and test.images.where(~lit, 0).max() == 32
    places = [lit[test.labels == digit].unique(dim=0) for digit in range(10)]
    assert all(len(place) == 1 for place in places) and torch.cat(places).sum(0).max() == 1
    assert places[7].view(28, 28).nonzero().amin(0).tolist() == [16, 12]
    counts = torch.bincount(training.labels) / 6000
    assert counts.min() > 0.95 and counts.max() < 1.05
    assert len(torch.cat([training.images[:1000], test.images[:1000]]).unique(dim=0)) == 2000


@pytest.mark.parametrize("error", [URLError("no network"), ConnectionResetError(), TimeoutError()])
def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch, error):
    """torchvision tries its mirrors and says so over five lines."""
    monkeypatch.setenv("MODVAR_DATA", str(tmp_path))
    monkeypatch.setattr(mnist, "download_and_extract_archive", Mock(side_effect=error))
    with pytest.raises(InputError, match=r"^dataset: KMNIST cannot be downloaded \([^\n]*$"):
        data.fetch("KMNIST")
