import pytest
import torch
from torch import nn

from modvar_lib import models
from modvar_lib.errors import InputError
from modvar_lib.models import ARCHITECTURES, Replicas, activations, initial

NAMES = list(ARCHITECTURES)


@pytest.fixture(scope="module")
def pairs():
    return torch.rand(3, 5, 2, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_layers_bottleneck_and_readout(name, pairs):
    out, seen = activations(initial(name, 0), pairs[0])
    layers = [layer for layer, when in seen if when == "post"]
    assert layers[-2:] == ["bottleneck", "readout"] and out.shape == (5, 1)
    assert seen["bottleneck", "post"].shape == (5, 2) and torch.equal(seen["readout", "post"], out)
    for layer in layers[:-2]:
        assert torch.equal(seen[layer, "pre"].relu(), seen[layer, "post"])
    assert torch.equal(seen["bottleneck", "pre"], seen["bottleneck", "post"])


@pytest.mark.parametrize(("name", "parameters"), [("mlp", 209_221), ("cnn", 26_149)])
def test_sizes_are_as_documented(name, parameters):
    assert sum(p.numel() for p in initial(name, 0).parameters()) == parameters
    assert f"{parameters:,} parameters" in ARCHITECTURES[name].__doc__


def test_the_seam_in_the_cnn_is_as_documented():
    """conv1 columns 8 and 9 and conv2 columns 3 and 4 see both halves, the columns before and after only one."""
    pair = torch.rand(1, 2, 28, 28, requires_grad=True)
    _, seen = activations(initial("cnn", 0), pair)
    for layer, shape, crossing in (("conv1", (8, 8, 18), {8, 9}), ("conv2", (16, 3, 8), {3, 4})):
        columns = seen[layer, "pre"].view(shape).sum((0, 1))
        sides = [
            torch.autograd.grad(c, pair, retain_graph=True)[0].abs().sum((0, 2, 3)) > 0
            for c in columns
        ]
        assert {i for i, (left, right) in enumerate(sides) if left and right} == crossing


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_are_the_seeds_own_and_leave_the_global_state_alone(name):
    before = torch.get_rng_state()
    first = initial(name, 3).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    again, other = initial(name, 3).state_dict(), initial(name, 4).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not any(torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("name", NAMES)
def test_replicas_compute_what_single_networks_do(name, pairs):
    replicas = Replicas(name, (5, 1, 9))
    for i, seed in enumerate((5, 1, 9)):
        assert torch.allclose(
            replicas(pairs)[i], initial(name, seed)(pairs[i]).squeeze(-1), atol=1e-6
        )
        weights = initial(name, seed).state_dict()
        assert all(torch.equal(value, weights[k]) for k, value in replicas.weights(i).items())


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(models, "ARCHITECTURES", dict(ARCHITECTURES))


class Wide(nn.Module):
    """A network of a user's own, with a bottleneck of the wrong width."""

    def __init__(self, width=3):
        super().__init__()
        self.bottleneck, self.readout = nn.Linear(1568, width), nn.Linear(width, 1)

    def forward(self, pairs):
        return self.readout(self.bottleneck(pairs.flatten(1)))


def test_a_module_of_the_users_own(registry, pairs):
    @models.architecture
    class Mine(Wide):
        def __init__(self):
            super().__init__(2)

    assert Replicas("mine", (0, 1, 2))(pairs).shape == (3, 5)


def test_a_module_without_the_right_layers_is_one_line(registry):
    models.architecture(Wide)
    with pytest.raises(
        InputError,
        match=r"^architecture: wide has layers .*'bottleneck': 3.*allowed: .*bottleneck with 2 units",
    ):
        Replicas("wide", (0,))


def test_buffers_are_refused(registry):
    @models.architecture
    class Normed(Wide):
        def __init__(self):
            super().__init__(2)
            self.bottleneck = nn.Sequential(nn.Linear(1568, 2), nn.BatchNorm1d(2))

    with pytest.raises(InputError, match=r"^architecture: normed has buffers"):
        Replicas("normed", (0,))
