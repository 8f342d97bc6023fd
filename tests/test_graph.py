"""The graph as a user starts it, by make, on real digits at toy size, in one copy of the project: a
study that is killed and goes on, a clone of it, an arm of one's own code that is added, and config
files that try to run something."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from conftest import TOY
from safetensors.torch import load_file

from modvar_lib import data, runs, training
from modvar_lib.analysis import study
from modvar_lib.settings import Settings

CONFIG = {
    "study": "tiny",
    "architecture": "summed",  # measured quickly
    "regime": ["fixed", "varying"],
    "seeds": "0-1",
    "group_size": 2,
    **TOY,
    "frames": 2,
}
OWN = """
from safetensors.torch import load_file
from torch import nn

from modvar_lib import goals, metrics, models


@goals.regime
def difference(epoch, seed, schedule):
    return goals.linear(1, -1)


@models.architecture
class Shallow(nn.Sequential):
    def __init__(self):
        super().__init__()
        self.flat = nn.Flatten()
        self.bottleneck, self.readout = nn.Linear(2 * 28 * 28, 2), nn.Linear(2, 1)


def units(subject):
    return [row for layer, parts in subject.anova.items() for row in metrics.tidy(layer, {"units": float(len(parts.total))}, "")]


metrics.METRICS["units"] = metrics.Metric(units, {"units": metrics.Property(1, 1e6, ())})
"""
NEEDED = "modvar_lib notebooks config profiles book figures Makefile Snakefile pyproject.toml"
NEEDED += " requirements.lock README.md CHANGELOG.md CONTRIBUTING.md"  # figures: the article's
BIN = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


class Project:
    """A copy of the project without results, in which make runs with this Python."""

    def __init__(self, root: Path):
        self.root, self.study = root, root / "results" / "tiny"
        for name in NEEDED.split():
            copy = shutil.copytree if (data.ROOT / name).is_dir() else shutil.copyfile
            copy(data.ROOT / name, root / name)
        (root / "data").symlink_to(data.ROOT / "data")
        (root / "own.py").write_text(OWN)

    def start(self, target="reproduce", *words: str, **env: str) -> subprocess.Popen:
        groups = ("run", "book", "test", "lab", "cluster")
        done = [word for name in groups for word in ("-o", f".venv/ready-{name}")]
        env = {"PYTHONPATH": str(self.root), "PATH": BIN, "MODVAR_RESULTS": "", **env}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        options = {"cwd": self.root, "env": os.environ | env, "start_new_session": True}
        return subprocess.Popen(["make", *done, target, *words], **options, **pipes)

    def make(self, *words: str, **env: str) -> tuple[int, str]:
        """(exit status, what it said)."""
        process = self.start(*words, **env)
        return (lambda said: (process.returncode, said))(process.communicate(timeout=900)[0])

    def configure(self, **changes) -> str:
        text = yaml.safe_dump({**CONFIG, **changes}, sort_keys=False)
        (self.root / "config" / "tiny.yaml").write_text(text)
        return "CONFIG=config/tiny.yaml"

    def content(self) -> dict[str, bytes]:
        """Of every file of the study and its figures: what is in it."""
        files = [*self.root.glob("results/**/*"), *self.root.glob("figures/**/*")]
        files = [path for path in files if path.is_file() and not path.name.startswith(".")]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}

    def stamps(self, kind="groups") -> dict[Path, int]:
        """When each file of groups, or of runs, was written."""
        return {path: path.stat().st_mtime_ns for path in self.study.glob(f"{kind}/*/*/*")}


def rules(said: str) -> set[str]:
    """Those that Snakemake ran."""
    return set(re.findall(r"rule (\w+)", said))


def kill(process: subprocess.Popen) -> None:
    """All that it started."""
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for child in below:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """With a study of two groups that was killed when the first was done, then finished:
    `project.before` is the first group's folder and when its table was written."""
    project = Project(tmp_path_factory.mktemp("project"))
    config = project.configure()
    first = project.start("reproduce", config)
    until = time.monotonic() + 600
    while len(list(project.study.glob("notebooks/02_train-*"))) < 2 and first.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    done = list(project.study.glob("groups/*/*/runs.csv"))
    assert done, first.communicate()[0]
    kill(first)
    project.before = {path: path.stat().st_mtime_ns for path in done[0].parent.iterdir()}
    project.status, project.said = project.make("reproduce", config)
    return project


