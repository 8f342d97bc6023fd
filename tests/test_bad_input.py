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

from modvar_lib import (
    calibration,
    data,
    goals,
    metrics,
    models,
    notebook,
    runs,
    settings,
    training,
)
from modvar_lib.analysis import study
from modvar_lib.config import read_config
from modvar_lib.errors import InputError, command, one_line
from modvar_lib.metrics.subject import Subject
from modvar_lib.settings import Settings

WHOLE, NAME = "a whole number from 1", "letters, digits"
BAD = {  # parameter of notebooks and config files: (values, what the line says is allowed)
    "study": (["", "../etc", "$(touch x)", "a/b", "x" * 101, 7], NAME),
    "dataset": (["mnist"], "MNIST, FashionMNIST, KMNIST"),
    "architecture": (["mpl"], "(did you mean mlp?)"),
    "regime": (["vary"], "(did you mean varying?)"),
    "variant": (["", "a/b", "a-b", "no spaces"], NAME),
    "seeds": (
        [
            "0-",
            "a-b",
            "3-1",
            "3,3",
            "",
            "0-99999999999,99999999999-0",
            -1,
            2**31,
            0.5,
            [0, "1"],
            [],
            True,
            None,
        ],
        "whole numbers from 0 to 2147483647, each once",
    ),
    "epochs": ([0, "ten", 1.5, True, None, 10**18], WHOLE),
    "period": ([0, None], WHOLE),
    "final_epochs": ([-1, 101, "all"], "from 0 to epochs"),
    "max_coefficient": ([0], WHOLE),
    "pairs_per_epoch": ([0, "6e4"], WHOLE),
    "batch_size": ([-5, True], WHOLE),
    "optimizer": (["adamw"], "adam, sgd"),
    "learning_rate": ([0, "fast", -1e-3, float("nan"), float("inf")], "a number above 0"),
    "standardise": (["maybe", 1], "True or False"),
    "penalty": ([-0.1, "none", float("nan")], "a number from 0"),
    "test_pairs": ([1], "a whole number from 2"),
    "frames": ([-1, "each", 10**18], "a whole number from 0 to 10000"),
    "also": (
        ["everything", "seen,turned"],
        "untrained, shuffled, rotated, shifted, seen, clusterability, transfer",
    ),
    "device": (["gpu", "cuda:99", None], "auto, cpu"),
}
TEXT = [
    (name, value, "text")
    for name in ("dataset", "architecture", "regime", "optimizer")
    for value in (None, True, 3)
]
PARAMETERS = [
    (name, value, allowed) for name, (values, allowed) in BAD.items() for value in values
] + TEXT


@pytest.mark.parametrize(
    ("name", "value", "allowed"), PARAMETERS, ids=[f"{n}={v!r:.20}" for n, v, _ in PARAMETERS]
)
def test_of_a_parameter(name, value, allowed):
    for make in (
        Settings,
        notebook.settings,
        lambda **values: read_config({**values, "group_size": 1}),
    ):
        with pytest.raises(InputError) as caught:
            make(**{name: value})
        line = str(caught.value)
        got = "turned" if value == "seen,turned" else value
        assert (
            line.startswith(f"{name}: got {got!r}; allowed")
            and allowed in line
            and "\n" not in line
        )


@pytest.mark.parametrize(
    "regime", sorted(name for name, function in goals.REGIMES.items() if function.ends_on_the_sum)
)
def test_of_a_regime_without_one_epoch_of_its_own(regime):
    with pytest.raises(
        InputError,
        match=rf"^final_epochs: got 10; allowed: fewer than epochs, which is 10, or {regime} ",
    ):
        Settings(regime=regime, epochs=10, final_epochs=10)


