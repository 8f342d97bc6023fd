import numpy as np
import pytest
from pydantic import ValidationError

from modvar_lib.errors import InputError
from modvar_lib.settings import Settings, parse_seeds

NONSENSE = [  # parameter, what it got, what the line must also say
    ("regime", "vary", "(did you mean varying?)"),
    ("regime", 3, "allowed: text"),
    (
        "architecture",
        "mpl",
        "(did you mean mlp?)",
    ),
    ("dataset", "mnist", "allowed: MNIST, FashionMNIST, KMNIST"),
    ("optimizer", "adamw", "allowed: adam, sgd"),
    ("variant", "no spaces", "letters, digits, '.' and '_'"),
    ("variant", "a-b", "letters, digits, '.' and '_'"),
    ("variant", "", "letters, digits, '.' and '_'"),
    ("device", "gpu", "allowed: auto, cpu, cuda or cuda:N"),
    ("device", "cuda:99", "allowed here: auto, cpu"),
    ("seeds", "a-b", "allowed: whole numbers from 0"),
    ("seeds", "3-1", "allowed: whole numbers from 0"),
    ("seeds", "", "allowed: whole numbers from 0"),
    ("seeds", "0,0", "allowed: whole numbers from 0"),
    ("seeds", "0-99999999999", "allowed: whole numbers from 0"),
    ("seeds", -1, "allowed: whole numbers from 0"),
    ("seeds", 1.5, "allowed: whole numbers from 0"),
    ("seeds", [0, "1"], "allowed: whole numbers from 0"),
    ("seeds", True, "allowed: whole numbers from 0"),
    ("epochs", 0, "allowed: a whole number from 1"),
    ("epochs", 2.5, "allowed: a whole number from 1"),
    ("epochs", "many", "allowed: a whole number from 1"),
    ("epochs", True, "allowed: a whole number from 1"),
    ("epochs", None, "allowed: a whole number from 1"),
    ("final_epochs", 101, "from 0 to epochs, which is 100"),
    ("final_epochs", -1, "allowed: a whole number from 0 to epochs"),
    ("period", 0, "allowed: a whole number of epochs from 1"),
    ("pairs_per_epoch", 0, "allowed: a whole number from 1"),
    ("batch_size", -5, "allowed: a whole number from 1"),
    ("learning_rate", 0, "allowed: a number above 0"),
    ("learning_rate", float("nan"), "allowed: a number above 0"),
    ("learning_rate", float("inf"), "allowed: a number above 0"),
    ("max_coefficient", 0, "allowed: a whole number from 1"),
    ("study", "../elsewhere", "allowed: letters, digits"),
    ("study", "", "allowed: letters, digits"),
]


@pytest.mark.parametrize(
    ("name", "value", "allowed"), NONSENSE, ids=[f"{n}={v!r}" for n, v, _ in NONSENSE]
)
def test_nonsense_is_one_line_naming_parameter_value_and_what_is_allowed(name, value, allowed):
    with pytest.raises(InputError) as caught:
        Settings(**{name: value})
    line = str(caught.value)
    assert line.startswith(f"{name}: got {value!r}") and allowed in line and "\n" not in line


def test_a_misspelt_name_is_refused():
    with pytest.raises(
        InputError, match=r"^unknown parameter: got 'regmie'; allowed: .*\(did you mean regime\?\)$"
    ):
        Settings(regmie="varying")


@pytest.mark.parametrize(
    ("value", "seeds"),
    [
        ("0-3", (0, 1, 2, 3)),
        ("0,2, 5", (0, 2, 5)),
        ("7", (7,)),
        (7, (7,)),
        ([4, 1], (4, 1)),
        (range(2), (0, 1)),
        ("8-9,0", (8, 9, 0)),
    ],
)
def test_ways_to_write_seeds(value, seeds):
    assert parse_seeds(value) == seeds == Settings(seeds=value).seeds


def test_text_from_the_command_line_becomes_numbers():
    settings = Settings(epochs="20", learning_rate="1e-2", final_epochs="5")
    assert (settings.epochs, settings.learning_rate, settings.final_epochs) == (20, 0.01, 5)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        Settings().epochs = 3


def test_a_run_depends_on_its_seed_but_not_on_study_device_or_other_seeds():
    one, other = Settings(seeds="0-3", study="a"), Settings(seeds="2", study="b", device="cpu")
    assert one.of_run(2) == other.of_run(2) != one.of_run(1)
    assert not {"study", "device", "seeds"} & set(one.of_run(2))


def test_defaults_are_the_originals():
    settings = Settings()
    assert (settings.epochs, settings.period, settings.final_epochs, settings.max_coefficient) == (
        100,
        10,
        10,
        8,
    )
    assert np.isclose(settings.learning_rate, 1e-3) and settings.pairs_per_epoch == 60_000
