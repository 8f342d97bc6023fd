import numpy as np
import pytest
from scipy import stats

from modvar_lib import goals
from modvar_lib.goals import REGIMES, SUM, Schedule, coefficients, linear

ORIGINAL = Schedule()
SEEDS = range(1000)


@pytest.fixture(scope="module")
def draws():
    """[seeds, 9 draws, (a, b)] of the varying regime."""
    found = [
        [coefficients(goals.varying(epoch, seed, ORIGINAL)) for epoch in range(0, 90, 10)]
        for seed in SEEDS
    ]
    return np.array(found).astype(int)


def test_table_is_the_goal():
    table = linear(3, -2)
    assert table.shape == (10, 10) and table.dtype == np.float32
    assert all(table[x, y] == 3 * x - 2 * y for x in range(10) for y in range(10))


def test_coefficients_of_a_table_that_is_not_linear():
    table = SUM.copy()
    table[4, 7] += 1
    assert np.isnan(coefficients(table)).all()
    assert coefficients(linear(-8, 5)) == (-8, 5)


@pytest.mark.parametrize("seed", [0, 7])
def test_fixed_is_the_sum_in_every_epoch(seed):
    assert all(np.array_equal(goals.fixed(epoch, seed, ORIGINAL), SUM) for epoch in range(100))


def test_varying_draws_every_allowed_integer_and_no_other(draws):
    assert set(draws.ravel()) == set(range(-8, 9)) - {0}


def test_varying_is_uniform_and_independent(draws):
    flat = draws.reshape(-1, 2)
    for column in (0, 1):
        _, counts = np.unique(flat[:, column], return_counts=True)
        assert stats.chisquare(counts).pvalue > 1e-4
    table = stats.contingency.crosstab(flat[:, 0], flat[:, 1]).count
    assert stats.chi2_contingency(table).pvalue > 1e-4  # a and b of one draw
    table = stats.contingency.crosstab(draws[:, :-1, 0].ravel(), draws[:, 1:, 0].ravel()).count
    assert stats.chi2_contingency(table).pvalue > 1e-4  # one draw and the next
    table = stats.contingency.crosstab(draws[:-1, :, 0].ravel(), draws[1:, :, 0].ravel()).count
    assert stats.chi2_contingency(table).pvalue > 1e-4  # one seed and the next


@pytest.mark.parametrize("seed", range(20))
def test_varying_switches_at_its_period_and_ends_on_the_sum(seed):
    tables = [goals.varying(epoch, seed, ORIGINAL) for epoch in range(100)]
    switches = [
        epoch for epoch in range(1, 100) if not np.array_equal(tables[epoch], tables[epoch - 1])
    ]
    assert set(switches) <= set(range(10, 100, 10)) and len(switches) >= 7
    assert all(np.array_equal(table, SUM) for table in tables[90:])


def test_period_final_phase_and_range_are_settings():
    schedule = Schedule(epochs=12, period=3, final_epochs=4, max_coefficient=2)
    found = np.array(
        [[coefficients(goals.varying(e, s, schedule)) for e in range(12)] for s in range(300)]
    )
    assert (found[:, 8:] == 1).all()
    assert set(found[:, :8].ravel()) == {-2, -1, 1, 2}
    assert (found[:, 0] == found[:, 2]).all() and (found[:, 2] != found[:, 3]).any()


def test_without_a_final_phase_the_last_epoch_is_a_draw():
    schedule = Schedule(final_epochs=0)
    assert any(coefficients(goals.varying(99, seed, schedule)) != (1, 1) for seed in range(5))


@pytest.mark.parametrize("name", REGIMES)
def test_a_regime_changes_only_when_varying_may_and_ends_on_the_sum_if_it_says_so(name):
    tables = [REGIMES[name](epoch, 3, ORIGINAL) for epoch in range(100)]
    changed = {e for e in range(1, 100) if not np.array_equal(tables[e], tables[e - 1])}
    assert changed <= set(range(10, 100, 10))
    if REGIMES[name].ends_on_the_sum:
        assert all(np.array_equal(table, SUM) for table in tables[90:])


def additive(table):
    """The table without its interaction."""
    return table.mean(0) + table.mean(1, keepdims=True) - table.mean()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("epoch", [0, 15, 89])
def test_what_each_control_shares_with_varying(epoch, seed):
    a, b = coefficients(goals.varying(epoch, seed, ORIGINAL))
    varying = linear(a, b)
    assert np.allclose(goals.offset(epoch, seed, ORIGINAL) - SUM, varying.mean() - SUM.mean())
    assert np.array_equal(goals.factor(epoch, seed, ORIGINAL), linear(a, a))
    tables = goals.tables(epoch, seed, ORIGINAL)
    assert tables.mean() == pytest.approx(varying.mean(), abs=1e-3)
    assert tables.std() == pytest.approx(varying.std(), rel=1e-4)
    assert np.var(tables - additive(tables)) > 0.5 * np.var(tables)  # 0.82 of it on average


