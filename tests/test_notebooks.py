import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ARCHITECTURES
from reference.make import REFERENCES

from modvar_lib import data, notebook, runs, training
from modvar_lib.errors import InputError

SOURCES = sorted((data.ROOT / "notebooks").glob("*.ipynb"))
HERE = Path(__file__).parent
NAMES = (
    "study dataset architecture regime variant seeds epochs period final_epochs"
    " pairs_per_epoch batch_size optimizer learning_rate frames device"
).split()


def read(path):
    return nbformat.read(path, as_version=4)


def code(path):
    """The sources of the code cells, without the one that papermill put in."""
    return [
        c.source
        for c in read(path).cells
        if c.cell_type == "code" and "injected-parameters" not in c.metadata.get("tags", [])
    ]


def parameters_of(path):
    (cell,) = [c.source for c in read(path).cells if "parameters" in c.metadata.get("tags", [])]
    return cell


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_sources_are_stripped_and_plain(path):
    found = read(path)
    nbformat.validate(found)
    assert found.metadata["kernelspec"]["name"] == "python3"
    for cell in found.cells:
        if cell.cell_type == "code":
            assert (
                cell.outputs == []
                and cell.execution_count is None
                and not cell.source.rstrip().endswith(";")
            )
            assert set(cell.metadata) <= {"tags"}
            assert (
                "parameters" in cell.metadata.get("tags", []) or len(cell.source.splitlines()) <= 24
            )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_parameters_are_the_common_ones_typed_and_explained(path):
    source = parameters_of(path)
    body = ast.parse(source).body
    assert body and all(isinstance(line, ast.AnnAssign) for line in body)
    assert {line.target.id for line in body} <= set(NAMES)
    assert all(re.search(r"  # \w+", line) for line in source.splitlines())


def test_a_parameter_has_one_default_and_meaning_everywhere():
    """But for 10_your_own, which is a toy; the regimes of 01_data: the varying ones, so that there is something to see; and the
    study of 05 to 09, which need more arms than one trains oneself: the published one."""
    lines = {}
    for path in SOURCES:
        for line in parameters_of(path).splitlines():
            name = line.split(":")[0]
            if path.stem[:2] in ("05", "06", "07", "08", "09"):
                line = line.replace("published/paper", "original")
            if path.stem != "10_your_own" and (path.stem, name) != ("01_data", "regime"):
                assert lines.setdefault(name, line) == line
    assert sorted(lines) == sorted(NAMES)


def test_the_training_notebook_has_every_parameter_and_the_librarys_defaults():
    values = {}
    exec(parameters_of(data.ROOT / "notebooks" / "02_train.ipynb"), values)
    found = {name: values[name] for name in NAMES}
    assert notebook.settings(**found) == notebook.Settings()


@pytest.mark.parametrize("name", REFERENCES)
def test_references_have_not_drifted(name):
    """What nbval executes is what the notebooks hold, with the parameters that tests/reference/make.py says."""
    reference = HERE / "reference" / f"{name}.ipynb"
    assert code(reference) == code(data.ROOT / "notebooks" / f"{name.split('-')[0]}.ipynb"), (
        "run: make reference"
    )
    injected = [
        c.source
        for c in read(reference).cells
        if "injected-parameters" in c.metadata.get("tags", [])
    ]
    values = {}
    exec(injected[0], values)
    assert {k: v for k, v in values.items() if k != "__builtins__"} == REFERENCES[name]


def test_every_notebook_has_a_reference_and_nbval_compares_it():
    """nbval compares only cells with an execution count: on a stripped notebook it would check nothing and pass. Notebooks that
    read published tables are executed over them in test_project."""
    published = (data.ROOT / "results" / "published" / "paper" / "notebooks").glob("0[5-8]_*")
    held = {name.split("-")[0] for name in REFERENCES} | {path.stem for path in published}
    assert held == {path.stem for path in SOURCES}
    for path in (HERE / "reference").glob("*.ipynb"):
        assert path.stem in REFERENCES
        cells = [c for c in read(path).cells if c.cell_type == "code" and c.source.strip()]
        assert all(c.execution_count for c in cells)
        assert sum(bool(c.outputs) for c in cells) >= 5


def papermill(folder: Path, name: str, *arguments: str):
    """The command as a user types it; (exit status, its last lines)."""
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", name, os.devnull, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["-p", "regmie", "varying"],
            r"InputError: unknown parameter: got 'regmie'; allowed: study, .*\(did you mean regime\?\)",
        ),
        (
            ["-p", "regime", "vary"],
            r"InputError: regime: got 'vary'; allowed: fixed, varying, .* \(did you mean varying\?\)",
        ),
        (["-y", "{seeds: 1.5}"], r"InputError: seeds: got 1.5; allowed: whole numbers"),
    ],
)
def test_bad_parameters_end_papermill_with_one_line(results, arguments, line):
    status, said = papermill(data.ROOT / "notebooks", "02_train.ipynb", *arguments)
    assert status != 0 and re.search(rf"^{line}", said, re.MULTILINE)
    assert not results.exists()


