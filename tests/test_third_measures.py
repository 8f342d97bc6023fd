"""Separation, purity, subspace interchange and what is read before the nonlinearity: against a
second implementation that shares nothing with them, and by their properties."""

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from conftest import TOY
from scipy.linalg import block_diag
from torch import nn

from modvar_lib import data, metrics, models, training
from modvar_lib.metrics import (
    interchange,
    lesion,
    perturbations,
    preactivation,
    subspace_interchange,
)
from modvar_lib.metrics.subject import NO_EFFECT, NOTHING_VARIES, Subject
from modvar_lib.settings import Settings

NEW = ("separation", "purity", "subspace_interchange", "preactivation")
HIDDEN, LAYERS = ("hidden1", "hidden2"), ("hidden1", "hidden2", "bottleneck", "readout")
KEPT = {  # name: (architecture, regime, outputs)
    "mlp": ("mlp", "varying", 1),
    "towers": ("towers", "varying", 1),
    "summed": ("summed", "fixed", 1),
    "two outputs": ("mlp", "both", 2),
}


@pytest.fixture(scope="module")
def measured(splits):
    """{(layer, side, measure): (value, note)} of a network, from 1,000 draws."""
    draws = torch.from_numpy(data.evaluation_pairs(4, 1000, len(splits[1])))

    def measured(network, names=NEW):
        subject = Subject(network.requires_grad_(False), splits, draws, 4)
        rows = metrics.measure_network(subject, {name: metrics.METRICS[name] for name in names})
        return {(r["layer"], r["side"], r["measure"]): (r["value"], r["note"]) for r in rows}

    return measured


@pytest.fixture(scope="module")
def networks(splits):
    """{(name in KEPT, "untrained" | "trained"): network}."""
    found = {}
    for name, (architecture, regime, outputs) in KEPT.items():
        options = {**TOY, "architecture": architecture, "regime": regime, "pairs_per_epoch": 4000}
        (run,) = training.train(Settings(**options), splits)
        network = models.initial(architecture, 0, outputs)
        network.load_state_dict(run.weights)
        found[name, "untrained"] = models.initial(architecture, 1, outputs).requires_grad_(False)
        found[name, "trained"] = network.requires_grad_(False)
    return found


@pytest.fixture(scope="module")
def of(networks, measured):
    return {key: measured(network) for key, network in networks.items()}


# a second implementation


def maps(network, name):
    """[(weight, bias)] of the four layers, from both digits side by side, float64."""
    state = {key: value.double().numpy() for key, value in network.state_dict().items()}

    def of(layer, side=""):
        return [v for k, v in state.items() if k.startswith(f"{layer}.") and side in k]

    found = [of(layer) for layer in LAYERS]
    if name == "summed":
        found[0][0] = np.hstack([found[0][0]] * 2)
    if name == "towers":
        for number, layer in enumerate(HIDDEN):
            (left, bias), (right, other) = (of(layer, side) for side in (".left.", ".right."))
            found[number] = block_diag(left, right), np.concatenate([bias, other])
    return found


def run(network, x, after=-1):
    """Activations of the layers that follow layer number `after`, whose activations are x."""
    seen = []
    for number, (weight, bias) in list(enumerate(network))[after + 1 :]:
        x = x @ weight.T + bias
        x = x.clip(0) if number < 2 else x
        seen.append(x)
    return seen


def pixels(digits, draws):
    """The four pairs of every draw and of its mirror, in turn."""
    images, both = digits.images.numpy() / 255, np.vstack([draws, draws[:, [1, 0, 3, 2]]])
    columns = ((0, 1), (2, 1), (0, 3), (2, 3))
    return [np.hstack([images[both[:, i]], images[both[:, j]]]) for i, j in columns]


def four(network, digits, draws):
    """Their activations by layer."""
    return [run(network, pictures) for pictures in pixels(digits, draws)]