def test_a_killed_study_goes_on_to_the_end(project):
    assert project.status == 0, project.said
    assert project.before == {path: path.stat().st_mtime_ns for path in project.before}
    hidden = [
        p for p in project.root.glob("results/**/.*") if p.is_file() and "book" not in p.parts
    ]
    assert {path.name for path in hidden} - {".snakemake_timestamp"} == {".tiny.lock"}
    names = {path.name for path in project.study.iterdir()}
    assert {"groups", "runs", "notebooks", "done", "book", "headline.md", "summary.csv"} <= names
    suffixes = {path.suffix for path in (project.root / "figures" / "tiny").iterdir()}
    assert suffixes == {".png", ".svg"} and "MNIST summed" in project.said
    assert "| MNIST summed | varying  | 2 " in (project.study / "headline.md").read_text()


def test_its_tables_are_those_of_an_undisturbed_training(project, splits, monkeypatch):
    """Networks, bit by bit, as the library trains them here, whichever group was killed."""
    monkeypatch.setenv("MODVAR_RESULTS", str(project.root / "results"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: os.cpu_count())  # as many lots
    history = study.table("tiny", "history")
    shared = {k: v for k, v in CONFIG.items() if k not in ("regime", "group_size")}
    for regime in CONFIG["regime"]:
        for trained in training.train(Settings(**shared, regime=regime), splits):
            run = runs.load(runs.run_folder(trained.settings), "tiny")
            for name, weight in trained.weights.items():
                assert torch.equal(weight, run.weights[name])
            rows = study.select(history, **run.key)[training.COLUMNS]
            assert np.allclose(rows, trained.history, rtol=1e-7, equal_nan=True)  # to 8 digits


def test_again_there_is_nothing_to_do_and_nothing_changes(project):
    before = project.content()
    status, said = project.make("reproduce", project.configure())
    assert status == 0 and "Nothing to be done" in said, said
    assert project.content() == before


@pytest.mark.slow
def test_a_table_and_a_figure_that_were_deleted_are_made_again(project):
    ends = (".csv", ".md", ".svg", ".png")
    before = {k: v for k, v in project.content().items() if k.endswith(ends) and "/book/" not in k}
    (project.study / "summary.csv").unlink()
    (project.root / "figures" / "tiny" / "headline.svg").unlink()
    status, said = project.make("reproduce", project.configure())
    assert status == 0 and "group" not in rules(said), said
    assert {k: v for k, v in project.content().items() if k in before} == before


def test_a_clone_with_the_tables_alone_trains_nothing(project):
    """Without weights, without what Snakemake remembers, and with times in no order: as git leaves
    a clone."""
    kept = project.root / "kept"
    for name in ("results/tiny/runs", ".snakemake", "results/tiny/book"):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).rename(kept / name)
    before = project.content()
    for i, path in enumerate(sorted(project.root.rglob("*"))):
        if path.is_file() and data.ROOT not in path.resolve().parents:
            os.utime(path, (1.6e9 + 7919 * i % 100_003,) * 2)
    status, said = project.make("reproduce", project.configure())
    assert status == 0 and "group" not in rules(said), said
    assert not (project.study / "runs").exists()
    assert {k: v for k, v in project.content().items() if "/book/" not in k} == before
    (kept / "results/tiny/runs").rename(project.study / "runs")


def held(folder) -> dict:
    """A group's files; of weights the tensors, since the order of their file's header is free."""
    tables = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    weights = load_file(folder / "weights.safetensors").items()
    return tables | {name: weight.numpy().tobytes() for name, weight in weights}


