"""Properties that hold for any input that hypothesis can think of."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modvar_lib import goals, runs, training
from modvar_lib.analysis import study
from modvar_lib.config import read_config
from modvar_lib.errors import InputError
from modvar_lib.settings import Settings, parse_seeds

settings.register_profile("here", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("here")
few = settings(max_examples=25)  # where an example is a table

SEED = st.integers(0, 2**31 - 1)
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


@given(st.text(alphabet="0123456789-, x\n", max_size=30) | st.text(max_size=10))
def test_any_text_is_seeds_or_refused(text):
    try:
        seeds = parse_seeds(text)
    except ValueError:
        return
    assert seeds and len(set(seeds)) == len(seeds) and all(0 <= s < 2**31 for s in seeds)


@given(st.dictionaries(NAMES, ANYTHING, max_size=4))
def test_any_settings_are_valid_or_one_line(values):
    try:
        found = Settings(**values)
    except InputError as error:
        line = str(error)
        assert len(line.splitlines()) == 1 and ": got " in line and "; allowed" in line
    else:
        assert Settings(**found.model_dump()) == found


CONFIG_NAMES = NAMES | st.sampled_from(["arms", "group_size", "notebooks"])


@given(
    st.dictionaries(
        CONFIG_NAMES, ANYTHING | st.text(alphabet="$(`;#touch x)", max_size=9), max_size=4
    )
)
def test_any_config_is_a_study_or_one_line(config):
    try:
        found = read_config(config)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert found.groups and all(isinstance(one, Settings) for one in found.groups)
        assert {one.study for one in found.groups} == {found.study}
        for arm in {one.arm for one in found.groups}:
            seeds = sum((one.seeds for one in found.groups if one.arm == arm), ())
            assert len(set(seeds)) == len(seeds)


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
    goal = goals.goal(regime, epoch, seed, schedule)
    assert np.array_equal(goal, goals.REGIMES[regime](epoch, seed, schedule))
    final = epoch >= schedule.epochs - schedule.final_epochs
    if final and regime not in ("weighted", "both", "many", "interaction"):
        assert np.array_equal(goal, goals.SUM)


@given(st.integers(1, 300), st.integers(0, 40), st.data())
def test_moments_are_kept_within_training_in_order(epochs, frames, data):
    settings = Settings(
        epochs=epochs, frames=frames, final_epochs=data.draw(st.integers(0, epochs))
    )
    found = training.kept_epochs(settings)
    assert list(found) == sorted(set(found)) and all(0 < e < epochs for e in found)
    assert bool(found) <= bool(frames) and len(found) <= frames + 1 + max(2, frames // 8)
    assert not frames or epochs - settings.final_epochs in (*found, 0, epochs)


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


@few
@given(table=TABLES)
def test_tables_come_back_as_they_were(folder, table):
    runs.write_table(table, folder / "t.csv")
    pd.testing.assert_frame_equal(pd.read_csv(folder / "t.csv"), table, check_exact=True)


ROWS = st.tuples(
    st.sampled_from(["fixed", "varying"]), st.integers(0, 3), st.integers(0, 2), st.floats(-1, 1)
)


@few
@given(st.lists(ROWS, min_size=1, max_size=10, unique_by=lambda row: row[:3]))
def test_the_last_epoch_decides_who_failed(rows):
    history = pd.DataFrame(sorted(rows), columns=["regime", "seed", "epoch", "sum_r2"])
    history = history.assign(dataset="MNIST", architecture="mlp", variant="default")
    final, bound = study.final(history), study.primary()["failed_below"]
    assert len(final) == history.groupby(["regime", "seed"]).ngroups
    for row in final.itertuples():
        assert row.epoch == study.select(history, regime=row.regime, seed=row.seed)["epoch"].max()
        assert row.failed == (row.sum_r2 < bound)