def power(matrix, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * values**exponent @ vectors.T


def effects(network, hidden2):
    """E|∂output/∂h|² of every unit of the three layers before the readout, by the chain rule."""
    (into, _), (bottleneck, _), (readout, _) = network[1:]
    slopes = readout @ bottleneck  # [outputs, units of hidden2]
    first = sum((((hidden2 > 0) * row @ into) ** 2).mean(0) for row in slopes)
    return first, (slopes**2).sum(0), (readout**2).sum(0)


def covariance(x, y):
    return (x.T @ y + y.T @ x) / (2 * len(x))


def of_units_and_rotations(a, b, c, d, effect):
    """Purity, balance; separation, two-sided, alignment."""
    a, b, c, d = (h * np.sqrt(effect) for h in (a, b, c, d))
    interaction = covariance(a - b - c + d, a - b - c + d) / 4
    left, right = (covariance(a - x, a - x) / 2 - interaction for x in (b, c))
    v_left, v_right = np.diag(left).clip(0), np.diag(right).clip(0)
    lead, total = v_left - v_right, (v_left + v_right + np.diag(interaction)).sum()
    balance = lead.sum() / total
    weaker = min(lead.clip(0).sum(), -lead.clip(None, 0).sum())
    yield "purity", 2 * weaker / total / (1 - abs(balance))
    yield "effect_balance", balance
    everything, net = np.trace(left + right + interaction), np.trace(left - right)
    size = np.linalg.svd(left - right, compute_uv=False).sum()
    yield "separation", size / everything
    yield "separation_two_sided", (size - abs(net)) / everything
    shown = abs(np.diag(left - right)).sum()
    yield "alignment", shown / size if size > 1e-9 * everything else np.nan


def of_directions(network, number, fitted, held_out):
    a, b, c, d = h = np.stack([seen[number] for seen in fitted])
    mean = h.mean((0, 1))
    spread = np.cov(h.reshape(-1, h.shape[-1]).T, bias=True)
    a, b, c, d = (x - mean for x in h)
    apart = (covariance(a, c) + covariance(b, d)) / 2 - (covariance(a, b) + covariance(c, d)) / 2
    answer, *wanted = (seen[-1] for seen in held_out[:3])
    moved = sum(((answer - other) ** 2).sum(1).mean() for other in wanted)
    for name, ridge in (("", 1e-3), ("_ridge_2", 1e-2)):
        with_ridge = spread + ridge * np.trace(spread) * np.eye(len(spread))
        root, inverse = power(with_ridge, 0.5), power(with_ridge, -0.5)
        values, vectors = np.linalg.eigh(inverse @ apart @ inverse)
        error = 0
        for chosen, other in zip((values >= 0.05, values <= -0.05), wanted):
            projection = root @ vectors[:, chosen] @ vectors[:, chosen].T @ inverse
            base, source = held_out[0][number], held_out[3][number]
            changed = base + (source - base) @ projection.T
            error += ((run(network, changed, number)[-1] - other) ** 2).sum(1).mean()
        yield f"subspace_interchange{name}", 1 - (error / 2) / (moved / 4)


@pytest.mark.parametrize("stage", ["untrained", "trained"])
@pytest.mark.parametrize("name", KEPT)
def test_against_a_second_implementation(name, stage, of, networks, splits):
    network = maps(networks[name, stage], KEPT[name][0])
    held_out = four(network, splits[1], data.evaluation_pairs(4, 1000, len(splits[1])))
    fitted = four(network, splits[0], data.evaluation_pairs(4, 2000, len(splits[0])))
    effect = effects(network, np.vstack([seen[1] for seen in held_out]))
    for number, layer in enumerate(LAYERS[:-1]):
        units = of_units_and_rotations(*(seen[number] for seen in held_out), effect[number])
        for measure, value in (*units, *of_directions(network, number, fitted, held_out)):
            found, _ = of[name, stage][layer, "both", measure]
            assert found == pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True), (layer, measure)


# properties


