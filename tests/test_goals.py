import numpy as np
import pytest
from scipy import stats

from modvar_lib import goals
from modvar_lib.goals import REGIMES, SUM, Schedule, coefficients, linear

ORIGINAL = Schedule()


@pytest.fixture(scope="module")
def draws():
    """[seeds, 9 draws, (a, b)] of the varying regime."""
    epochs = range(0, 90, 10)
    found = [[coefficients(goals.varying(e, s, ORIGINAL)) for e in epochs] for s in range(1000)]
    return np.array(found).astype(int)


def test_varying_draws_every_allowed_integer_and_no_other(draws):
    assert set(draws.ravel()) == set(range(-8, 9)) - {0}


def test_varying_is_uniform_and_independent(draws):
    for column in (0, 1):
        _, counts = np.unique(draws[..., column], return_counts=True)
        assert stats.chisquare(counts).pvalue > 1e-4
    a, b = draws[..., 0], draws[..., 1]
    of_one_draw, of_one_seed, of_seeds = (a, b), (a[:, :-1], a[:, 1:]), (a[:-1], a[1:])
    for one, other in (of_one_draw, of_one_seed, of_seeds):
        counts = stats.contingency.crosstab(one.ravel(), other.ravel()).count
        assert stats.chi2_contingency(counts).pvalue > 1e-4


def test_varying_switches_at_its_period_and_ends_on_the_sum():
    for seed in range(20):
        tables = [goals.varying(epoch, seed, ORIGINAL) for epoch in range(100)]
        switches = {e for e in range(1, 100) if not np.array_equal(tables[e], tables[e - 1])}
        assert switches <= set(range(10, 100, 10)) and len(switches) >= 7
        assert all(np.array_equal(table, SUM) for table in tables[90:])


def test_period_final_phase_and_range_are_settings():
    schedule = Schedule(epochs=12, period=3, final_epochs=4, max_coefficient=2)
    found = [[coefficients(goals.varying(e, s, schedule)) for e in range(12)] for s in range(300)]
    found = np.array(found)
    assert (found[:, 8:] == 1).all() and set(found[:, :8].ravel()) == {-2, -1, 1, 2}
    assert (found[:, 0] == found[:, 2]).all() and (found[:, 2] != found[:, 3]).any()
    last = [coefficients(goals.varying(99, s, Schedule(final_epochs=0))) for s in range(5)]
    assert any(pair != (1, 1) for pair in last)


@pytest.mark.parametrize("name", REGIMES)
def test_a_regime_changes_only_when_varying_may_and_ends_on_the_sum_if_it_says_so(name):
    tables = [REGIMES[name](epoch, 3, ORIGINAL) for epoch in range(100)]
    changed = {e for e in range(1, 100) if not np.array_equal(tables[e], tables[e - 1])}
    assert changed <= set(range(10, 100, 10))
    if REGIMES[name].ends_on_the_sum:
        assert all(np.array_equal(table, SUM) for table in tables[90:])


def interaction_of(table):
    return table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("epoch", [0, 15, 89])
def test_what_each_control_shares_with_varying(epoch, seed):
    a, b = coefficients(goals.varying(epoch, seed, ORIGINAL))
    varying = linear(a, b)
    assert np.allclose(goals.offset(epoch, seed, ORIGINAL) - SUM, varying.mean() - SUM.mean())
    assert np.array_equal(goals.factor(epoch, seed, ORIGINAL), linear(a, a))
    tables, additive = (
        regime(epoch, seed, ORIGINAL).astype(np.float64)
        for regime in (goals.tables, goals.additive)
    )
    for table in (tables, additive):
        assert np.allclose([table.mean(), table.std()], [varying.mean(), varying.std()], atol=1e-3)
        assert np.isnan(coefficients(table)).all()
    assert np.var(interaction_of(tables)) > 0.5 * np.var(tables)  # 0.82 of it on average
    assert abs(interaction_of(additive)).max() < 1e-5 * abs(additive).max()


