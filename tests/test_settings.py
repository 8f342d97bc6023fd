"""One form of settings, from a notebook's parameters to the network's folder. What is refused:
test_bad_input.py."""

import json

import pytest
from conftest import ARCHITECTURES
from pydantic import ValidationError

from modvar_lib import goals, runs
from modvar_lib.settings import NOT_SAVED, Settings, parse_seeds

SEEDS = [("0-3", (0, 1, 2, 3)), ("0,2, 5", (0, 2, 5)), ("7", (7,)), (7, (7,)), ([4, 1], (4, 1))]


@pytest.mark.parametrize(("value", "seeds"), [*SEEDS, (range(2), (0, 1)), ("8-9,0", (8, 9, 0))])
def test_ways_to_write_seeds(value, seeds):
    assert parse_seeds(value) == seeds == Settings(seeds=value).seeds


def test_text_from_the_command_line_becomes_numbers():
    settings = Settings(epochs="20", learning_rate="1e-2", final_epochs="5")
    assert (settings.epochs, settings.learning_rate, settings.final_epochs) == (20, 0.01, 5)


def test_what_configs_called_extras_before_is_still_read():
    assert Settings(also="seen") == Settings(extras="seen") != Settings()


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        Settings().epochs = 3


def test_defaults_are_the_originals():
    original = {"epochs": 100, "period": 10, "final_epochs": 10, "max_coefficient": 8}
    original |= {"learning_rate": 1e-3, "pairs_per_epoch": 60_000, "penalty": 0.0, "frames": 0}
    assert original.items() <= Settings().model_dump().items() and not Settings().standardise


def test_settings_of_a_group_are_those_of_its_networks():
    group = Settings(study="a", regime="varying", seeds="8-10", epochs=50, frames=4)
    assert [one.seed for one in group.runs()] == [8, 9, 10]
    for one in group.runs():
        assert isinstance(one, Settings) and one.of(group.seeds) == group
    with pytest.raises(ValueError, match="too many values"):
        group.seed  # noqa: B018


def test_a_network_depends_on_its_seed_but_not_on_study_device_frames_or_other_seeds():
    one = Settings(seeds="0-3", study="a")
    other = Settings(seeds="2", study="b", device="cpu", frames=3, extras="seen")
    assert one.runs()[2].saved() == other.saved() != one.runs()[1].saved()
    assert NOT_SAVED == {"study", "device", "frames", "extras", "seeds"}
    assert set(other.saved()) == set(Settings.model_fields) - NOT_SAVED | {"seed"}


CHANGED = {"penalty": 0.5, "standardise": True, "variant": "x", "max_coefficient": 3}


@pytest.mark.parametrize("name", CHANGED)
def test_what_is_saved_comes_back_and_what_did_not_exist_has_its_default(name):
    one = Settings(study="b", seeds=3, epochs=20, **{name: CHANGED[name]})
    saved = json.loads(json.dumps(one.saved()))
    assert Settings.of_saved(saved, study="b") == one
    del saved[name]
    assert Settings.of_saved(saved | {"a column": "of a table"}) == Settings(seeds=3, epochs=20)


RATE = {"architecture": "cnn", "variant": "rate0.003", "seeds": "1000"}


@pytest.mark.parametrize(
    ("changes", "arm", "group"),
    [
        ({}, "MNIST-mlp-fixed", "000-000"),
        ({"regime": "varying", "seeds": "8-15"}, "MNIST-mlp-varying", "008-015"),
        (RATE, "MNIST-cnn-fixed-rate0.003", "1000-1000"),
    ],
)
def test_names_of_folders(changes, arm, group, results):
    settings = Settings(study="s", **changes)
    assert (settings.arm, settings.group) == (arm, group)
    assert runs.group_folder(settings) == results / "s" / "groups" / arm / group
    last = settings.runs()[-1]
    assert runs.run_folder(last) == results / "s" / "runs" / arm / f"seed-{last.seed:03d}"


def test_a_varying_regime_has_an_epoch_that_varies():
    """final_epochs left out is a tenth of epochs; as many as epochs would be x + y throughout,
    under another name."""
    assert Settings(regime="varying", epochs=10).final_epochs == 1
    for name, function in goals.REGIMES.items():
        if not function.ends_on_the_sum:
            assert Settings(regime=name, epochs=10, final_epochs=10).final_epochs == 10
    for architecture in ARCHITECTURES:
        settings = Settings(architecture=architecture, regime="varying", epochs=1)
        drawn = goals.coefficients(goals.goal("varying", 0, 0, settings))
        assert drawn == goals.drawn(0, 0, settings)