def test_a_group_without_one_table_loses_no_other(project):
    """Without its networks: one line, and nothing is done. With them: it is measured again, and until
    it is, what was there stays, whatever is killed."""
    folder = project.study / "groups" / "MNIST-summed-fixed" / "000-001"
    whole = held(folder)
    (folder / "measures.csv").unlink()
    rest = {name: content for name, content in whole.items() if name != "measures.csv"}
    networks = project.study / "runs" / "MNIST-summed-fixed"
    networks.rename(project.root / "away")
    status, said = project.make("reproduce", project.configure())
    assert status != 0 and f"{folder.relative_to(project.root)} lacks measures.csv, and" in said
    assert held(folder) == rest
    (project.root / "away").rename(networks)
    notebook = project.study / "notebooks" / "03_metric-MNIST-summed-fixed-000-001.ipynb"
    notebook.unlink()
    process, until = project.start("reproduce", project.configure()), time.monotonic() + 300
    while not notebook.exists() and process.poll() is None:  # until it is measured
        assert time.monotonic() < until
        time.sleep(0.05)
    kill(process)
    assert held(folder) in (rest, whole)
    status, said = project.make("reproduce", project.configure())
    assert status == 0, said
    assert held(folder) == whole


def test_an_analysis_is_done_again_when_what_it_reads_or_wrote_changes(project):
    path = project.study / "groups" / "MNIST-summed-fixed" / "000-001" / "measures.csv"
    before, stamp = path.read_bytes(), project.study / "done" / "04_analysis"
    table, told = pd.read_csv(path, keep_default_na=False), stamp.read_text()
    table.loc[table["measure"] == "activation_change", "value"] = "0.25"
    table.to_csv(path, index=False)
    status, said = project.make("reproduce", project.configure())
    assert status == 0 and stamp.read_text() != told, said
    assert "| 0.25" in (project.study / "headline.md").read_text()
    path.write_bytes(before)
    status, said = project.make("reproduce", project.configure())
    assert status == 0 and stamp.read_text() == told, said
    picture = project.root / "figures" / "tiny" / "headline.png"
    drawn = picture.read_bytes()
    picture.write_bytes(drawn + b"by hand")
    status, said = project.make("reproduce", project.configure())
    assert status == 0 and picture.read_bytes() == drawn, said


@pytest.mark.slow
def test_an_arm_of_ones_own_code_that_is_added_is_trained_alone_and_the_analysis_runs_again(
    project, monkeypatch
):
    before = project.stamps() | project.stamps("runs")
    done = {path.name: path.read_text() for path in (project.study / "done").iterdir()}
    arm = {"architecture": "shallow", "regime": "difference", "seeds": 0, "frames": 0}
    config = project.configure(arms=[{}, arm])
    status, said = project.make("reproduce", config)
    assert status != 0 and "architecture: got 'shallow'; allowed: " in said
    assert "Traceback" not in said
    status, said = project.make("reproduce", config, MODVAR_OWN="own.py")
    assert status == 0, said
    after = project.stamps() | project.stamps("runs")
    assert before.items() <= after.items()
    assert {path.parents[1].name for path in after.keys() - before} == {"MNIST-shallow-difference"}
    now = {path.name: path.read_text() for path in (project.study / "done").iterdir()}
    assert set(now) == set(done) and now["04_analysis"] != done["04_analysis"]
    assert now["01_data"] == done["01_data"]
    monkeypatch.setenv("MODVAR_RESULTS", str(project.root / "results"))
    units = study.select(study.table("tiny", "measures"), architecture="shallow", measure="units")
    assert units.set_index("layer")["value"][["flat", "bottleneck"]].tolist() == [1568, 2]
    executed = (project.study / "notebooks" / "04_analysis.ipynb").read_text()
    headline = (project.study / "headline.md").read_text()
    assert "5 networks" in executed or "difference" in headline  # not left out without a word


def test_the_book_is_of_the_study(project):
    site = project.study / "book"
    assert (site / "search.html").is_file() and (site / "notebooks/04_analysis.html").is_file()
    assert "MNIST summed" in (site / "index.html").read_text()


def test_jobs_go_to_slurm_only_if_told(project, tmp_path):
    """What make asks of Snakemake."""
    fake = tmp_path / "snakemake"
    fake.write_text('#!/bin/sh\necho asked "$@"\n')
    fake.chmod(0o755)
    asked, config = {}, project.configure()
    for profile in ("default", "slurm"):
        words = ("reproduce", config, f"PROFILE={profile}")
        status, said = project.make(*words, PATH=f"{tmp_path}:{BIN}")
        assert status == 0, said
        (asked[profile],) = [line for line in said.splitlines() if line.startswith("asked ")]
    assert asked["default"] == "asked --workflow-profile profiles/default"
    slurm = "profiles/slurm --slurm-logdir results/tiny/slurm"
    assert asked["slurm"] == f"asked --workflow-profile {slurm}"