@pytest.mark.parametrize("stage", ["untrained", "trained"])
def test_the_ends_of_the_scale_are_exact(stage, of):
    towers, summed = ({k: v for k, (v, _) in of[n, stage].items()} for n in ("towers", "summed"))
    for layer in HIDDEN:
        for measure in ("purity", "separation", "alignment"):
            assert towers[layer, "both", measure] == pytest.approx(1, abs=1e-6)
        for measure in ("subspace_interchange", "subspace_interchange_ridge_2"):
            assert 0.98 <= towers[layer, "both", measure] <= 1
            assert summed[layer, "both", measure] == pytest.approx(-1, abs=1e-6)
        for measure in ("purity", "separation", "separation_two_sided", "effect_balance"):
            assert summed[layer, "both", measure] == pytest.approx(0, abs=1e-6)
        value, note = of["summed", stage][layer, "both", "alignment"]
        assert np.isnan(value) and note


def test_untrained_networks_are_at_their_levels(of):
    bands = {"purity": (0.03, 0.3), "separation": (0.3, 0.7), "subspace_interchange": (-0.5, 0.5)}
    for layer in HIDDEN:
        for measure, (low, high) in bands.items():
            assert low < of["mlp", "untrained"][layer, "both", measure][0] < high, (layer, measure)


@pytest.mark.parametrize("layer", HIDDEN)
def test_rotated_towers_are_pure_in_directions_alone(layer, of, networks, measured):
    plain = of["towers", "untrained"]
    turned = measured(perturbations.rotated(networks["towers", "untrained"], layer), NEW[:3])
    assert turned[layer, "both", "purity"][0] < 0.3  # its floor: that of an untrained network
    assert turned[layer, "both", "alignment"][0] < 0.5
    assert turned[layer, "both", "separation"][0] > 0.75  # its scale, of effects, is that of units
    for measure in subspace_interchange.RIDGES:
        key = (layer, "both", measure)
        assert turned[key][0] == pytest.approx(plain[key][0], abs=1e-3)


@pytest.mark.parametrize("layer", HIDDEN)
@pytest.mark.parametrize("stage", ["untrained", "trained"])
def test_a_linear_map_of_a_layer_hardly_changes_its_subspaces(stage, layer, of, networks, measured):
    """A map of condition number 2, undone in the next layer."""
    key = (layer, "both", "subspace_interchange")
    units = dict(networks["mlp", stage].named_children())[layer].map.out_features
    normal = torch.randn(2, units, units, generator=torch.Generator().manual_seed(0))
    first, second = map(perturbations.haar, normal)
    there = first * torch.linspace(1, 2, units) @ second
    back = torch.linalg.inv(there.double()).float()
    mapped = perturbations.mapped(
        networks["mlp", stage], layer, lambda h: h @ there, lambda h: h @ back
    )
    found = measured(mapped, ["subspace_interchange"])
    assert found[key][0] == pytest.approx(of["mlp", stage][key][0], abs=0.02)


# what has no value


def mlp():
    return models.initial("mlp", 1).requires_grad_(False)


def silent(network):
    network.hidden2.map.bias[:] = -1e6
    return {"hidden1": NO_EFFECT, "hidden2": NOTHING_VARIES, "bottleneck": NOTHING_VARIES}


def constant(network):
    network.hidden1.map.weight.zero_()
    network.hidden1.map.bias[:] = torch.linspace(0, 1, 128)
    return dict.fromkeys(LAYERS[:-1], NOTHING_VARIES)


def constant_but_for_rounding(network):
    network.hidden1.map.weight.mul_(1e-6)
    network.hidden1.map.bias[:] = torch.linspace(0, 1, 128)
    return dict.fromkeys(LAYERS[:-1], NOTHING_VARIES)


def blind_on_the_right(network):
    network.hidden1.map.weight[:, 784:] = 0
    return dict.fromkeys(LAYERS[:-1], "the layer ignores a side")


def without_effect(network):
    network.bottleneck.weight.zero_()
    return {"hidden1": NO_EFFECT, "hidden2": NO_EFFECT, "bottleneck": NOTHING_VARIES}


