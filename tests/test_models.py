from collections import OrderedDict
from itertools import product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modvar_lib import models
from modvar_lib.architectures import modern
from modvar_lib.data import side_by_side
from modvar_lib.errors import InputError
from modvar_lib.models import ARCHITECTURES, Replicas, activations, initial

NAMES = list(ARCHITECTURES)
TOWERS, SUMMED = ([name for name in NAMES if name.endswith(kind)] for kind in ("towers", "summed"))


@pytest.fixture(scope="module")
def pairs():
    return torch.rand(3, 5, 2, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_layers_bottleneck_and_readout(name, pairs):
    network = initial(name, 0)
    out, seen = activations(network, pairs[0])
    layers = [layer for layer, when in seen if when == "post"]
    assert layers[-2:] == ["bottleneck", "readout"] and out.shape == (5, 1)
    assert seen["bottleneck", "post"].shape == (5, 2) and torch.equal(seen["readout", "post"], out)
    for layer in layers[:-2]:
        before, after = seen[layer, "pre"], seen[layer, "post"]
        has_relu = hasattr(getattr(network, layer), "relu")
        assert torch.equal(before.relu() if has_relu else before, after)
    assert torch.equal(seen["bottleneck", "pre"], seen["bottleneck", "post"])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*TOWERS, *SUMMED)])
def test_sizes_and_layers_are_as_documented(name, pairs):
    network = initial(name, 0)
    with FlopCounterMode(display=False) as counted:
        network(pairs[0, :1])
    said = " ".join(ARCHITECTURES[name].__doc__.split())
    assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in said
    assert f"{counted.get_total_flops() // 2:,} multiply-adds " in said


def sides(values, pair):
    """The halves of a pair that each value depends on, as a list of sets."""
    gradients = (torch.autograd.grad(v, pair, retain_graph=True)[0] for v in values)
    sizes = (gradient.abs().sum((0, 2, 3)) for gradient in gradients)
    return [{half for half, size in zip(("left", "right"), of) if size > 0} for of in sizes]


CROSSING = {  # (architecture, layer): shape, columns that see both digits
    ("cnn", "conv1"): ((8, 8, 18), {8, 9}),
    ("cnn", "conv2"): ((16, 3, 8), {3, 4}),
    ("resnet", "stem"): ((8, 7, 14), set()),
    ("resnet", "block1"): ((8, 7, 14), {5, 6, 7, 8}),
    ("resnet", "down"): ((16, 4, 7), {2, 3, 4}),
    ("resnet", "block2"): ((16, 4, 7), {0, 1, 2, 3, 4, 5, 6}),
}


@pytest.mark.parametrize(("name", "layer"), CROSSING)
def test_the_columns_that_see_across_the_seam_are_as_documented(name, layer):
    pair = torch.rand(1, 2, 28, 28, requires_grad=True)
    _, seen = activations(initial(name, 0), pair)
    shape, crossing = CROSSING[name, layer]
    found = sides(seen[layer, "pre"].view(shape).sum((0, 1)), pair)
    assert {i for i, halves in enumerate(found) if len(halves) == 2} == crossing


@pytest.mark.parametrize("name", ["vit", "mixer"])
def test_tokens_meet_in_the_first_block_and_not_before(name):
    pair = torch.rand(1, 2, 28, 28, requires_grad=True)
    _, seen = activations(initial(name, 0), pair)
    tokens = [seen[layer, "post"].view(8, 32).square().sum(1) for layer in ("patches", "block1")]
    assert sides(tokens[0], pair) == 4 * [{"left"}] + 4 * [{"right"}]
    assert sides(tokens[1], pair) == 8 * [{"left", "right"}]


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_does_not_depend_on_the_other_digit(name, pairs):
    """Exactly: not its activations, not its gradients."""
    network, exchanged = initial(name, 0), pairs[0].clone()
    exchanged[:, 1] = pairs[1, :, 1]
    pair = pairs[0].clone().requires_grad_()
    (_, before), (_, after) = (activations(network, p) for p in (pair, exchanged))
    for layer, when in list(before)[:-4]:
        (left, right), (same, other) = (seen[layer, when].chunk(2, 1) for seen in (before, after))
        assert torch.equal(left, same) and not torch.equal(right, other)
        (gradient,) = torch.autograd.grad(right.square().sum(), pair, retain_graph=True)
        assert (gradient[:, 0] == 0).all() and (gradient[:, 1] != 0).any()


