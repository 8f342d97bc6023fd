"""Properties that hold for any input that hypothesis can think of."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modvar_lib import files, goals, training
from modvar_lib.errors import InputError
from modvar_lib.settings import Settings, experiments_of, parse_seeds

settings.register_profile("here", deadline=None, derandomize=True, max_examples=200)
settings.load_profile("here")

SEED = st.integers(0, 2**32 - 1)
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=5),
    st.lists(st.one_of(st.integers(), st.text(max_size=3)), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
NAMES = st.sampled_from(sorted(Settings.model_fields)) | st.text(max_size=10)


@given(st.lists(SEED, min_size=1, max_size=20, unique=True), st.sampled_from([",", ", ", " ,"]))
def test_seeds_come_back_from_their_text(seeds, comma):
    assert parse_seeds(comma.join(map(str, seeds))) == tuple(seeds) == parse_seeds(seeds)


@given(SEED, st.integers(0, 1000))
def test_a_span_of_seeds_has_both_ends(first, more):
    last = min(first + more, 2**32 - 1)
    assert parse_seeds(f"{first}-{last}") == tuple(range(first, last + 1))


@given(st.text(alphabet="0123456789-, x\n", max_size=30) | st.text(max_size=10))
def test_any_text_is_seeds_or_refused(text):
    try:
        seeds = parse_seeds(text)
    except ValueError:
        return
    assert seeds and len(set(seeds)) == len(seeds) and all(0 <= s < 2**32 for s in seeds)


@given(st.dictionaries(NAMES, ANYTHING, max_size=4))
def test_any_settings_are_valid_or_one_line(values):
    try:
        found = Settings(**values)
    except InputError as error:
        line = str(error)
        assert len(line.splitlines()) == 1 and ": got " in line and "; allowed" in line
    else:
        assert Settings(**found.model_dump()) == found


@given(st.dictionaries(NAMES | st.sampled_from(["arms", "group_size"]), ANYTHING, max_size=4))
def test_any_config_is_experiments_or_one_line(config):
    try:
        size, found = experiments_of(config)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert size >= 1 and all(isinstance(one, Settings) for one in found)


@st.composite
def schedules(draw):
    epochs = draw(st.integers(1, 200))
    return Settings(
        epochs=epochs,
        period=draw(st.integers(1, 250)),
        final_epochs=draw(st.integers(0, epochs)),
        max_coefficient=draw(st.integers(1, 1000)),
    )


@given(st.sampled_from(sorted(goals.REGIMES)), SEED, schedules(), st.data())
def test_a_regime_is_a_pure_function_of_epoch_and_seed(regime, seed, schedule, data):
    epoch = data.draw(st.integers(0, schedule.epochs - 1))
    goal = goals.REGIMES[regime](epoch, seed, schedule)
    goals.check(regime, goal)
    assert np.array_equal(goal, goals.REGIMES[regime](epoch, seed, schedule))
    final = epoch >= schedule.epochs - schedule.final_epochs
    if final and regime not in ("weighted", "both", "interaction"):
        assert np.array_equal(goal, goals.SUM)


@given(SEED, schedules(), st.data())
def test_varying_keeps_its_goal_for_a_period_and_has_no_zero(seed, schedule, data):
    last = schedule.epochs - schedule.final_epochs - 1
    if last < 0:
        return
    epoch = data.draw(st.integers(0, last))
    goal = goals.varying(epoch, seed, schedule)
    a, b = goals.coefficients(goal)
    assert 1 <= min(abs(a), abs(b)) and max(abs(a), abs(b)) <= schedule.max_coefficient
    first = epoch - epoch % schedule.period
    assert np.array_equal(goal, goals.varying(first, seed, schedule))


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_coefficients_undo_linear(a, b):
    assert goals.coefficients(goals.linear(a, b)) == (a, b)


@given(
    st.lists(SEED, min_size=1, max_size=40, unique=True), st.integers(1, 16), st.integers(1, 100)
)
def test_lots_are_the_seeds_in_order_none_too_large_and_as_even_as_can_be(seeds, at_once, fitting):
    found = training.lots(tuple(seeds), at_once, fitting)
    sizes = [len(lot) for lot in found]
    assert sum(found, ()) == tuple(seeds)
    assert max(sizes) <= fitting and max(sizes) - min(sizes) <= 1


TABLES = st.lists(
    st.tuples(
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=True),
        st.text(alphabet="abc,\"' \u00e9", min_size=1, max_size=8).map(lambda s: f"x{s}"),
    ),
    min_size=1,
    max_size=8,
).map(lambda rows: pd.DataFrame(rows, columns=["whole", "value", "note"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@given(table=TABLES)
def test_tables_come_back_as_they_were(folder, table):
    files.write_table(table, folder / "t.csv")
    found = files.read_table(folder / "t.csv")
    pd.testing.assert_frame_equal(found, table, check_exact=False, rtol=1e-15)
    for one, other in zip(found["value"], table["value"]):
        assert math.isclose(one, other, rel_tol=1e-15) or (one != one and other != other)


@given(table=TABLES, data=st.data())
def test_no_table_that_was_changed_is_read(folder, table, data):
    """Cut anywhere, or one bit flipped anywhere."""
    files.write_table(table, folder / "t.csv")
    content = bytearray((folder / "t.csv").read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "t.csv").write_bytes(content)
    with pytest.raises(ValueError):
        files.read_table(folder / "t.csv")