@pytest.mark.parametrize(
    "change",
    [silent, constant, constant_but_for_rounding, blind_on_the_right, without_effect],
)
def test_where_there_are_no_two_sides_there_is_no_number(change, measured):
    network = mlp()
    why = change(network)
    found = measured(network)
    for (layer, _, measure), (value, note) in found.items():
        if measure not in metrics.METRICS["preactivation"].properties:
            assert np.isnan(value) and note == why[layer], (layer, measure, value)
        elif measure == "effective_dimensions" and why.get(layer) == NOTHING_VARIES:
            assert np.isnan(value) and note == NOTHING_VARIES, (layer, value)


def test_an_answer_that_ignores_a_side_is_no_test_of_subspaces(measured):
    """Every layer serves both sides; the readout reads the node that serves the left one."""
    network = models.initial("towers", 1).requires_grad_(False)
    network.bottleneck.weight[0, 32:] = 0
    network.readout.weight[0, 1] = 0
    found = measured(network, ["subspace_interchange"])
    for (layer, _, measure), (value, note) in found.items():
        assert np.isnan(value) and note, (layer, measure, value)


TWICE = (
    *metrics.METRICS["purity"].properties,
    *metrics.METRICS["separation"].properties,
    *subspace_interchange.RIDGES,
    *("dormant", "active_share", "preactivation_mean", "effective_dimensions"),
    *("offset_share_pre", "exchanged_share_pre", "norm_spread_pre"),
)


def test_units_there_twice_count_as_one_with_their_effect(measured):
    """A singular covariance: every unit of hidden2 twice, each with half its weight onwards."""
    plain, doubled = mlp(), mlp()
    before, after = doubled.hidden2.map, doubled.bottleneck
    doubled.hidden2.map, doubled.bottleneck = nn.Linear(128, 128), nn.Linear(128, 2)
    doubled.requires_grad_(False)
    doubled.hidden2.map.weight[:] = before.weight.repeat(2, 1)
    doubled.hidden2.map.bias[:] = before.bias.repeat(2)
    doubled.bottleneck.weight[:] = after.weight.repeat(1, 2) / 2
    doubled.bottleneck.bias[:] = after.bias
    first, second = measured(plain), measured(doubled)
    for measure in TWICE:
        key = ("hidden2", "both", measure)
        assert first[key][0] == pytest.approx(second[key][0], abs=1e-5), measure


# before the nonlinearity


def test_silence_by_hand(measured, splits):
    """Three units: one never on, one always, and one on where the left digit has much ink."""
    network = mlp()
    network.hidden1.map, network.hidden2.map = nn.Linear(1568, 3), nn.Linear(3, 64)
    network.requires_grad_(False)
    network.hidden1.map.weight.zero_()
    network.hidden1.map.bias[:] = torch.tensor([-5.0, 2.0, -150.0])
    network.hidden1.map.weight[2, :784] = 1
    found = {k[2]: v for k, (v, _) in measured(network, NEW[3:]).items() if k[0] == "hidden1"}
    draws = data.evaluation_pairs(4, 1000, len(splits[1]))[:, :2].ravel()  # and mirrored
    ink = splits[1].images.numpy()[draws].sum(1) / 255 - 150
    assert 0.01 < (ink > 0).mean() < 0.5
    assert found["dormant"] == pytest.approx(1 / 3)
    assert found["active_share"] == pytest.approx((1 + (ink > 0).mean()) / 3)
    assert found["preactivation_mean"] == pytest.approx((-5 + 2 + ink.mean()) / 3, rel=1e-5)
    assert found["effective_dimensions"] == pytest.approx(1)


def test_a_unit_that_is_rarely_on_is_dormant(measured, splits):
    draws = data.evaluation_pairs(4, 1000, len(splits[1]))[:, :2].ravel()
    ink = np.sort(splits[1].images.numpy()[draws].sum(1) / 255)[::-1]
    for on, share in ((19, 1), (21, 0)):  # of 2,000
        network = mlp()
        network.hidden1.map, network.hidden2.map = nn.Linear(1568, 1), nn.Linear(1, 64)
        network.requires_grad_(False)
        network.hidden1.map.weight[:] = (torch.arange(1568) < 784).float()
        network.hidden1.map.bias[:] = -float(ink[on - 1] + ink[on]) / 2
        assert measured(network, NEW[3:])["hidden1", "both", "dormant"][0] == share


