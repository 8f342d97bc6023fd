"""Bad input, everywhere: a non-zero exit, one line that names the parameter, what it got and what is allowed; nothing written.

Notebooks and snippets run as in a kernel, in a process of their own each; config files and command lines as a user starts them.
"""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import torch
import torchvision  # noqa: F401
import yaml
from IPython.core.interactiveshell import InteractiveShell
from test_notebooks import SOURCES, parameters_of
from test_study import CONFIG

# what notebooks import is imported here once, so that forks have it
from modvar_lib import data, figures, metrics, statistics  # noqa: F401

WHOLE = "a whole number from 1"
BAD = {  # parameter of a notebook: [(value, what the line says is allowed)]
    "study": [("", "letters, digits"), ("../etc", "letters, digits"), (7, "letters, digits")],
    "dataset": [("mnist", "MNIST, FashionMNIST, KMNIST"), (None, "text")],
    "architecture": [("mpl", "did you mean mlp?"), (["mlp"], "text")],
    "regime": [("vary", "did you mean varying?"), (True, "text")],
    "variant": [("a/b", "letters, digits"), ("a-b", "letters, digits")],
    "seeds": [("0-", "whole numbers from 0"), ("3,3", "each once"), (0.5, "whole numbers from 0")],
    "epochs": [(0, WHOLE), ("ten", WHOLE), (1.5, WHOLE)],
    "period": [(0, "a whole number of epochs from 1"), (None, "a whole number of epochs from 1")],
    "final_epochs": [(-1, "from 0 to epochs"), (10**6, "from 0 to epochs")],
    "pairs_per_epoch": [(0, WHOLE), ("6e4", WHOLE)],
    "batch_size": [(0, WHOLE), (True, WHOLE)],
    "optimizer": [("adamw", "adam, sgd"), (1, "text")],
    "frames": [(-1, "a whole number of epochs from 0"), ("each", "0, which keeps none")],
    "learning_rate": [(0, "a number above 0"), ("fast", "a number above 0"), (-1e-3, "above 0")],
    "device": [("gpu", "auto, cpu, cuda or cuda:N"), ("cuda:99", "auto, cpu")],
}


def names_of(path: Path) -> list[str]:
    return [line.split(":")[0] for line in parameters_of(path).splitlines()]


NOTEBOOKS = [
    (path, name, value, allowed)
    for path in SOURCES
    for name in names_of(path)
    for value, allowed in BAD[name]
] + [(path, "sede", 3, "allowed: ") for path in SOURCES]

