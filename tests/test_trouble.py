"""Full disks, folders that are closed, kernels that start late, kills at random: what only whole
programs show. make test-all"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import kills
import pytest
from test_graph import BIN, Project

from modvar_lib import data

pytestmark = pytest.mark.slow
TRAIN = [sys.executable, "-m", "papermill", "--no-progress-bar", "notebooks/02_train.ipynb"]
TRAIN += [os.devnull, *"-p epochs 2 -p final_epochs 1 -p period 1 -p device cpu".split()]
TRAIN += "-p pairs_per_epoch 512 -p seeds 0-3".split()


def train(results: Path, *before: str) -> tuple[int, list[str]]:
    """The papermill line as a user types it; (exit status, the lines that name an error)."""
    env = {**os.environ, "MODVAR_RESULTS": str(results)}
    done = subprocess.run([*before, *TRAIN], cwd=data.ROOT, env=env, capture_output=True, text=True)
    said = (done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in said if line.startswith("InputError")]


@pytest.fixture
def disk(tmp_path, request):
    """A small file system of its own, mounted with the options that are the test's parameter."""
    (tmp_path / "disk").mkdir()
    words = ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", tmp_path / "disk"]
    if subprocess.run(words).returncode:
        pytest.skip("only root may mount")
    yield tmp_path / "disk"
    subprocess.run(["umount", "--lazy", tmp_path / "disk"], check=True)


@pytest.mark.parametrize("disk", ["size=1m"], indirect=True)  # one network has 0.8 MB
def test_a_full_disk_is_one_line_and_leaves_nothing(disk):
    status, lines = train(disk)
    assert status != 0 and len(lines) == 1 and "No space left on device" in lines[0], lines
    assert "allowed: folders that you may write, with free space" in lines[0]
    assert not [path for path in disk.rglob("*") if path.is_file()]
    subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
    assert train(disk)[0] == 0  # room was made; the same command again
    assert len(list(disk.glob("original/runs/*/seed-*/weights.safetensors"))) == 4


@pytest.mark.parametrize("disk", ["ro,size=1m"], indirect=True)
def test_a_disk_that_is_read_only_is_one_line(disk):
    status, lines = train(disk)
    assert status != 0 and len(lines) == 1 and "Read-only file system" in lines[0], lines


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    """Somebody else's; and a file in its place."""
    (tmp_path / "closed").mkdir(mode=0o555)
    (tmp_path / "file").write_text("")
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # root as anybody else
    for name, reason in (("closed", "Permission denied"), ("file", "Not a directory")):
        status, lines = train(tmp_path / name, *(without if os.getuid() == 0 else []))
        assert status != 0 and len(lines) == 1 and reason in lines[0], lines
        assert "MODVAR_RESULTS" in lines[0]
    assert not list((tmp_path / "closed").iterdir())


LATE = """#!/bin/sh
# papermill, whose first kernel loses the race for its ports
if [ -e "$STARTED" ]; then exec "$PAPERMILL" "$@"; fi
touch "$STARTED"
echo "RuntimeError: Kernel died before replying to kernel_info" >&2
exit 1
"""


def test_a_kernel_that_does_not_start_is_tried_again(tmp_path):
    project, fake = Project(tmp_path), tmp_path / "bin" / "papermill"
    fake.parent.mkdir()
    fake.write_text(LATE)
    fake.chmod(0o755)
    env = {"PAPERMILL": shutil.which("papermill", path=BIN), "PATH": f"{fake.parent}:{BIN}"}
    env["STARTED"] = str(tmp_path / "started")
    status, said = project.make("reproduce", project.configure(regime="fixed"), **env)
    assert status == 0 and "Kernel died before replying" in said, said


def test_kills_at_random(monkeypatch):
    """A few of what `python tests/kills.py 100` does."""
    monkeypatch.setattr(kills, "MOST", 4)
    assert not any(kills.writes(20))
    for program in (kills.papermill, kills.study):
        undisturbed, seconds = kills.undisturbed(program)
        ways, wrong = [], ""
        while len(ways) < 3 and not wrong:
            more, wrong = kills.trial(program, undisturbed, seconds)
            ways += more
        assert not wrong


ANALYSES = ["04_analysis", "05_why_the_score_moves", "06_ruler", "07_controls", "08_multiverse"]
COMPANION = {
    "architecture": "mlp",
    "regime": "fixed",
    "extras": "untrained,shuffled,rotated,shifted,seen,clusterability",
    "notebooks": [*ANALYSES, "09_explore"],
    "arms": [
        {"regime": ["fixed", "varying", "tables"]},
        {"architecture": ["towers", "summed", "dose20"]},
        {"variant": "period2", "regime": "varying", "period": 2},
    ],
}


def test_every_analysis_from_nothing(tmp_path):
    """Calibration, controls, variants and every notebook, at toy size, as `make paper` does at full
    size."""
    project = Project(tmp_path)
    status, said = project.make("reproduce", project.configure(**COMPANION))
    assert status == 0, said
    executed = {path.stem for path in (project.study / "notebooks").iterdir()}
    pages = {path.stem for path in (project.study / "book" / "notebooks").glob("*.html")}
    assert {*COMPANION["notebooks"]} <= executed & pages
    assert len(list(project.study.glob("*.csv"))) > 15
    assert len(list((project.root / "figures" / "tiny").iterdir())) > 15


def test_a_study_of_one_arm(tmp_path):
    """It has an analysis, in which nothing is NaN for want of the other; a notebook that needs the
    other says so in one line."""
    project = Project(tmp_path)
    arm = {"regime": "varying", "seeds": "0", "variant": "64"}  # which looks like a number
    status, said = project.make("reproduce", project.configure(**arm))
    text = (project.study / "headline.md").read_text()
    assert status == 0 and "nan" not in text.lower() and "| MNIST summed | varying" in text, said
    status, said = project.make("reproduce", project.configure(**arm, notebooks=["06_ruler"]))
    lines = [line for line in said.splitlines() if "it has no networks of " in line]
    assert status != 0 and lines and lines[0].startswith("InputError: study: "), said


def test_make_smoke(tmp_path):
    status, said = Project(tmp_path).make("smoke")
    assert status == 0 and "| MNIST mlp" in said, said