@pytest.mark.parametrize(
    ("given", "lands"), [("", "results"), ("~/mine", "home/mine"), ("a b/c", "a b/c"), (".", ".")]
)
def test_make_and_the_graph_agree_where_results_go(tmp_path, given, lands):
    """Whatever the config file's style; the graph asks the same function."""
    project, fake = Project(tmp_path), tmp_path / "snakemake"
    fake.write_text(f"#!/bin/sh\nexec {sys.executable} -m snakemake --dry-run --quiet all\n")
    fake.chmod(0o755)
    (tmp_path / "c.yaml").write_text('{"regime": ["fixed"], "variant": "64"} # and no study\n')
    env = {"PATH": f"{tmp_path}:{BIN}", "HOME": str(tmp_path / "home")}
    status, said = project.make("reproduce", "CONFIG=c.yaml", MODVAR_RESULTS=given, **env)
    assert status == 0 and f"Everything goes to {Path(lands, 'original')}/\n" in said, said
    assert (tmp_path / lands / ".original.lock").exists()


@pytest.mark.slow
def test_a_second_make_waits_for_the_first(project):
    before = project.stamps()
    with open(project.root / "results" / ".tiny.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = project.start("reproduce", project.configure())
        line = ""
        while "waiting" not in line and second.poll() is None:
            line = second.stdout.readline()
        assert line == "Another make works on this study; waiting for it\n"
    assert second.communicate(timeout=300) and second.returncode == 0
    assert project.stamps() == before


HOSTILE = {
    "a shell's words": 'study: "$(touch made)"',
    "make's words": "study: $(shell touch made)",
    "a folder elsewhere": "study: ../../made",
    "a new line": 'study: "x\\ntouch made"',
    "an expression of yte": "__use_yte__: true\nstudy: ?__import__('os').system('touch made')",
    "an object of YAML": "study: !!python/object/apply:os.system ['touch made']",
    "a variant": 'study: x\nvariant: "a`touch made`"',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_config_that_tries_to_run_something_is_one_line(project, case):
    (project.root / "config" / "hostile.yaml").write_text(HOSTILE[case] + "\n")
    before = project.content()
    status, said = project.make("reproduce", "CONFIG=config/hostile.yaml")
    lines = [line for line in said.splitlines() if not line.startswith("make: ***")]
    assert status != 0 and len(lines) == 1 and lines[0].startswith("InputError: "), said
    assert project.content() == before
    assert not [*project.root.rglob("made*"), *Path.cwd().glob("made*")]


CONFIG_LINE, PROFILE_LINE = "InputError: config: {} cannot be read", "PROFILE: got '{}'; allowed: "
WRONG = {
    "reproduce CONFIG=$(touch made).yaml": CONFIG_LINE.format("$(touch made).yaml"),
    "reproduce PROFILE=pbs": PROFILE_LINE.format("pbs") + "default slurm",
    "reproduce PROFILE=$(touch made)": PROFILE_LINE.format("$(touch made)"),
    "book STUDY=$(touch made)": "InputError: study: got '$(touch made)'; allowed: ",
    "book CONFIG=none.yaml": CONFIG_LINE.format("none.yaml"),
    "data DATASET=$(touch made)": "InputError: dataset: got '$(touch made)'; allowed: MNIST",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_command_that_is_wrong_is_one_line(project, words):
    status, said = project.make(*words.split(maxsplit=1))
    lines = [part for part in said.splitlines() if not part.startswith("make: ***")]
    assert status != 0 and len(lines) == 1 and lines[0].startswith(WRONG[words]), said
    assert not list(project.root.rglob("made*"))


def test_the_published_study_has_nothing_to_train():
    """In this checkout, as in a fresh clone: but for arms that are in its config and not yet
    trained, only the book is made."""
    env = {**os.environ, "MODVAR_CONFIG": "config/paper.yaml", "PATH": BIN}
    env.pop("MODVAR_RESULTS")
    words = ["snakemake", "--dry-run", "--quiet", "host", "reason"]
    options = {"capture_output": True, "text": True, "timeout": 600}
    done = subprocess.run(words, cwd=data.ROOT, env=env, **options)
    assert done.returncode == 0, done.stderr
    assert rules(done.stdout + done.stderr) <= {"all", "book"}
