"""Bad input, everywhere: one line that names the parameter, what it got and what is allowed;
nothing written.

Nearly all in this process, as notebooks and commands call the same functions; a few end to end, as
a user starts them.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from modvar_lib import data, goals, metrics, models, notebook, runs, settings, training
from modvar_lib.analysis import study
from modvar_lib.config import read_config
from modvar_lib.errors import InputError, command, one_line
from modvar_lib.metrics import perturbations
from modvar_lib.metrics.subject import Subject
from modvar_lib.settings import Settings

WHOLE, NAME, TEXT = "greater than or equal to 1", "match pattern", [None, True, 3]
SEEDS = [
    "0-",
    "a-b",
    "3-1",
    "1-2-3",
    "3,3",
    "",
    "0-99999999999,99999999999-0",
    "3-1,5",
    -1,
    2**31,
    0.5,
]
BAD = {  # parameter of notebooks and config files: (values, what the line says is allowed)
    "study": (["", "../etc", "$(touch x)", "a/b", "x" * 101], NAME),
    "dataset": (["mnist"], "MNIST, FashionMNIST, KMNIST"),
    "architecture": (["mpl"], "(did you mean mlp?)"),
    "regime": (["vary"], "(did you mean varying?)"),
    "variant": (["", "a/b", "a-b", "no spaces"], NAME),
    "seeds": ([*SEEDS, [0, "1"], [], True, None], "whole numbers from 0 to 2147483647, each once"),
    "epochs": ([0], WHOLE),
    "period": ([0], WHOLE),
    "final_epochs": ([-1], "greater than or equal to 0"),
    "pairs_per_epoch": (["6e4", 1.5], "a valid integer"),
    "batch_size": ([-5], WHOLE),
    "max_coefficient": ([10**18], "less than or equal to 1000000000"),
    "optimizer": (["adamw"], "adam, sgd"),
    "learning_rate": ([0, -1e-3, float("nan"), float("inf"), "fast"], ""),
    "standardise": (["maybe", 2], "a valid boolean"),
    "penalty": ([-0.1], "greater than or equal to 0"),
    "test_pairs": ([1], "greater than or equal to 2"),
    "frames": ([10**18], "less than or equal to 10000"),
    "extras": (["everything"], "untrained, shuffled, rotated, shifted, seen, "),
    "device": (["gpu", "cuda:x"], "auto|cpu"),
}
PARAMETERS = [(name, v, allowed) for name, (values, allowed) in BAD.items() for v in values]
PARAMETERS += [(name, v, "a valid string") for name in settings.REGISTRIES for v in TEXT]
PARAMETERS += [("device", "cuda:99", "auto, cpu"), ("final_epochs", 101, "0 to 100, of 100 epochs")]


@pytest.mark.parametrize(("name", "value", "allowed"), PARAMETERS)
def test_of_a_parameter(name, value, allowed):
    for make in (Settings, notebook.settings, lambda **values: read_config(values)):
        with pytest.raises(InputError) as caught:
            make(**{name: value})
        line = str(caught.value)
        assert line.startswith(f"{name}: got {value!r:.200}; allowed: ") and "\n" not in line
        assert allowed in line.partition("; allowed: ")[2]


VARY = sorted(name for name, function in goals.REGIMES.items() if function.ends_on_the_sum)


@pytest.mark.parametrize("regime", VARY)
def test_of_a_regime_without_one_epoch_of_its_own(regime):
    with pytest.raises(InputError, match=r"^final_epochs: got 10; allowed: 0 to 9, of 10 epochs"):
        Settings(regime=regime, epochs=10, final_epochs=10)


BOMB = {"period": list(range(1, 99)), "epochs": [9] * 9999}
TWICE = "arms: got original MNIST-mlp-fixed again, or"
CONFIGS = [
    ({"group_size": "eight"}, "group_size: got 'eight'; allowed: a valid integer"),
    ({"group_size": 0}, "group_size: got 0; allowed: greater than 0"),
    ({"arms": "mlp"}, "arms: got 'mlp'; allowed: a valid list"),
    ({"arms": ["varying"]}, "arms: got 'varying'; allowed: a valid dictionary"),
    ({"arms": []}, "config: got no arm; allowed: a value of each setting, or more"),
    ({"regime": []}, "config: got no arm; allowed: "),
    ({"arms": [{"period": [1, 2]}]}, TWICE),
    (BOMB, "arms: got too many; allowed: 100000 groups"),
    ({"arms": [{"study": "a"}, {"study": "b", "regime": "varying"}]}, "arms: got b MNIST-mlp-v"),
    ({"regime": {"a": 1}}, "regime: got {'a': 1}; allowed: "),
    ({"regime": ["fixed", "fixd"]}, "regime: got 'fixd'; allowed: fixed, varying"),
    ({"extras": "seen,turned"}, "extras: got 'turned'; allowed: untrained, shuffled, rotated, "),
    ({"regmie": "fixed"}, "unknown parameter: got 'regmie'; allowed: "),
    ({"__use_yte__": True, "?x": 1}, "unknown parameter: got '__use_yte__'; allowed: "),
    ({"epochs": 10, "final_epochs": 11}, "final_epochs: got 11; allowed: 0 to 10, of 10 epochs"),
    ({"notebooks": "04_analysis"}, "notebooks: got '04_analysis'; allowed: a valid list"),
    ({"notebooks": ["02_train"]}, "notebooks: got '02_train'; allowed: 04_analysis, "),
    ({"arms": [{1: 2}]}, "arms: got 1; allowed: a valid string"),
    ({"seeds": "0-99999", "regime": ["fixed", "varying"], "group_size": 1}, "arms: got too many"),
    ({1: 2}, "1: got 1; allowed: Keys should be strings"),
    ("nowhere.yaml", "config: nowhere.yaml cannot be read (there is no such file"),
]


@pytest.mark.parametrize(("config", "start"), CONFIGS)
def test_of_a_config(config, start):
    with pytest.raises(InputError) as caught:
        read_config(config)
    line = str(caught.value)
    assert line.startswith(start) and "; allowed: " in line and "\n" not in line


def bomb(of: str) -> str:
    """Nine lines of which each holds the one before nine times: 387,420,489 in the end."""
    lines = [f"- &a{i} {of.format(', '.join([f'*a{i - 1}'] * 9))}" for i in range(1, 10)]
    return "\n".join(["arms:", f"- &a0 {of.format('')}", *lines]).replace("<<: []", "b: 1")


TEXTS = [
    *("study: [", "- 1\n- 2\n", "just text", "", "a: &a [*a]\n", "study: a\nstudy: \x00\n", "1: 2"),
    *("? [a]\n: b", "study: a\nstudy: b", "arms: [{period: 1, period: 2}]", "study: 2026-99-99"),
    *("epochs: 0x_", "epochs: !!int abc", "arms: !!map abc", "study: \udcff\udcfe"),
    *("study: " + "[" * 20_000, "study: " + "- " * 20_000, "study: " + "a" * 10**6),
    *(bomb(of) for of in ("[{}]", "{{a: 1, <<: [{}]}}", "{{a: [{}]}}")),
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:40]))
def test_of_a_config_file(tmp_path, text):
    (tmp_path / "c.yaml").write_bytes(text.encode(errors="surrogateescape"))
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        read_config(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000 + len(str(tmp_path))
    assert time.perf_counter() - start < 1


def test_of_what_is_no_file(tmp_path):
    """A pipe without a writer and a device without an end are not waited for."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="cannot be read \\(there is no such file"):
            read_config(path)


@pytest.fixture
def subject():
    digits = data.Digits(torch.zeros(20, 784, dtype=torch.uint8), torch.arange(20) % 10)
    return Subject(models.initial("mlp", 0), (digits, digits), torch.zeros(2, 4, dtype=torch.long))


def own_architecture(subject):
    @models.architecture
    class Wide(models.MLP):
        def __init__(self):
            super().__init__()
            self.bottleneck, self.readout = nn.Linear(64, 3), nn.Linear(3, 1)

    runs.complete(Settings(study="own", architecture="wide", epochs=1))


def own_regime(last_good: int, wrong):
    """One whose goal is wrong from an epoch on."""

    def call(subject):
        @goals.regime
        def mine(epoch, seed, schedule):
            return wrong if epoch > last_good else goals.SUM

        sizes = {"epochs": 3, "pairs_per_epoch": 20, "test_pairs": 20, "device": "cpu"}
        training.train(Settings(regime="mine", **sizes), (subject.digits, subject.digits))

    return call


def own_measure(**row):
    def call(subject):
        properties = {"mine": metrics.Property(0, 1, ())}
        metrics.measure_network(subject, {"mine": metrics.Metric(lambda _: [row], properties)})

    return call


def not_finite(subject):
    nn.init.constant_(subject.network.readout.bias, float("nan"))
    Subject(subject.network, subject.splits, subject.draws)


OTHER = {"layer": "all", "side": "both", "measure": "other", "value": 1.0, "note": ""}
CALLS = [  # of public functions, and how the line starts
    (lambda s: data.digits("mnist"), "dataset: got 'mnist'; allowed: MNIST"),
    (lambda s: data.digits("KMNIST"), "dataset: "),
    (lambda s: data.fetch("EMNIST"), "dataset: got 'EMNIST'; allowed: MNIST"),
    (lambda s: data.fetch("OneHot"), "dataset: got 'OneHot'; allowed: MNIST"),
    (lambda s: goals.goal("vary", 0, 0, Settings()), "regime: got 'vary'; allowed: fixed, varying"),
    (own_regime(-1, goals.SUM[:9]), "regime: mine gives an array of shape (9, 10)"),
    (own_regime(0, goals.SUM * np.float32("nan")), "regime: mine gives targets that are not"),
    (lambda s: models.initial("perceptron", 0), "architecture: got 'perceptron'; allowed: mlp, "),
    (own_architecture, "architecture: wide has layers "),
    (lambda s: runs.load(Path("nowhere")), "run: nowhere cannot be used ([Errno 2] No such file"),
    (lambda s: runs.paths("nothing"), "study: 'nothing' has no networks"),
    (lambda s: runs.paths("../.."), "study: got '../..'; allowed: "),
    (lambda s: study.table("nothing", "measures"), "study: 'nothing' has no "),
    (lambda s: study.table("/etc", "runs"), "study: got '/etc'; allowed: "),
    (lambda s: study.write(None, "a/b", "x.csv"), "study: got 'a/b'; allowed: "),
    (lambda s: s.sides("hidden9"), "layer: got 'hidden9'; allowed: hidden1, hidden2"),
    (
        lambda s: perturbations.rotated(s.network, "hidden9"),
        "layer: got 'hidden9'; allowed: hidden1",
    ),
    (lambda s: perturbations.shifted(s.network, "readout", 1.0), "layer: got 'readout'; allowed: "),
    (own_measure(value=1), "measure: mine gives {'value': 1}; allowed: rows of layer, side, meas"),
    (own_measure(**OTHER), "measure: mine gives {'layer': 'all'"),
    (not_finite, "network: got weights that are not finite; allowed: finite weights"),
]


@pytest.mark.parametrize(("call", "start"), CALLS, ids=[start[:40] for _, start in CALLS])
def test_of_a_function(registries, results, subject, call, start):
    with pytest.raises(InputError) as caught:
        call(subject)
    line = str(caught.value)
    assert line.startswith(start) and "\n" not in line
    assert re.search("allowed|put the|measure|train", line) and not results.exists()


@pytest.mark.parametrize("name", ["json.py", "my own.py"])
def test_a_file_of_ones_own_is_run_once_whatever_it_is_called(
    tmp_path, monkeypatch, registries, name
):
    """By the name of a module that is loaded already, and by a name of no module."""
    monkeypatch.delitem(sys.modules, "modvar_own", raising=False)
    own = "from modvar_lib.goals import SUM, regime\n\n@regime\ndef mine(*_):\n    return SUM\n"
    (tmp_path / name).write_text(own)
    monkeypatch.setenv("MODVAR_OWN", str(tmp_path / name))
    notebook.own_code()
    first = goals.REGIMES["mine"]
    notebook.own_code()
    assert goals.REGIMES["mine"] is first
    monkeypatch.delitem(sys.modules, "modvar_own")
    monkeypatch.setenv("MODVAR_OWN", "README.md")
    with pytest.raises(InputError, match=r"^MODVAR_OWN: got 'README\.md'; allowed: a Python file"):
        notebook.own_code()


MENDABLE = [
    (OSError(28, "No space left on device", "a"), "files: a: No space left on device; allowed: "),
    (PermissionError(13, "Permission denied", "a"), "files: a: Permission denied; allowed: "),
    (NotADirectoryError(20, "Not a directory", "a"), "files: a: Not a directory; allowed: "),
    (MemoryError(), "memory: it ran out; allowed: a smaller group_size or batch_size"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory: it ran out"),
    (InputError("x: got 1; allowed: 2"), "x: got 1; allowed: 2"),
]


@pytest.mark.parametrize(("error", "start"), MENDABLE)
def test_of_what_a_user_can_mend(error, start):
    def fail():
        raise error

    assert str(one_line(error)).startswith(start)
    with pytest.raises(SystemExit, match=r"^InputError: "):
        command(fail)


@pytest.mark.parametrize("error", [KeyError("a"), RuntimeError("shapes"), OSError(2, "None", "a")])
def test_other_errors_are_shown_whole(error):
    assert one_line(error) is None


PAPERMILL = ["-m", "papermill", "--no-progress-bar", "notebooks/02_train.ipynb", os.devnull, "-p"]
COMMANDS = [  # as a user types them, and a part of the one line
    ([*PAPERMILL, "regmie", "varying"], "unknown parameter: got 'regmie'; allowed: epochs, "),
    ([*PAPERMILL, "epochs", "ten"], "epochs: got 'ten'; allowed: a valid integer"),
    (["-m", "modvar_lib.config", "config/papr.yaml"], "config: config/papr.yaml cannot be read"),
    (["-m", "modvar_lib.data", "SVHN"], "dataset: got 'SVHN'; allowed: MNIST"),
]


@pytest.mark.parametrize(("words", "line"), COMMANDS, ids=[line[:30] for _, line in COMMANDS])
def test_of_a_command(results, words, line):
    options = {"cwd": data.ROOT, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run([sys.executable, *words], **options)
    said = (done.stdout + done.stderr).splitlines()
    lines = [part for part in said if part.startswith("InputError: ")]
    assert done.returncode != 0 and len(lines) == 1, said
    assert lines[0].startswith(f"InputError: {line}") and not results.exists()
