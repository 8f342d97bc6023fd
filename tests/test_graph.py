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
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from conftest import TOY

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
NEEDED = (
    "modvar_lib",
    "notebooks",
    "config",
    "profiles",
    "book",
    "Makefile",
    "Snakefile",
    "pyproject.toml",
    "requirements.lock",
)
NEEDED += (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "figures",
)  # figures: the article shows them


class Project:
    """A copy of the project without results, in which make runs with this Python."""

    def __init__(self, root: Path):
        self.root, self.study = root, root / "results" / "tiny"
        for name in NEEDED:
            copy = shutil.copytree if (data.ROOT / name).is_dir() else shutil.copyfile
            copy(data.ROOT / name, root / name)
        (root / "data").symlink_to(data.ROOT / "data")
        (root / "own.py").write_text(OWN)

    def start(self, target="reproduce", *words: str, **env: str) -> subprocess.Popen:
        done = [
            word
            for name in ("run", "book", "test", "lab", "cluster")
            for word in ("-o", f".venv/ready-{name}")
        ]
        mine = {
            "PYTHONPATH": str(self.root),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MODVAR_RESULTS": "",
        }
        env = {**os.environ, **mine, **env}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(
            ["make", *done, target, *words], cwd=self.root, env=env, start_new_session=True, **pipes
        )

    def make(self, *words: str, **env: str) -> tuple[int, str]:
        """(exit status, what it said)."""
        process = self.start(*words, **env)
        return (lambda said: (process.returncode, said))(process.communicate(timeout=900)[0])

    def configure(self, **changes) -> str:
        (self.root / "config" / "tiny.yaml").write_text(
            yaml.safe_dump({**CONFIG, **changes}, sort_keys=False)
        )
        return "CONFIG=config/tiny.yaml"

    def content(self) -> dict[str, tuple]:
        """Of every file of the study and its figures: what is in it."""
        paths = [
            p
            for folder in ("results", "figures")
            for p in (self.root / folder).rglob("*")
            if p.is_file()
        ]
        return {
            str(p.relative_to(self.root)): p.read_bytes()
            for p in paths
            if not p.name.startswith(".")
        }


def kill(process: subprocess.Popen) -> None:
    """All that it started."""
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for child in below:
        if child.is_running():
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
    left = [
        path
        for path in project.root.glob("results/**/.*")
        if path.is_file() and "book" not in path.parts
    ]
    assert [path.name for path in left if path.name != ".snakemake_timestamp"] == [".tiny.lock"]
    names = {path.name for path in project.study.iterdir()}
    assert {
        "groups",
        "runs",
        "notebooks",
        "done",
        "book",
        "headline.md",
        "summary.csv",
        "difference.csv",
    } <= names
    assert {path.suffix for path in (project.root / "figures" / "tiny").iterdir()} == {
        ".png",
        ".svg",
    }
    assert (
        "| MNIST summed | varying  | 2 " in (project.study / "headline.md").read_text()
        and "MNIST summed" in project.said
    )


def test_its_tables_are_those_of_an_undisturbed_training(project, splits, monkeypatch):
    """Networks, bit by bit, as the library trains them here, whichever group was killed."""
    monkeypatch.setenv("MODVAR_RESULTS", str(project.root / "results"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: os.cpu_count())  # as many lots
    history, shared = (
        study.table("tiny", "history"),
        {k: v for k, v in CONFIG.items() if k not in ("regime", "group_size")},
    )
    for regime in CONFIG["regime"]:
        for trained in training.train(Settings(**shared, regime=regime), splits):
            run = runs.load(runs.run_folder(trained.settings), "tiny")
            assert all(
                torch.equal(weight, run.weights[name]) for name, weight in trained.weights.items()
            )
            rows = study.select(history, **run.key)[training.COLUMNS]
            assert np.allclose(rows, trained.history, rtol=1e-7, equal_nan=True)  # to 8 digits


def test_again_there_is_nothing_to_do_and_nothing_changes(project):
    before = project.content()
    status, said = project.make("reproduce", project.configure())
    assert status == 0 and "Nothing to be done" in said, said
    assert project.content() == before


@pytest.mark.slow
def test_a_table_and_a_figure_that_were_deleted_are_made_again(project):
    before = {
        k: v
        for k, v in project.content().items()
        if k.endswith((".csv", ".md", ".svg", ".png")) and "/book/" not in k
    }
    (project.study / "summary.csv").unlink()
    (project.root / "figures" / "tiny" / "headline.svg").unlink()
    status, said = project.make("reproduce", project.configure())
    assert status == 0 and "group" not in re.findall(r"rule (\w+)", said), said
    assert {k: v for k, v in project.content().items() if k in before} == before


def test_a_clone_with_the_tables_alone_trains_nothing(project):
    """Without weights, without what Snakemake remembers, and with times in no order: as git leaves
    a clone."""
    kept = project.root / "kept"
    for name in ("results/tiny/runs", ".snakemake", "results/tiny/book"):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).rename(kept / name)
    before = project.content()
    for i, path in enumerate(
        sorted(p for p in project.root.rglob("*") if p.is_file() and not p.is_symlink())
    ):
        if data.ROOT not in path.resolve().parents:
            os.utime(path, (1.6e9 + 7919 * i % 100_003,) * 2)
    status, said = project.make("reproduce", project.configure())
    assert (
        status == 0
        and "group" not in re.findall(r"rule (\w+)", said)
        and not (project.study / "runs").exists()
    ), said
    assert {k: v for k, v in project.content().items() if "/book/" not in k} == before
    (kept / "results/tiny/runs").rename(project.study / "runs")