SNIPPETS = [  # of Python as a user types it, and how the line starts
    ('Settings(regime="variyng")', "regime: got 'variyng'; allowed: fixed, varying"),
    ("Settings(speed=3)", "unknown parameter: got 'speed'; allowed: "),
    ('data.digits("mnist")', "dataset: got 'mnist'; allowed: MNIST"),
    ('data.digits("KMNIST")', "dataset: "),
    ('data.fetch("EMNIST")', "dataset: got 'EMNIST'; allowed: MNIST"),
    ('models.initial("perceptron", 0)', "architecture: got 'perceptron'; allowed: "),
    (
        'runs.load(Path("nowhere"))',
        "run: nowhere/settings.json is missing; allowed: a complete run",
    ),
    ('runs.paths("nothing")', "study: 'nothing' has no runs"),
    ('runs.paths("../..")', "study: got '../..'; allowed: letters"),
    ('runs.table("nothing", "measures.csv")', "study: 'nothing' has no "),
    ('runs.table("/etc", "passwd")', "study: got '/etc'; allowed: letters"),
    ('publish.publish("nothing")', "study: "),
    ('publish.publish("a/b")', "study: got 'a/b'; allowed: letters"),
    ("experiments_of({})", "group_size: got None; allowed: a whole number from 1"),
    ('experiments_of({"group_size": "8"})', "group_size: got '8'; allowed: a whole number from 1"),
    ('experiments_of({"group_size": 8, "arms": "mlp"})', "arms: got 'm"),
    ('experiments_of({"group_size": 8, "regime": {"a": 1}})', "regime: got {'a': 1}; allowed: "),
    ("experiments_of([])", "config: got []; allowed: "),
    (
        """
        @models.architecture
        class Wide(models.MLP):
            def __init__(self):
                super().__init__()
                self.bottleneck, self.readout = torch.nn.Linear(64, 3), torch.nn.Linear(3, 1)

        runs.complete(Settings(study="own", architecture="wide", epochs=1, final_epochs=0))
        """,
        "architecture: wide has layers ",
    ),
    (
        """
        @goals.regime
        def short(epoch, seed, schedule):
            return goals.SUM[:9]

        training.train(Settings(regime="short", epochs=1, final_epochs=0), splits)
        """,
        "regime: short gives an array of shape (9, 10)",
    ),
    (
        """
        @goals.regime
        def listed(epoch, seed, schedule):
            return goals.SUM.tolist()

        training.train(Settings(regime="listed", epochs=1, final_epochs=0), splits)
        """,
        "regime: listed gives ",
    ),
    (
        """
        @goals.regime
        def endless(epoch, seed, schedule):
            return goals.SUM / np.float32(0)

        training.train(Settings(regime="endless", epochs=1, final_epochs=0), splits)
        """,
        "regime: endless gives targets that are not finite",
    ),
    (
        """
        Metric, Property = metrics.Metric, metrics.Property
        metrics.METRICS = {"own": Metric(lambda s: [{"value": 1}], {"own": Property(0, 1, ())})}
        metrics.measure_network(subject)
        """,
        "measure: own gives {'value': 1}; allowed: rows of layer, side, measure, value, note",
    ),
    (
        """
        row = dict(layer="all", side="both", measure="other", value=1.0, note="")
        metrics.METRICS = {"own": metrics.Metric(lambda s: [row], {"own": None})}
        metrics.measure_network(subject)
        """,
        "measure: own gives {'layer': 'all'",
    ),
    ('subject.sides("hidden9")', "layer: got 'hidden9'; allowed: hidden1, hidden2"),
    ('calibration.rotated(network, "hidden9")', "layer: got 'hidden9'; allowed: hidden1"),
    ('calibration.shifted(network, "readout", 1.0)', "layer: got 'readout'; allowed: hidden1"),
    (
        """
        with torch.no_grad():
            network.readout.bias.fill_(float("nan"))
        Subject(network, splits[1], torch.zeros(2, 4, dtype=torch.long))
        """,
        "network: got weights that are not finite; allowed: finite weights",
    ),
]

PREPARED = """
from pathlib import Path
import numpy as np
import torch
from modvar_lib import calibration, data, goals, metrics, models, notebook, publish, runs, training
from modvar_lib.metrics.subject import Subject
from modvar_lib.settings import Settings, experiments_of

notebook.short_errors()
network = models.initial("mlp", 0)
splits = tuple(data.Digits(torch.zeros(20, 784, dtype=torch.uint8), torch.arange(20) % 10) for _ in "ab")
subject = Subject(network, splits[1], torch.zeros(2, 4, dtype=torch.long))
"""