@pytest.mark.parametrize("name", TOWERS)
def test_towers_are_half_as_wide_as_their_family(name):
    family = "mlp" if name == "towers" else name.removesuffix("_towers")
    pair = torch.zeros(1, 2, 28, 28)
    of_towers, of_family = (activations(initial(one, 0), pair)[1] for one in (name, family))
    assert list(of_towers) == list(of_family)
    shares = [of_towers[tap].shape[1] / of_family[tap].shape[1] for tap in of_family]
    assert all(0.3 < share <= 1 for share in shares) and shares[-5] == 1


@pytest.mark.parametrize("name", SUMMED)
def test_summed_is_symmetric(name, pairs):
    """Exactly: with the digits exchanged, every unit says the same."""
    network = initial(name, 0)
    (out, seen), (again, mirrored) = (activations(network, p) for p in (pairs[0], pairs[0].flip(1)))
    assert torch.equal(out, again) and all(torch.equal(seen[tap], mirrored[tap]) for tap in seen)


@pytest.mark.parametrize(("name", "c"), [("dose05", 0.05), ("dose50", 0.5)])
def test_a_dose_is_mlp_with_weights_across_the_sides_times_c(name, c, pairs):
    network, plain = initial(name, 3), initial("mlp", 3)
    for layer, inputs, units in (("hidden1", 1568, 128), ("hidden2", 128, 64)):
        weight = getattr(plain, layer).map.weight.data
        weight[: units // 2, inputs // 2 :] *= c
        weight[units // 2 :, : inputs // 2] *= c
    assert torch.allclose(network(pairs[0]), plain(pairs[0]), atol=1e-6)


def test_patches_are_the_quarters_of_each_digit():
    module = modern.Patches(196)
    torch.nn.init.eye_(module.map.weight)
    torch.nn.init.zeros_(module.map.bias)
    torch.nn.init.zeros_(module.position)
    pair = torch.rand(1, 2, 28, 28)
    for token, (half, top, left) in enumerate(product((0, 1), (0, 14), (0, 14))):
        expected = pair[0, half, top : top + 14, left : left + 14].flatten()
        assert torch.allclose(module(pair)[0, token], expected)


def test_attention_against_torch():
    module, tokens = modern.Attention(32, 2), torch.rand(8, 5, 32)
    theirs = nn.MultiheadAttention(32, 2)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(module.qkv.weight)
        theirs.in_proj_bias.copy_(module.qkv.bias)
        theirs.out_proj.load_state_dict(module.out.state_dict())
        assert torch.allclose(module(tokens), theirs(tokens, tokens, tokens)[0], atol=1e-6)


def test_a_stem_is_a_convolution_alone_and_in_replicas():
    """Outputs and all three gradients, against torch's own, for one picture batch and under
    vmap."""
    torch.manual_seed(0)
    stem, plain = models.Stem(8, 5, stride=3).double(), nn.Conv2d(1, 8, 5, stride=3).double()
    plain.load_state_dict(stem.state_dict())
    pictures = torch.rand(3, 2, 28, 28, dtype=torch.double, requires_grad=True)
    theirs = pictures.detach().clone().requires_grad_()
    ours, wanted = stem(pictures), plain(torch.cat([theirs[:, 0], theirs[:, 1]], -1).unsqueeze(1))
    weights = torch.rand_like(ours)
    (ours * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert torch.allclose(ours, wanted) and torch.allclose(pictures.grad, theirs.grad)
    assert torch.allclose(stem.weight.grad, plain.weight.grad)
    assert torch.allclose(stem.bias.grad, plain.bias.grad)


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_are_the_seeds_own_and_leave_the_global_state_alone(name):
    before = torch.get_rng_state()
    first = initial(name, 3).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    again, other = initial(name, 3).state_dict(), initial(name, 4).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    drawn = [k for k in first if ".norm." not in k and first[k].unique().numel() > 1]
    assert len(drawn) >= 6 and not any(torch.equal(first[k], other[k]) for k in drawn)


@pytest.mark.parametrize("name", NAMES)
def test_replicas_compute_what_single_networks_do(name, pairs):
    replicas = Replicas([initial(name, seed) for seed in (5, 1, 9)])
    for i, seed in enumerate((5, 1, 9)):
        assert torch.allclose(replicas(pairs)[i], initial(name, seed)(pairs[i]), atol=1e-6)
        weights = initial(name, seed).state_dict()
        assert all(torch.equal(value, weights[k]) for k, value in replicas.weights(i).items())


class Scan(nn.Module):
    """A layer of PyTorch's own recurrence, over the rows of the picture."""

    def __init__(self, recurrence):
        super().__init__()
        self.recurrence = recurrence(56, 16, batch_first=True)

    def forward(self, pairs):
        return self.recurrence(side_by_side(pairs))[0][:, -1]


class Moved(nn.Linear):
    """A layer that turns on the sign of its first answer."""

    def forward(self, x):
        out = super().forward(x.flatten(1))
        return out if out[0, 0] > 0 else -out


BATCHED = "cannot be trained as a batch of networks ("
UNFIT = {
    "aten::gru.input": lambda: Scan(nn.GRU),
    "aten::lstm.input": lambda: Scan(nn.LSTM),
    "random operation": lambda: nn.Sequential(nn.Flatten(), nn.Linear(1568, 16), nn.Dropout()),
    "data-dependent control flow": lambda: Moved(1568, 16),
    "has buffers": lambda: nn.Sequential(nn.Flatten(), nn.Linear(1568, 16), nn.BatchNorm1d(16)),
}


@pytest.mark.parametrize("reason", UNFIT)
def test_what_cannot_be_trained_in_a_batch_is_one_line_that_says_why(reason):
    """Each runs alone."""

    class Unfit(models.Family):
        wide = 16

        @classmethod
        def layers(cls, digits=2, divisor=1):
            yield "layer", UNFIT[reason]()

    network = Unfit()
    assert network(torch.zeros(3, 2, 28, 28)).shape == (3, 1)
    with pytest.raises(InputError) as caught:
        models.check("unfit", network)
    line = str(caught.value)
    assert line.startswith("architecture: unfit ") and reason in line.partition("; allowed: ")[0]
    assert "\n" not in line and (reason == "has buffers" or BATCHED in line)


def test_a_layer_gives_a_tensor():
    with pytest.raises(InputError, match=r"^architecture: layer gru gives a tuple; allowed: a "):
        activations(nn.Sequential(OrderedDict(gru=nn.GRU(28, 4))), torch.zeros(3, 2, 28))


def test_overwritten_activations_are_what_the_next_layer_sees_and_no_longer_afterwards(pairs):
    network = initial("cnn", 0)
    with models.patch_activations(network, "conv2", torch.zeros_like):
        out, seen = activations(network, pairs[0])
    assert (seen["conv2", "post"] == 0).all() and torch.allclose(out, out[:1].expand_as(out))
    assert (activations(network, pairs[0])[1]["conv2", "post"] != 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_connections_are_the_weights_before_the_readout(name):
    """Matrices and kernels of every linear map but the readout; no bias, no gain of a norm, no
    position."""
    network = initial(name, 0)
    maps = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    counted = sum(module.weight.numel() for module in maps if module is not network.readout)
    found = Replicas([network, initial(name, 1)]).connections()
    assert sum(weights[0].numel() for weights in found) == counted