def test_a_group_without_one_table_loses_no_other(project):
    """Without its networks: one line, and nothing is done. With them: it is measured again, and until
    it is, what was there stays, whatever is killed."""
    folder = project.study / "groups" / "MNIST-summed-fixed" / "000-001"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "measures.csv").unlink()
    rest = {name: content for name, content in whole.items() if name != "measures.csv"}
    networks = project.study / "runs" / "MNIST-summed-fixed"
    networks.rename(project.root / "away")
    status, said = project.make("reproduce", project.configure())
    assert status != 0 and f"{folder.relative_to(project.root)} lacks measures.csv, and" in said
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == rest
    (project.root / "away").rename(networks)
    notebook = project.study / "notebooks" / "03_metric-MNIST-summed-fixed-000-001.ipynb"
    notebook.unlink()
    process, until = project.start("reproduce", project.configure()), time.monotonic() + 300
    while not notebook.exists() and process.poll() is None:  # until it is measured
        assert time.monotonic() < until
        time.sleep(0.05)
    kill(process)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} in (rest, whole)
    status, said = project.make("reproduce", project.configure())
    assert status == 0, said
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_an_analysis_is_done_again_when_a_number_that_it_reads_changes(project):
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


@pytest.mark.slow
def test_an_arm_of_ones_own_code_that_is_added_is_trained_alone_and_the_analysis_runs_again(
    project, monkeypatch
):
    tables = {path: path.stat().st_mtime_ns for path in project.study.glob("groups/*/*/*")}
    weights = {path: path.stat().st_mtime_ns for path in project.study.glob("runs/*/*/*")}
    stamps = {path.name: path.read_text() for path in (project.study / "done").iterdir()}
    arm = {"architecture": "shallow", "regime": "difference", "seeds": 0, "frames": 0}
    config = project.configure(arms=[{}, arm])
    status, said = project.make("reproduce", config)
    assert (
        status != 0 and "architecture: got 'shallow'; allowed: " in said and "Traceback" not in said
    )
    status, said = project.make("reproduce", config, MODVAR_OWN="own.py")
    assert status == 0, said
    assert {path: path.stat().st_mtime_ns for path in (*tables, *weights)} == tables | weights
    made = {path.parents[1].name for path in project.study.glob("groups/*/*/*")} - {
        path.parents[1].name for path in tables
    }
    assert made == {"MNIST-shallow-difference"}
    now = {path.name: path.read_text() for path in (project.study / "done").iterdir()}
    assert set(now) == set(stamps) and now["04_analysis"] != stamps["04_analysis"]
    assert now["01_data"] == stamps["01_data"]
    monkeypatch.setenv("MODVAR_RESULTS", str(project.root / "results"))
    measures = study.select(
        study.table("tiny", "measures"), architecture="shallow", measure="units"
    ).set_index("layer")["value"]
    assert measures["flat"] == 1568 and measures["bottleneck"] == 2
    executed = nbformat.read(project.study / "notebooks" / "04_analysis.ipynb", as_version=4)
    said = "".join(
        o.text for c in executed.cells for o in c.get("outputs", []) if o.output_type == "stream"
    )
    assert (
        "5 networks" in said or "difference" in (project.study / "headline.md").read_text()
    )  # not left out without a word
    summary = pd.read_csv(project.study / "summary.csv")
    assert summary.loc[summary["regime"] == "difference", "n"].tolist() in ([1], [])


def test_the_book_is_of_the_study(project):
    site = project.study / "book"
    assert {"index.html", "search.html"} <= {path.name for path in site.iterdir()}
    assert (site / "notebooks" / "04_analysis.html").is_file() and "MNIST summed" in (
        site / "index.html"
    ).read_text()


