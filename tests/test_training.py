import importlib
import threading

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES

from modvar_lib import data, goals, models, training


def numbers(trained):
    return [
        trained.history.to_csv(),
        *(value.numpy().tobytes() for value in trained.weights.values()),
    ]


FEW_STEPS = {"regime": "varying", "epochs": 1, "final_epochs": 0, "pairs_per_epoch": 640}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_together_equals_one_at_a_time_over_the_first_steps(toy, splits, architecture):
    settings = toy(architecture=architecture, seeds=(2, 0, 1), **FEW_STEPS)
    for trained in training.train(settings, splits):
        (alone,) = training.train(trained.settings, splits)
        assert alone.settings == trained.settings
        assert np.allclose(alone.history, trained.history, rtol=1e-3)
        for name, value in alone.weights.items():
            assert torch.allclose(value, trained.weights[name], atol=1e-4)


def test_against_an_ordinary_training_loop(toy, splits):
    """One network, one nn.Module, torch.optim.Adam, no batching of replicas: the same history and
    weights."""
    settings = toy(regime="varying", seeds=4, epochs=2)
    trained = training.train(settings, splits)[0]
    digits, test = splits
    network = models.initial("mlp", 4)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def batch(split, pairs, goal):
        left, right = (split.images[rows].view(-1, 28, 28).float() / 255 for rows in pairs.T)
        x, y = split.labels[pairs].T
        return torch.stack([left, right], 1), torch.from_numpy(goal)[x, y]

    for epoch in range(2):
        goal = goals.varying(epoch, 4, settings)
        squared = 0.0
        for pairs in torch.from_numpy(data.training_pairs(4, epoch, 512)).split(64):
            x, y = batch(digits, pairs, goal)
            loss = torch.nn.functional.mse_loss(network(x).squeeze(1), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            squared += loss.item() * len(pairs)
        x, y = batch(test, torch.from_numpy(data.evaluation_pairs(4, 200)[:, :2]), goal)
        with torch.no_grad():
            mse = (network(x).squeeze(1) - y).square().mean().item()
        row = trained.history.iloc[epoch]
        assert (row["a"], row["b"]) == goals.coefficients(goal)
        assert row["train_mse"] == pytest.approx(squared / 512, rel=1e-5)
        assert row["test_mse"] == pytest.approx(mse, rel=1e-5)
        assert row["test_r2"] == pytest.approx(1 - mse / y.var(correction=0).item(), rel=1e-5)
    for name, value in network.state_dict().items():
        assert torch.allclose(value, trained.weights[name], atol=1e-4)


def test_regimes_share_start_and_pairs(toy, splits, monkeypatch):
    """With the varying goal on x + y throughout, both regimes are the same training, to the bit."""
    fixed = training.train(toy(regime="fixed"), splits)[0]
    monkeypatch.setattr(goals, "drawn", lambda *_: (1, 1))
    assert numbers(fixed) == numbers(training.train(toy(regime="varying"), splits)[0])


def test_a_lot_per_core_and_the_same_bits_on_one(toy, splits, monkeypatch):
    """Seeds in order, as even as can be; the lots of one core after the other end in the same
    bits."""
    settings, lots, train_lot = toy(regime="varying", seeds="0-4", epochs=2), [], training.train_lot

    def watched(settings, *others):
        lots.append(settings.seeds)
        return train_lot(settings, *others)

    monkeypatch.setattr(training, "train_lot", watched)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    together = training.train(settings, splits)
    assert sorted(lots) == [(0, 1, 2), (3, 4)] and [t.settings for t in together] == settings.runs()
    parts = [settings.model_copy(update={"seeds": seeds}) for seeds in sorted(lots)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    apart = [trained for part in parts for trained in training.train(part, splits)]
    assert [numbers(t) for t in apart] == [numbers(t) for t in together]
    assert {t.group_size for t in together} == {5} and numbers(apart[0]) != numbers(apart[1])


def test_frames_are_the_weights_of_that_epoch_and_change_nothing(toy, splits):
    """After two epochs of four, the weights of a training of two, as float16."""
    long = {"regime": "varying", "epochs": 4, "final_epochs": 1, "period": 2}
    (framed,), (plain,) = (training.train(toy(**long, frames=n), splits) for n in (2, 0))
    assert numbers(framed) == numbers(plain) and plain.frames == {}
    assert tuple(framed.frames) == training.kept_epochs(framed.settings) == (1, 3)
    (short,) = training.train(toy(**long | {"epochs": 3, "final_epochs": 0}), splits)
    for name, weight in short.weights.items():
        assert torch.equal(framed.frames[3][name], weight.half())


def test_global_random_state_is_neither_read_nor_changed(toy, splits):
    torch.manual_seed(1)
    np.random.seed(1)
    torchs, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = numbers(training.train(toy(), splits)[0])
    assert torch.equal(torchs, torch.get_rng_state())
    assert np.array_equal(numpys, np.random.get_state()[1])
    torch.manual_seed(2)
    assert first == numbers(training.train(toy(), splits)[0])


def test_r2_is_1_when_right_and_0_for_the_mean():
    target = torch.tensor([[[0.0], [2.0], [4.0]]])
    assert training.mse_and_r2(target, target) == ([0.0], [1.0])
    mse, r2 = training.mse_and_r2(torch.full((1, 3, 1), 2.0), target)
    assert mse == pytest.approx([8 / 3]) and r2 == pytest.approx([0.0])
    two = torch.cat([target, -target], -1)
    assert training.mse_and_r2(two, two) == ([0.0], [1.0])
    mse, r2 = training.mse_and_r2(torch.zeros(1, 3, 2), two)
    assert mse == pytest.approx([40 / 3]) and r2 == pytest.approx([1 - 40 / 16])


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_an_error_in_one_lot_ends_the_training_at_once(toy, splits, monkeypatch, two_threads):
    """Also when it is not the first of them."""
    reached = []

    def failing(epoch, seed, schedule):
        if (epoch, seed) == (1, 3):
            raise RuntimeError("no goal")
        reached.append(epoch)
        return goals.SUM

    monkeypatch.setitem(goals.REGIMES, "failing", goals.Regime(failing))
    with pytest.raises(RuntimeError, match="no goal"):
        training.train(toy(regime="failing", seeds="0-3", epochs=100), splits)
    assert torch.get_num_threads() == 2 and max(reached) < 50


def test_trainings_in_threads_of_one_process_wait_for_each_other(two_threads):
    """Side by side, the second took the first one's single thread for the process's, trained in one
    lot, and left it so."""
    had = []

    def second():
        with training.one_thread(True) as cores:
            had.append(cores)

    with training.one_thread(True):
        other = threading.Thread(target=second)
        other.start()
        other.join(0.2)
        assert other.is_alive()
    other.join()
    assert had == [2] and torch.get_num_threads() == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_cuda_agrees_with_the_cpu_over_the_first_steps(toy, splits, architecture):
    settings = toy(architecture=architecture, seeds="0-3", **FEW_STEPS)
    here = training.train(settings, splits)
    there = training.train(settings.model_copy(update={"device": "cuda"}), splits)
    for cpu, gpu in zip(here, there, strict=True):
        assert np.allclose(cpu.history, gpu.history, rtol=1e-2)


@pytest.mark.parametrize("regime", goals.REGIMES)
def test_every_regime_trains(toy, splits, regime):
    settings = toy(regime=regime, epochs=4, final_epochs=1, seeds="0-1")
    for trained in training.train(settings, splits):
        table = goals.REGIMES[regime](3, trained.settings.seed, settings)
        assert np.isfinite(trained.history.drop(columns=["a", "b"])).all(axis=None)
        last = trained.history[["a", "b"]].iloc[-1]
        assert np.array_equal(last, goals.coefficients(table), equal_nan=True)
        assert len(trained.weights["readout.bias"]) == goals.outputs(table)


def test_restarts_differ_from_fixed_only_after_the_first_restart(toy, splits):
    fixed, restarts = (
        training.train(toy(regime=name, epochs=4, period=2), splits)[0].history
        for name in ("fixed", "restarts")
    )
    assert fixed.iloc[:2].equals(restarts.iloc[:2])
    assert not np.allclose(fixed["train_mse"][2:], restarts["train_mse"][2:], rtol=1e-6)


def test_sgd_is_torchs(toy, splits):
    """One step of SGD with momentum is -rate * gradient: twice the rate, twice the step."""
    start = models.initial("mlp", 0).state_dict()
    once = {"epochs": 1, "final_epochs": 1, "pairs_per_epoch": 64, "optimizer": "sgd"}
    slow, fast = (
        training.train(toy(**once, learning_rate=rate), splits)[0].weights for rate in (1e-5, 2e-5)
    )
    for name, value in start.items():
        assert torch.allclose(fast[name] - value, 2 * (slow[name] - value), atol=1e-6)
    assert not torch.allclose(slow["readout.bias"], start["readout.bias"], atol=1e-6)


def test_a_penalty_is_that_of_the_weights_before_the_readout_and_of_nothing_else(toy, splits):
    """One step of plain gradient descent: with the penalty, weights before the readout move by rate
    times penalty more against their sign; biases and the readout move as without."""
    size = {"epochs": 1, "pairs_per_epoch": 64, "batch_size": 64, "final_epochs": 0}
    step = {"optimizer": "sgd", "learning_rate": 1e-4, "seeds": (0, 1)}
    plain = training.train(toy(**size, **step), splits)
    penalised = training.train(toy(**size, **step, penalty=0.5), splits)
    for without, with_it in zip(plain, penalised):
        start = models.initial("mlp", with_it.settings.seed).state_dict()
        for name, weight in start.items():
            moved = with_it.weights[name] - without.weights[name]
            counts = name.endswith("weight") and not name.startswith("readout")
            expected = -1e-4 * 0.5 * weight.sign() if counts else torch.zeros_like(weight)
            assert torch.allclose(moved, expected, atol=2e-7), name
        assert with_it.history["train_mse"].equals(without.history["train_mse"])


def test_a_standardised_run_is_trained_on_standardised_goals(toy, splits):
    """With weights that hardly move, its training error is that of the untrained network on the
    rescaled goal."""
    still = toy(regime="varying", epochs=2, seeds=(0,), learning_rate=1e-12, standardise=True)
    trained = training.train(still, splits)[0]
    drawn = goals.varying(0, 0, still)
    assert trained.settings.standardise
    assert tuple(trained.history.loc[0, ["a", "b"]]) == goals.coefficients(drawn)
    pairs = torch.from_numpy(data.training_pairs(0, 0, still.pairs_per_epoch))
    target = training.targets_of([goals.standardised(drawn)], splits[0], pairs[None])[0]
    with torch.no_grad():
        out = models.initial("mlp", 0)(data.halves(splits[0].images, pairs))
    error = (out - target).square().mean().item()
    assert trained.history["train_mse"][0] == pytest.approx(error, rel=1e-4)


def test_a_regime_whose_outputs_change_in_number_is_one_line(toy, splits, monkeypatch):
    def growing(epoch, seed, schedule):
        return goals.SUM if epoch == 0 else goals.both(epoch, seed, schedule)

    monkeypatch.setitem(goals.REGIMES, "growing", goals.Regime(growing))
    with pytest.raises(ValueError, match="growing changes its number of outputs in epoch 1"):
        training.train(toy(regime="growing", epochs=2, final_epochs=0), splits)


@pytest.mark.slow
def test_the_benchmark_runs(monkeypatch):
    monkeypatch.syspath_prepend(data.ROOT / "benchmarks")
    benchmark = importlib.import_module("benchmark")
    assert benchmark.one_growth("width", 32, "cpu", 256)["s in all"] > 0
    assert benchmark.multiply_adds("mlp") == 426_374