def test_tables_are_drawn_anew_for_each_seed_and_period():
    every = [(epoch, seed) for epoch in range(0, 90, 10) for seed in range(20)]
    assert len({goals.tables(*one, ORIGINAL).tobytes() for one in every}) == len(every)
    assert len({goals.tables(e, 0, ORIGINAL).tobytes() for e in range(10)}) == 1


X, Y = np.meshgrid(range(10), range(10), indexing="ij")
CONSTANT = {
    "fixed": X + Y,
    "restarts": X + Y,
    "weighted": 2 * X + 7 * Y,
    "both": np.stack([X, Y], -1),
    "scaled": np.sqrt(np.mean([a**2 for a in range(-8, 9) if a])) * (X + Y),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_constant_controls(name):
    for epoch in (0, 50, 89):
        assert np.allclose(goals.goal(name, epoch, 1, ORIGINAL), CONSTANT[name])
    assert goals.outputs(goals.goal(name, 0, 1, ORIGINAL)) == (2 if name == "both" else 1)


def test_interaction_has_no_additive_part():
    table = goals.interaction(0, 4, ORIGINAL)
    assert np.allclose(table.mean(0), 9, atol=1e-4) and np.allclose(table.mean(1), 9, atol=1e-4)
    assert table.std() == pytest.approx(SUM.std(), rel=1e-5)
    assert not np.array_equal(table, goals.interaction(0, 5, ORIGINAL))


def test_many_is_eight_linear_goals_of_a_seed():
    first, other = (goals.goal("many", 0, seed, ORIGINAL) for seed in (0, 1))
    pairs = [coefficients(first[..., k]) for k in range(goals.outputs(first))]
    assert len(pairs) == 8 and len(set(pairs)) > 4 and not np.array_equal(first, other)
    assert all(0 < abs(c) <= 8 for pair in pairs for c in pair)


def test_restarts_are_where_varying_switches():
    found = [e for e in range(100) if goals.restart(e, "restarts", ORIGINAL)]
    assert found == list(range(10, 100, 10))
    assert not any(goals.restart(e, "varying", ORIGINAL) for e in range(100))
    schedule = Schedule(epochs=20, period=8, final_epochs=7)
    assert [e for e in range(20) if goals.restart(e, "restarts", schedule)] == [8, 13]


@pytest.mark.parametrize("name", REGIMES)
def test_a_standardised_goal_differs_from_the_goal_by_shift_and_scale_alone(name):
    """To the mean and standard deviation of x + y; what is asked of the digits stays in
    proportion."""
    for epoch in (0, 15, 95):
        goal = REGIMES[name](epoch, 3, ORIGINAL)
        table = goals.standardised(goal)
        assert np.allclose(table.mean((0, 1)), 9, atol=1e-5)
        assert np.allclose(table.std((0, 1)), np.sqrt(16.5), atol=1e-5)
        for one, other in zip(goal.reshape(100, -1).T, table.reshape(100, -1).T):
            assert np.corrcoef(one, other)[0, 1] > 1 - 1e-6
    assert np.array_equal(goals.standardised(SUM), SUM)


def test_a_final_phase_left_out_is_a_tenth_of_the_epochs():
    found = {epochs: Schedule(epochs=epochs).final_epochs for epochs in (100, 25, 10, 9, 1)}
    assert found == {100: 10, 25: 2, 10: 1, 9: 0, 1: 0}
    assert Schedule(epochs=10, final_epochs=0).final_epochs == 0


def test_a_regime_of_ones_own_and_its_restarts(monkeypatch):
    monkeypatch.setattr(goals, "REGIMES", dict(REGIMES))

    @goals.regime(restarts=True, ends_on_the_sum=True)
    def mine(epoch, seed, schedule):
        return linear(epoch + 1, seed)

    assert np.array_equal(goals.goal("mine", 3, 2, ORIGINAL), linear(4, 2)) and mine.ends_on_the_sum
    assert np.array_equal(goals.goal("mine", 90, 2, ORIGINAL), SUM)
    assert goals.restart(20, "mine", ORIGINAL) and not goals.restart(21, "mine", ORIGINAL)