@pytest.mark.parametrize("name", ["03_metric", "04_analysis"])
def test_an_empty_study_ends_papermill_with_one_line(results, name):
    status, said = papermill(data.ROOT, f"notebooks/{name}.ipynb", "-p", "study", "nothing")
    assert status != 0 and re.search(r"^InputError: study: 'nothing' has no ", said, re.MULTILINE)
    assert not results.exists()


def test_the_papermill_line_works_from_the_root_and_keeps_what_is_done(results, toy, splits):
    settings = toy(study="original", epochs=100, final_epochs=10, period=10, pairs_per_epoch=64)
    before = runs.save("original", training.train(settings, splits)[0])
    stamp = (before / "history.csv").stat().st_mtime_ns
    status, said = papermill(
        data.ROOT, "notebooks/02_train.ipynb", "-p", "pairs_per_epoch", "32", "-p", "device", "cpu"
    )
    assert status != 0 and "InputError: pairs_per_epoch: got 32, but " in said
    assert (before / "history.csv").stat().st_mtime_ns == stamp


def test_an_error_is_not_fit_to_publish(tmp_path):
    cell = nbformat.v4.new_code_cell(
        "1/0", outputs=[nbformat.v4.new_output("error", ename="ZeroDivisionError")]
    )
    found = nbformat.v4.new_notebook(
        cells=[cell], metadata={"kernelspec": {"name": "python3", "display_name": "p"}}
    )
    nbformat.write(found, tmp_path / "x.ipynb")
    with pytest.raises(InputError, match=r"ends in an error"):
        notebook.clean(tmp_path / "x.ipynb")


@pytest.mark.parametrize("regime", ["fixed", "varying"])
@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"mlp"}))
def test_every_architecture_trains_on_both_regimes_from_papermill(results, architecture, regime):
    toy = "-p seeds 0-1 -p epochs 2 -p final_epochs 1 -p period 1 -p pairs_per_epoch 512 -p device cpu"
    options = f"-p architecture {architecture} -p regime {regime} {toy}".split()
    status, said = papermill(data.ROOT / "notebooks", "02_train.ipynb", *options)
    assert status == 0, said
    for path in runs.paths("original"):
        run = runs.load(path)
        assert run.key["architecture"] == architecture and len(run.history) == 2
    assert len(runs.paths("original")) == 2


OWN = """
import numpy as np
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
    return [
        row
        for layer, found in subject.anova.items()
        for row in metrics.tidy(layer, {"units": float(len(found.total))}, "")
    ]


metrics.METRICS["units"] = metrics.Metric(units, {"units": metrics.Property(1, 1e6, ())})
"""


def test_a_file_of_ones_own_is_trained_measured_and_planned(results, tmp_path, monkeypatch):
    own, config = tmp_path / "own.py", tmp_path / "own.yaml"
    own.write_text(OWN)
    config.write_text("{study: original, architecture: shallow, regime: difference, group_size: 1}")
    toy = "-p epochs 1 -p final_epochs 0 -p pairs_per_epoch 512 -p device cpu"
    train = f"-p architecture shallow -p regime difference {toy}".split()
    plan = ["snakemake", "--configfile", str(config), "--dry-run"]

    status, said = papermill(data.ROOT, "notebooks/02_train.ipynb", *train)
    assert status != 0 and "InputError: architecture: got 'shallow'; allowed: " in said
    monkeypatch.setenv("MODVAR_OWN", str(own))
    for name, arguments in (("02_train", train), ("03_metric", [])):
        status, said = papermill(data.ROOT, f"notebooks/{name}.ipynb", *arguments)
        assert status == 0, said
    measures = runs.table("original", "measures.csv")
    found = measures[measures["measure"] == "units"].set_index("layer")["value"]
    assert found["flat"] == 1568 and found["bottleneck"] == 2
    done = subprocess.run(plan, cwd=data.ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "train_shallow_difference" in done.stdout, done.stderr

    monkeypatch.setenv("MODVAR_OWN", str(tmp_path / "none.py"))
    status, said = papermill(data.ROOT, "notebooks/02_train.ipynb", *train)
    assert status != 0 and re.search(
        r"^InputError: MODVAR_OWN: got '.*none.py'; allowed: ", said, re.M
    )