def as_in_a_kernel(folder: Path, cells: list[str]) -> tuple[int, str]:
    """Run cells one after the other until one fails, in a fork of this process; (exit status, what was printed)."""
    printed = folder / "printed.txt"
    child = os.fork()
    if child == 0:
        os.chdir(folder / "here")
        with open(printed, "w") as out:
            os.dup2(out.fileno(), 1), os.dup2(out.fileno(), 2)
            sys.stdout = sys.stderr = open(1, "w", closefd=False)
            try:
                torch.set_num_threads(1)
                shell = InteractiveShell.instance(colors="nocolor")
                good = all(shell.run_cell(cell, store_history=True).success for cell in cells)
                sys.stdout.flush()
                os._exit(0 if good else 1)
            finally:
                os._exit(2)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), printed.read_text()


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A folder to be in, and results in another, that must stay empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("MODVAR_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    yield tmp_path
    assert not (tmp_path / "results").exists() and not list((tmp_path / "here").iterdir())


def one_line(status: int, said: str) -> str:
    """The only line of error; there is no traceback beside it."""
    lines = [line for line in said.splitlines() if "Error" in line]
    assert status == 1 and len(lines) == 1 and "Traceback" not in said, said
    assert lines[0].startswith("InputError: "), said
    return lines[0].removeprefix("InputError: ")


@pytest.mark.parametrize(
    ("path", "name", "value", "allowed"),
    NOTEBOOKS,
    ids=[f"{path.stem[:2]}-{name}={value!r}" for path, name, value, _ in NOTEBOOKS],
)
def test_of_a_notebook(empty, path, name, value, allowed):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    sources = []
    for cell in cells:
        sources.append(cell.source)
        if "parameters" in cell.metadata.get("tags", []):
            sources.append(f"# Parameters\n{name} = {value!r}\n")
    line = one_line(*as_in_a_kernel(empty, sources))
    wanted = f"unknown parameter: got '{name}'" if name == "sede" else f"{name}: got {value!r}"
    assert line.startswith(wanted) and "; allowed" in line and allowed in line


@pytest.mark.parametrize(("snippet", "start"), SNIPPETS, ids=[start for _, start in SNIPPETS])
def test_of_a_function(empty, snippet, start):
    line = one_line(*as_in_a_kernel(empty, [PREPARED, textwrap.dedent(snippet)]))
    assert line.startswith(start) and ("allowed" in line or "first" in line or "put it" in line)


COMMANDS = [  # of config files {changes}, and of command lines [words]
    ({"regime": ["fixd"]}, "regime: got 'fixd'; allowed: fixed, varying"),
    ({"epoch": 3}, "unknown parameter: got 'epoch'; allowed: "),
    (
        {"final_epochs": 3},
        "final_epochs: got 3; allowed: a whole number from 0 to epochs, which is 2",
    ),
    ({"seeds": "0-2x"}, "seeds: got '0-2x'; allowed: whole numbers"),
    ({"learning_rate": "no"}, "learning_rate: got 'no'; allowed: a number above 0"),
    ({"arms": ["varying"]}, "arms: got 'varying'; allowed: a list of settings"),
    (
        {"arms": [{"period": [1, 2]}]},
        "arms: MNIST summed fixed default is there 2 times; allowed: each once",
    ),
    ({"group_size": 0}, "group_size: got 0; allowed: a whole number from 1"),
    ({"notebooks": ["04_analyses"]}, "notebooks: got '04_analyses'; allowed: 04_analysis, "),
    ({"notebooks": "04_analysis"}, "notebooks: got '04_analysis'; allowed: a list"),
    ({"study": "../up"}, "study: got '../up'; allowed: letters"),
    ("study: [", "Config file is not valid JSON or YAML"),
    ("- 1\n- 2\n", "Config file must be given as JSON or YAML with keys at top level"),
    (["python", "-m", "modvar_lib.data", "SVHN"], "dataset: got 'SVHN'; allowed: MNIST"),
    (["python", "-m", "modvar_lib.publish", "nothing"], "study: "),
    (["python", "-m", "modvar_lib.publish", "/etc"], "study: got '/etc'; allowed: letters"),
    (["make", "reproduce", "PROFILE=pbs"], "PROFILE: got 'pbs'; allowed: "),
    (["make", "reproduce", "CONFIG=config/papr.yaml"], "CONFIG: got 'config/papr.yaml'; allowed: "),
]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """What each of COMMANDS said, two at a time: (exit status, lines, what was written)."""

    def run(given):
        folder = tmp_path_factory.mktemp("command")
        words, config = given, folder / "config.yaml"
        if not isinstance(given, list):
            changed = {**CONFIG, "study": "bad", **given} if isinstance(given, dict) else given
            config.write_text(changed if isinstance(given, str) else yaml.safe_dump(changed))
            words = ["snakemake", "--configfile", str(config)]
        env = {**os.environ, "MODVAR_RESULTS": str(folder / "results")}
        done = subprocess.run(words, cwd=data.ROOT, env=env, capture_output=True, text=True)
        written = [path for path in (folder / "results").rglob("*") if path.suffix != ".lock"]
        return done.returncode, (done.stdout + done.stderr).splitlines(), written

    with ThreadPoolExecutor(2) as pool:
        yield list(pool.map(run, [given for given, _ in COMMANDS]))


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=[said for _, said in COMMANDS])
def test_of_a_command(commands, number):
    status, lines, written = commands[number]
    said = [line for line in lines if COMMANDS[number][1] in line]
    assert status != 0 and len(said) == 1, lines
    assert not any(line.startswith("Traceback") for line in lines) and not written


def test_there_are_enough():
    assert len(NOTEBOOKS) + len(SNIPPETS) + len(COMMANDS) >= 100