def test_jobs_go_to_slurm_only_if_told(project, tmp_path):
    """What make asks of Snakemake."""
    fake = tmp_path / "snakemake"
    fake.write_text('#!/bin/sh\necho asked "$@"\n')
    fake.chmod(0o755)
    path, asked = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}", {}
    for profile in ("default", "slurm"):
        status, said = project.make(
            "reproduce", project.configure(), f"PROFILE={profile}", PATH=path
        )
        assert status == 0, said
        (asked[profile],) = [line for line in said.splitlines() if line.startswith("asked ")]
    assert asked["default"] == "asked --workflow-profile profiles/default"
    assert (
        asked["slurm"]
        == "asked --workflow-profile profiles/slurm --slurm-logdir results/tiny/slurm"
    )


@pytest.mark.parametrize(
    ("given", "lands"), [("", "results"), ("~/mine", "home/mine"), ("a b/c", "a b/c"), (".", ".")]
)
def test_make_and_the_graph_agree_where_results_go(tmp_path, given, lands):
    """Whatever the config file's style; the graph asks the same function."""
    project, fake = Project(tmp_path), tmp_path / "snakemake"
    fake.write_text(f"#!/bin/sh\nexec {sys.executable} -m snakemake --dry-run --quiet all\n")
    fake.chmod(0o755)
    (tmp_path / "c.yaml").write_text('{"regime": ["fixed"], "variant": "64"} # and no study\n')
    env = {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
    }
    status, said = project.make("reproduce", "CONFIG=c.yaml", MODVAR_RESULTS=given, **env)
    assert status == 0 and f"Everything goes to {Path(lands, 'original')}/\n" in said, said
    assert (tmp_path / lands / ".original.lock").exists()


@pytest.mark.slow
def test_a_second_make_waits_for_the_first(project):
    tables = {path: path.stat().st_mtime_ns for path in project.study.glob("groups/*/*/*")}
    with open(project.root / "results" / ".tiny.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = project.start("reproduce", project.configure())
        line = ""
        while "waiting" not in line and second.poll() is None:
            line = second.stdout.readline()
        assert line == "Another make works on this study; waiting for it\n"
    assert second.communicate(timeout=300) and second.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in project.study.glob("groups/*/*/*")} == tables


HOSTILE = {
    "a shell's words": 'study: "$(touch made)"',
    "backticks": "study: '`touch made`'",
    "a semicolon": 'study: "x; touch made; #"',
    "make's words": "study: $(shell touch made)",
    "a folder elsewhere": "study: ../../made",
    "a new line": 'study: "x\\ntouch made"',
    "an expression of yte": "__use_yte__: true\nstudy: ?__import__('os').system('touch made')",
    "an object of YAML": "study: !!python/object/apply:os.system ['touch made']",
    "a setting": 'study: x\nregime: "$(touch made)"',
    "a variant": 'study: x\nvariant: "a`touch made`"',
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_config_that_tries_to_run_something_is_one_line(project, case):
    (project.root / "config" / "hostile.yaml").write_text(HOSTILE[case] + "\n")
    before = project.content()
    status, said = project.make("reproduce", "CONFIG=config/hostile.yaml")
    lines = [line for line in said.splitlines() if not line.startswith("make: ***")]
    assert status != 0 and len(lines) == 1 and lines[0].startswith("InputError: "), said
    assert (
        project.content() == before
        and not list(project.root.rglob("made*"))
        and not Path("made").exists()
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["reproduce", "CONFIG=config/$(touch made).yaml"],
            "InputError: config: config/$(touch made).yaml cannot be read",
        ),
        (
            ["reproduce", "CONFIG=config/none.yaml"],
            "InputError: config: config/none.yaml cannot be read",
        ),
        (["reproduce", "PROFILE=pbs"], "PROFILE: got 'pbs'; allowed: default slurm"),
        (
            ["reproduce", "PROFILE=$(touch made)"],
            "PROFILE: got '$(touch made)'; allowed: default slurm",
        ),
        (["book", "STUDY=$(touch made)"], "InputError: study: got '$(touch made)'; allowed: "),
        (["book", "CONFIG=none.yaml"], "InputError: config: none.yaml cannot be read"),
        (
            ["data", "DATASET=$(touch made)"],
            "InputError: dataset: got '$(touch made)'; allowed: MNIST",
        ),
    ],
)
def test_a_command_that_is_wrong_is_one_line(project, words, line):
    status, said = project.make(*words)
    lines = [part for part in said.splitlines() if not part.startswith("make: ***")]
    assert status != 0 and len(lines) == 1 and lines[0].startswith(line), said
    assert not list(project.root.rglob("made*"))


def test_the_published_study_has_nothing_to_train():
    """In this checkout, as in a fresh clone: but for arms that are in its config and not yet
    trained, only the book is made."""
    env = {
        **os.environ,
        "MODVAR_CONFIG": "config/paper.yaml",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    env.pop("MODVAR_RESULTS")
    words = ["snakemake", "--dry-run", "--quiet", "host", "reason"]
    done = subprocess.run(
        words, cwd=data.ROOT, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"^rule (\w+):", done.stdout + done.stderr, re.MULTILINE)) <= {
        "all",
        "book",
    }