CONFIGS = [
    ({"group_size": "8"}, "group_size: got '8'; allowed: a whole number from 1"),
    ({"group_size": 0}, "group_size: got 0; allowed: a whole number from 1"),
    ({"group_size": True}, "group_size: got True; allowed: a whole number from 1"),
    ({"arms": "mlp"}, "arms: got 'm"),
    ({"arms": ["varying"]}, "arms: got 'varying'; allowed: names of settings"),
    ({"arms": []}, "config: got {'arms': []}; allowed: a value of each setting, or more"),
    (
        {"arms": [{"period": [1, 2]}]},
        "arms: original MNIST-mlp-fixed is there 2 times; allowed: each once",
    ),
    (
        {"arms": [{"study": "a"}, {"study": "b", "regime": "varying"}]},
        "arms: b MNIST-mlp-varying is there 1 times; allowed: each",
    ),
    ({"regime": []}, "config: got {'regime': []}; allowed: a value of each setting, or more"),
    ({"regime": {"a": 1}}, "regime: got {'a': 1}; allowed: "),
    ({"regime": ["fixed", "fixd"]}, "regime: got 'fixd'; allowed: fixed, varying"),
    ({"regmie": "fixed"}, "unknown parameter: got 'regmie'; allowed: "),
    ({"__use_yte__": True, "?x": 1}, "unknown parameter: got '__use_yte__'; allowed: "),
    (
        {"epochs": 10, "final_epochs": 11},
        "final_epochs: got 11; allowed: a whole number from 0 to epochs, which is 10",
    ),
    ({"seeds": "0-2x"}, "seeds: got '0-2x'; allowed: whole numbers"),
    ({"notebooks": "04_analysis"}, "notebooks: got '04_analysis'; allowed: a list of "),
    ({"notebooks": ["04_analyses"]}, "notebooks: got '04_analyses'; allowed: 04_analysis, "),
    ({"notebooks": ["02_train"]}, "notebooks: got '02_train'; allowed: 04_analysis, "),
    (
        {"notebooks": ["04_analysis"] * 2},
        "notebooks: got ['04_analysis', '04_analysis']; allowed: a list of ",
    ),
    ({"arms": [{1: 2}]}, "arms: got {1: 2}; allowed: names of settings with their values"),
    ({"period": list(range(1, 99)), "epochs": [9] * 9999}, "arms: got too many; allowed: 100000 "),
    ({"seeds": "0-99999", "arms": [{}, {"regime": "varying"}], "group_size": 1}, "seeds: got too"),
    ({"epochs": 16**9999}, "epochs: got a int too long to show; allowed: "),
    ({1: 2}, "config: got {1: 2}; allowed: names of settings with their values"),
    ("nowhere.yaml", "config: nowhere.yaml cannot be read (there is no such file"),
]


@pytest.mark.parametrize(("config", "start"), CONFIGS, ids=[start[:40] for _, start in CONFIGS])
def test_of_a_config(config, start):
    with pytest.raises(InputError) as caught:
        read_config(config)
    assert (
        str(caught.value).startswith(start)
        and "; allowed: " in str(caught.value)
        and "\n" not in str(caught.value)
    )


def bomb(of: str) -> str:
    """Nine lines of which each holds the one before nine times: 387,420,489 in the end."""
    lines = [f"- &a{i} {of.format(', '.join([f'*a{i - 1}'] * 9))}" for i in range(1, 10)]
    return "\n".join(["arms:", f"- &a0 {of.format('')}", *lines]).replace("<<: []", "b: 1")


TEXTS = [
    "study: [",
    "- 1\n- 2\n",
    "just text",
    "",
    "a: &a [*a]\n",
    "study: a\nstudy: \x00\n",
    "1: 2",
    "? [a]\n: b",
    "study: a\nstudy: b",
    "arms: [{period: 1, period: 2}]",
    "study: 2026-99-99",
    "epochs: 0x_",
    "epochs: !!int abc",
    "arms: !!map abc",
    "study: " + "[" * 20_000,
    "study: " + "a" * 10**6,
    *(bomb(of) for of in ("[{}]", "{{a: 1, <<: [{}]}}", "{{a: [{}]}}")),
    "study: \udcff\udcfe",  # not UTF-8
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
def registries(monkeypatch):
    """Registries to put one's own into."""
    for name, module, registry in (
        ("regime", goals, "REGIMES"),
        ("architecture", models, "ARCHITECTURES"),
    ):
        mine = dict(getattr(module, registry))
        monkeypatch.setattr(module, registry, mine)
        monkeypatch.setitem(settings.REGISTRIES, name, mine)
        monkeypatch.setattr(settings, registry, mine)
    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))


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


def own_regime(subject):
    @goals.regime
    def short(epoch, seed, schedule):
        return goals.SUM[:9]

    training.train(Settings(regime="short", epochs=1), (subject.digits, subject.digits))


def late_regime(subject):
    """Right in epoch 0, wrong after."""

    @goals.regime
    def late(epoch, seed, schedule):
        return goals.SUM * np.float32("nan" if epoch == 1 else 1)

    sizes = {"epochs": 3, "pairs_per_epoch": 20, "test_pairs": 20, "device": "cpu"}
    training.train(Settings(regime="late", **sizes), (subject.digits, subject.digits))


def own_measure(rows):
    def measure(subject):
        metrics.METRICS["mine"] = metrics.Metric(
            lambda subject: rows, {"mine": metrics.Property(0, 1, ())}
        )
        metrics.measure_network(subject)

    return measure


def not_finite(subject):
    nn.init.constant_(subject.network.readout.bias, float("nan"))
    Subject(subject.network, subject.splits, subject.draws)