def test_tables_are_drawn_anew_for_each_seed_and_period():
    found = {
        goals.tables(epoch, seed, ORIGINAL).tobytes()
        for epoch in range(0, 90, 10)
        for seed in range(20)
    }
    assert len(found) == 180
    assert len({goals.tables(e, 0, ORIGINAL).tobytes() for e in range(10)}) == 1


def test_constant_controls():
    rms = np.sqrt(np.mean([a**2 for a in range(-8, 9) if a]))
    assert np.allclose(goals.scaled(0, 0, ORIGINAL), linear(rms, rms)) and round(rms, 2) == 5.05
    x, y = np.meshgrid(range(10), range(10), indexing="ij")
    for epoch in (0, 50, 99):
        assert np.array_equal(goals.weighted(epoch, 1, ORIGINAL), 2 * x + 7 * y)
        assert np.array_equal(goals.both(epoch, 1, ORIGINAL), np.stack([x, y], -1))
        assert np.array_equal(goals.restarts(epoch, 1, ORIGINAL), SUM)
    assert [goals.outputs(REGIMES[n](0, 0, ORIGINAL)) for n in ("both", "varying")] == [2, 1]
    assert np.isnan(coefficients(goals.both(0, 0, ORIGINAL))).all()


def test_interaction_has_no_additive_part():
    table = goals.interaction(0, 4, ORIGINAL)
    assert np.allclose(table.mean(0), 9, atol=1e-4) and np.allclose(table.mean(1), 9, atol=1e-4)
    assert table.std() == pytest.approx(SUM.std(), rel=1e-5)
    assert np.array_equal(table, goals.interaction(99, 4, ORIGINAL))
    assert not np.array_equal(table, goals.interaction(0, 5, ORIGINAL))


def test_restarts_are_where_varying_switches():
    found = [e for e in range(100) if goals.restart(e, "restarts", ORIGINAL)]
    assert found == list(range(10, 100, 10))
    assert not any(goals.restart(e, "varying", ORIGINAL) for e in range(100))
    schedule = Schedule(epochs=20, period=8, final_epochs=7)
    assert [e for e in range(20) if goals.restart(e, "restarts", schedule)] == [8, 13]


@pytest.mark.parametrize("name", goals.REGIMES)
def test_a_standardised_goal_differs_from_the_goal_by_shift_and_scale_alone(name):
    """To the mean and standard deviation of x + y; what is asked of the digits stays in proportion,
    the last phase as it is."""
    for epoch in (0, 15, 95):
        goal = goals.REGIMES[name](epoch, 3, goals.Schedule()).astype(np.float64)
        table = goals.standardised(goal.astype(np.float32))
        assert np.allclose(table.mean((0, 1)), 9, atol=1e-5)
        assert np.allclose(table.std((0, 1)), np.sqrt(16.5), atol=1e-5)
        for k in range(goals.outputs(goal)):
            one, other = goal.reshape(100, -1)[:, k], table.reshape(100, -1)[:, k]
            assert np.corrcoef(one, other)[0, 1] > 1 - 1e-6
    assert np.array_equal(goals.standardised(goals.SUM), goals.SUM)


def test_additive_goals_are_modular_and_not_linear():
    for epoch in (0, 10, 20):
        goal = goals.additive(epoch, 1, goals.Schedule()).astype(np.float64)
        rest = goal - goal.mean(0) - goal.mean(1, keepdims=True) + goal.mean()
        like = goals.varying(epoch, 1, goals.Schedule())
        assert abs(rest).max() < 1e-5 * abs(goal).max()
        assert np.isnan(goals.coefficients(goal)).all()
        assert np.allclose([goal.mean(), goal.std()], [like.mean(), like.std()], rtol=1e-5)


def test_a_final_phase_left_out_is_a_tenth_of_the_epochs():
    assert [Schedule(epochs=epochs).final_epochs for epochs in (100, 25, 10, 9, 1)] == [
        10,
        2,
        1,
        0,
        0,
    ]
    assert Schedule(epochs=10, final_epochs=0).final_epochs == 0


def test_a_regime_of_ones_own_and_its_restarts(monkeypatch):
    monkeypatch.setattr(goals, "REGIMES", dict(REGIMES))

    @goals.regime(restarts=True, ends_on_the_sum=True)
    def mine(epoch, seed, schedule):
        return linear(epoch + 1, seed)

    assert np.array_equal(goals.goal("mine", 3, 2, ORIGINAL), linear(4, 2)) and mine.ends_on_the_sum
    assert np.array_equal(goals.goal("mine", 90, 2, ORIGINAL), SUM)
    assert goals.restart(20, "mine", ORIGINAL) and not goals.restart(21, "mine", ORIGINAL)


def test_many_is_eight_linear_goals_of_a_seed_that_stay():
    first, again, other = (
        goals.goal("many", epoch, seed, ORIGINAL) for epoch, seed in ((0, 0), (99, 0), (0, 1))
    )
    assert goals.outputs(first) == 8 and np.array_equal(first, again)
    pairs = [goals.coefficients(first[..., k]) for k in range(8)]
    assert all(0 < abs(c) <= 8 for pair in pairs for c in pair) and len(set(pairs)) > 4
    assert not np.array_equal(first, other)
