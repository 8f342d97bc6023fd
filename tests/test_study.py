"""The whole graph as a user starts it, on real digits at toy size."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import papermill
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError

from modvar_lib import data, publish, runs
from modvar_lib.errors import InputError

CONFIG = {
    "study": "tiny",
    "dataset": "MNIST",
    "architecture": "summed",  # measured quickly
    "regime": ["fixed", "varying"],
    "seeds": "0-2",
    "group_size": 2,
    "epochs": 2,
    "period": 1,
    "final_epochs": 1,
    "pairs_per_epoch": 640,
    "device": "cpu",
}


def snakemake(folder: Path, **changes):
    """Run the graph on a config; (exit status, what it said)."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, **changes}))
    done = subprocess.run(
        ["snakemake", "--configfile", str(config)],
        cwd=data.ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of six networks."""
    folder = tmp_path_factory.mktemp("study")
    before = os.environ["MODVAR_RESULTS"]
    os.environ["MODVAR_RESULTS"] = str(folder / "results")
    status, said = snakemake(folder)
    assert status == 0, said
    yield folder
    os.environ["MODVAR_RESULTS"] = before


def test_the_graph_makes_every_run_table_page_and_figure(study):
    root = study / "results" / "tiny"
    assert len(runs.paths("tiny")) == 6
    for name in (
        "headline.md",
        "measures.csv",
        "runs.csv",
        "history.csv",
        "summary.csv",
        "difference.csv",
        "figures/headline.png",
    ):
        assert (root / name).stat().st_size > 0
    assert {path.stem for path in (root / "report").glob("0*.html")} == {
        path.stem for path in (root / "notebooks").iterdir()
    }
    assert len(list((root / "notebooks").glob("02_train-*"))) == 4
    table = pd.read_csv(root / "measures.csv")
    assert set(table.groupby("regime")["seed"].nunique()) == {3}
    assert "| MNIST summed | varying  | 3 " in (root / "headline.md").read_text()


@pytest.mark.parametrize("name", ["05_why_the_score_moves", "06_ruler", "07_controls"])
def test_a_study_without_the_arms_is_one_line(study, name):
    about = pd.read_csv(study / "results" / "tiny" / "measures.csv")
    folder = study / "results" / "partial"
    folder.mkdir(exist_ok=True)
    about[about["regime"] == "fixed"].to_csv(folder / "measures.csv", index=False)
    for other in ("copies", "history", "runs"):
        shutil.copy(study / "results" / "tiny" / f"{other}.csv", folder)
    source = data.ROOT / "notebooks" / f"{name}.ipynb"
    with pytest.raises(
        PapermillExecutionError, match=r"study: it has no networks of .*mlp varying"
    ):
        papermill.execute_notebook(source, None, {"study": "partial"}, progress_bar=False)


def test_again_does_nothing_and_a_lost_run_is_trained_alone(study):
    status, said = snakemake(study)
    assert status == 0 and "Nothing to be done" in said
    first, lost = runs.paths("tiny")[:2]
    copies = data.ROOT / ".snakemake" / "backups"  # where Snakemake would copy the first run to
    copies.mkdir(parents=True, exist_ok=True)
    left_by_a_kill = Path(os.path.normpath(copies / os.path.relpath(first, data.ROOT)))
    made_here = [folder for folder in left_by_a_kill.parents if not folder.exists()]
    left_by_a_kill.mkdir(parents=True)
    stamp, history = (first / "history.csv").stat().st_mtime_ns, pd.read_csv(lost / "history.csv")
    shutil.rmtree(lost)
    status, said = snakemake(study)
    assert status == 0, said
    assert list(left_by_a_kill.iterdir()) == []
    shutil.rmtree(made_here[-1])
    assert (first / "history.csv").stat().st_mtime_ns == stamp
    pd.testing.assert_frame_equal(pd.read_csv(lost / "history.csv"), history, rtol=1e-3)


def test_publishing_copies_what_is_finished(study, tmp_path, monkeypatch):
    shutil.copytree(data.ROOT / "config", tmp_path / "config")
    monkeypatch.setattr(data, "ROOT", tmp_path)
    publish.publish("tiny")
    tables = tmp_path / "results" / "published" / "tiny"
    assert {"headline.md", "measures.csv", "notebooks", "report"} <= {
        path.name for path in tables.iterdir()
    }
    assert (tmp_path / "figures" / "tiny" / "headline.png").is_file()
    metadata = json.loads((tables / "notebooks" / "04_analysis.ipynb").read_text())["metadata"]
    assert set(metadata) == {"kernelspec", "language_info"}
    with pytest.raises(InputError, match=r"is missing; allowed: a finished study"):
        publish.publish("nothing")