OTHER = {"layer": "all", "side": "both", "measure": "other", "value": 1.0, "note": ""}
CALLS = [  # of public functions, and how the line starts
    (lambda s: data.digits("mnist"), "dataset: got 'mnist'; allowed: MNIST"),
    (lambda s: data.digits("KMNIST"), "dataset: "),
    (lambda s: data.fetch("EMNIST"), "dataset: got 'EMNIST'; allowed: MNIST"),
    (lambda s: goals.goal("vary", 0, 0, Settings()), "regime: got 'vary'; allowed: fixed, varying"),
    (
        lambda s: goals.regime(lambda epoch: goals.SUM),
        "regime: <lambda> takes (epoch); allowed: (epoch, seed, schedule)",
    ),
    (own_regime, "regime: short gives an array of shape (9, 10)"),
    (late_regime, "regime: late gives targets that are not finite"),
    (
        lambda s: models.initial("perceptron", 0),
        "architecture: got 'perceptron'; allowed: mlp, cnn",
    ),
    (own_architecture, "architecture: wide has layers "),
    (
        lambda s: runs.load(Path("nowhere")),
        "run: nowhere/settings.json cannot be used (it is missing)",
    ),
    (lambda s: runs.paths("nothing"), "study: 'nothing' has no networks"),
    (lambda s: runs.paths("../.."), "study: got '../..'; allowed: "),
    (lambda s: study.table("nothing", "measures"), "study: 'nothing' has no "),
    (lambda s: study.table("/etc", "runs"), "study: got '/etc'; allowed: "),
    (lambda s: study.write(None, "a/b", "x.csv"), "study: got 'a/b'; allowed: "),
    (lambda s: s.sides("hidden9"), "layer: got 'hidden9'; allowed: hidden1, hidden2"),
    (lambda s: calibration.rotated(s.network, "hidden9"), "layer: got 'hidden9'; allowed: hidden1"),
    (
        lambda s: calibration.shifted(s.network, "readout", 1.0),
        "layer: got 'readout'; allowed: hidden1",
    ),
    (
        own_measure([{"value": 1}]),
        "measure: mine gives {'value': 1}; allowed: rows of layer, side, measure, value, note",
    ),
    (own_measure([OTHER]), "measure: mine gives {'layer': 'all'"),
    (not_finite, "network: got weights that are not finite; allowed: finite weights"),
]


@pytest.mark.parametrize(("call", "start"), CALLS, ids=[start[:40] for _, start in CALLS])
def test_of_a_function(registries, results, subject, call, start):
    with pytest.raises(InputError) as caught:
        call(subject)
    line = str(caught.value)
    assert (
        line.startswith(start)
        and "\n" not in line
        and re.search("allowed|put it|measure|train", line)
    )
    assert not results.exists()


ERRORS = [
    (
        OSError(28, "No space left on device", "a.csv"),
        "files: a.csv: No space left on device; allowed: ",
    ),
    (
        PermissionError(13, "Permission denied", "a"),
        "files: a: Permission denied; allowed: folders that you may write",
    ),
    (NotADirectoryError(20, "Not a directory", "a"), "files: a: Not a directory; allowed: "),
    (MemoryError(), "memory: it ran out; allowed: fewer seeds"),
    (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        "memory: it ran out",
    ),
    (InputError("x: got 1; allowed: 2"), "x: got 1; allowed: 2"),
]


@pytest.mark.parametrize(("error", "start"), ERRORS, ids=[start[:30] for _, start in ERRORS])
def test_of_what_a_user_can_mend(error, start):
    def fail():
        raise error

    assert str(one_line(error)).startswith(start)
    with pytest.raises(SystemExit, match=r"^InputError: "):
        command(fail)


@pytest.mark.parametrize(
    "error", [KeyError("a"), RuntimeError("shapes"), OSError(2, "No such file", "a")], ids=repr
)
def test_other_errors_are_shown_whole(error):
    assert one_line(error) is None


COMMANDS = [  # as a user types them, and a part of the one line
    (
        "papermill",
        ["-p", "regmie", "varying"],
        "unknown parameter: got 'regmie'; allowed: epochs, period, ",
    ),
    (
        "papermill",
        ["-p", "notebook", "3"],
        "unknown parameter: got 'notebook'; allowed: epochs, period, ",
    ),
    (
        "papermill",
        ["-p", "epochs", "10", "-p", "final_epochs", "10", "-p", "regime", "varying"],
        "final_epochs: got 10; allowed: ",
    ),
    (
        ["-m", "modvar_lib.config", "config/papr.yaml"],
        [],
        "config: config/papr.yaml cannot be read",
    ),
    (["-m", "modvar_lib.data", "SVHN"], [], "dataset: got 'SVHN'; allowed: MNIST"),
]


@pytest.mark.parametrize(
    ("program", "words", "line"), COMMANDS, ids=[line[:30] for *_, line in COMMANDS]
)
def test_of_a_command(results, program, words, line):
    if program == "papermill":
        program = ["-m", "papermill", "--no-progress-bar", "notebooks/02_train.ipynb", os.devnull]
    done = subprocess.run(
        [sys.executable, *program, *words],
        cwd=data.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [
        part for part in (done.stdout + done.stderr).splitlines() if part.startswith("InputError: ")
    ]
    assert (
        done.returncode != 0 and len(lines) == 1 and lines[0].startswith(f"InputError: {line}")
    ), done.stdout + done.stderr
    assert not results.exists()