def test_the_parts_of_the_score_before_the_nonlinearity(of, networks, splits):
    network, draws = maps(networks["mlp", "trained"], "mlp"), data.evaluation_pairs(4, 1000)
    seen, inputs = four(network, splits[1], draws), pixels(splits[1], draws)
    before = [inputs, [h[0] for h in seen], [h[1] for h in seen]]
    h = {
        layer: np.stack([x @ weight.T + bias for x in of_layer])
        for layer, of_layer, (weight, bias) in zip(LAYERS, before, network)
    }
    h["pooled"] = np.concatenate(list(h.values()), -1)
    for layer, (a, b, c, d) in h.items():
        flat = h[layer].reshape(-1, h[layer].shape[-1])
        norms = np.linalg.norm(flat, axis=1)
        offset = (flat.mean(0) ** 2).sum() / (norms**2).mean()
        t_left, t_right = (((a - x) ** 2).mean(0) / 2 for x in (b, c))
        interaction = ((a - b - c + d) ** 2).mean(0) / 4
        total = sum((t - interaction).clip(0) for t in (t_left, t_right)) + interaction
        wanted = {
            ("both", "offset_share_pre"): offset,
            ("both", "mean_norm_pre"): np.linalg.norm(flat.mean(0)),
            ("both", "norm_spread_pre"): norms.std() / norms.mean(),
        }
        for side, served in (("left", t_left), ("right", t_right)):
            part = served.sum() / total.sum()
            wanted[side, "exchanged_share_pre"] = part
            wanted[side, "activation_change_centred_pre"] = (2 * part) ** 0.5
            wanted[side, "activation_change_expected_pre"] = (2 * part * (1 - offset)) ** 0.5
        for key, value in wanted.items():
            found, _ = of["mlp", "trained"][layer, *key]
            assert found == pytest.approx(value, rel=1e-5, abs=1e-6), (layer, key)


def test_a_layer_without_a_nonlinearity_has_no_silent_units(of):
    for layer in ("bottleneck", "readout"):
        for measure in preactivation.ACTIVITY:
            value, note = of["mlp", "trained"][layer, "both", measure]
            assert np.isnan(value) and note == preactivation.LINEAR


# from the changed layer on


class Whole(nn.Sequential):
    """A network that does not say that it is a sequence, so that all of it runs."""

    def forward(self, pairs):
        return super().forward(pairs)


@pytest.mark.parametrize("name", [name for name in models.ARCHITECTURES if "dose" not in name])
def test_running_from_the_changed_layer_is_running_all_of_it(name, splits, monkeypatch):
    monkeypatch.setattr(subspace_interchange, "FITTED", 60)
    monkeypatch.setattr(interchange, "RANDOM_SETS", 2)
    network = models.initial(name, 1).requires_grad_(False)
    draws, found, ran = torch.from_numpy(data.evaluation_pairs(4, 20, 10_000)), [], []
    for one in (network, Whole(OrderedDict(copy.deepcopy(network).named_children()))):
        seen = []
        one[0].register_forward_hook(lambda _, args, out, seen=seen: seen.append(len(out)))
        subject = Subject(one, splits, draws, 4)
        rows = interchange.rows(subject) + lesion.rows(subject)
        rows += subspace_interchange.rows(subject, 600)
        keys = [(r["layer"], r["side"], r["measure"], r["note"]) for r in rows]
        found.append((keys, [r["value"] for r in rows]))
        ran.append(sum(seen))
    (keys, values), (again, whole) = found
    assert keys == again and len(keys) > 20 and ran[0] < 0.8 * ran[1]
    np.testing.assert_allclose(values, whole, rtol=1e-5, atol=1e-6)
