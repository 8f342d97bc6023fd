"""Runs and tables of strangers are safe to analyse. Tried: programs in files that are read (pickle and its kin), paths out of the
results folder, links, huge and nested headers, numbers that are not finite, HTML and control characters, connections."""

import ast
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from safetensors.torch import save

from modvar_lib import data, metrics, runs
from modvar_lib.errors import InputError

CODE = [
    *sorted((data.ROOT / "modvar_lib").rglob("*.py")),
    *sorted((data.ROOT / "notebooks").glob("*.ipynb")),
]
UNSAFE = {  # can run what a file says
    *("pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle", "read_pickle"),
    *("to_pickle", "load_module", "exec", "eval", "unsafe_load", "full_load", "system", "popen"),
}


def source(path: Path) -> str:
    if path.suffix == ".py":
        return path.read_text()
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_nothing_that_reads_a_file_can_run_it(path):
    for node in ast.walk(ast.parse(source(path))):
        names = {
            ast.Attribute: lambda n: {n.attr},
            ast.Name: lambda n: {n.id},
            ast.Import: lambda n: {part for a in n.names for part in a.name.split(".")},
            ast.ImportFrom: lambda n: {*(n.module or "").split("."), *(a.name for a in n.names)},
        }.get(type(node), lambda n: set())(node)
        if isinstance(node, ast.Attribute) and node.attr == "eval":  # a network's switch
            names.discard("eval")
        assert not names & UNSAFE, (path.name, node.lineno)
        if isinstance(node, ast.Call):
            said = ast.unparse(node.func)
            assert said not in ("torch.load", "np.load", "numpy.load", "yaml.load"), path.name
            assert not any(word.arg in ("shell", "allow_pickle") for word in node.keywords)


@pytest.fixture
def run(results, toy):
    """A run on disk, to be tampered with."""
    return runs.complete(toy(study="stranger", epochs=2, pairs_per_epoch=128))[0].path


def settle(run: Path, name: str, content: bytes) -> None:
    """Put a file into a run as its maker would, with the checksum that belongs to it."""
    (run / name).write_bytes(content)
    if name != "provenance.json":
        origin = json.loads((run / "provenance.json").read_text())
        origin["files"][name] = runs.files.digest(content)
        (run / "provenance.json").write_text(json.dumps(origin))


def changed(run: Path, **values) -> bytes:
    return json.dumps(json.loads((run / "settings.json").read_text()) | values).encode()


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


TENSOR = b'{"w":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
HOSTILE = [
    ("settings.json", lambda run: changed(run, study="../../etc")),
    ("settings.json", lambda run: changed(run, variant="../../../etc")),
    ("settings.json", lambda run: changed(run, architecture="../mlp")),
    ("settings.json", lambda run: changed(run, regime="<script>alert(1)</script>")),
    ("settings.json", lambda run: changed(run, variant="<b>x</b>")),
    ("settings.json", lambda run: changed(run, seed=-1)),
    ("settings.json", lambda run: changed(run, seed="0/../../x")),
    ("settings.json", lambda run: changed(run, epochs=10**15)),
    ("settings.json", lambda run: changed(run, learning_rate=float("nan"))),
    ("settings.json", lambda run: changed(run, learning_rate=float("inf"))),
    ("settings.json", lambda run: b"[" * 900_000),
    ("settings.json", lambda run: b'{"a":' * 100_000),
    ("settings.json", lambda run: b" " * 2_000_000),
    ("settings.json", lambda run: b"\x80\x04\x95 a pickle"),
    ("settings.json", lambda run: b"\xff\xfe"),
    ("settings.json", lambda run: b"1" * 10_000),
    ("history.csv", lambda run: b"epoch,test_r2\n" + b"0,1\n" * 1_000_000),
    ("history.csv", lambda run: b"epoch\n0\n"),
    ("history.csv", lambda run: b"epoch,<script>\n0,1\n1,1\n"),
    ("history.csv", lambda run: b"\x00" * 1000),
    ("history.csv", lambda run: b""),
    ("weights.safetensors", lambda run: header(b"{}", 2**63)),
    ("weights.safetensors", lambda run: header(b"{}", 99_000_000)),
    ("weights.safetensors", lambda run: header(TENSOR)),
    ("weights.safetensors", lambda run: header(b"[" * 500_000)),
    ("weights.safetensors", lambda run: b"\x80\x04\x95 a pickle"),
    ("weights.safetensors", lambda run: b"PK\x03\x04 a zip, as torch.save writes"),
    ("weights.safetensors", lambda run: b"\x00" * 50_000_000),
    ("weights.safetensors", lambda run: save({"../../x": torch.zeros(2)})),
    ("provenance.json", lambda run: b"[]"),
    ("provenance.json", lambda run: b"{" * 500_000),
    ("provenance.json", lambda run: b'{"files": 3}'),
    ("provenance.json", lambda run: b'{"files": {"settings.json": "0"}}'),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_file_is_one_line(run, number):
    name, make = HOSTILE[number]
    settle(run, name, make(run))
    with pytest.raises(InputError) as caught:
        runs.load(run)
    line = str(caught.value)
    assert line.startswith(f"run: {run}") and " is damaged (" in line and "\n" not in line
    assert len(line) < 1000 + len(str(run))


@pytest.mark.parametrize("name", runs.FILES)
@pytest.mark.parametrize("kind", ["link", "loop", "pipe", "folder"])
def test_what_is_not_a_plain_file_is_not_read(run, tmp_path, name, kind):
    """A link to a secret, or to a good copy; a link to itself; a pipe, that would wait for ever."""
    (run / name).rename(tmp_path / name)
    {
        "link": lambda: (run / name).symlink_to(tmp_path / name),
        "loop": lambda: (run / name).symlink_to(run / name),
        "pipe": lambda: os.mkfifo(run / name),
        "folder": lambda: (run / name).mkdir(),
    }[kind]()
    with pytest.raises(InputError, match=rf"{name} is (damaged|missing)"):
        runs.load(run)


@pytest.mark.parametrize("name", ["<img src=x>", "MNIST-mlp-fixed\n", "..", "MNIST-mlp-fixed;ls"])
def test_the_name_of_a_folder_is_not_trusted(run, name):
    if name != "..":
        run.parent.rename(run.parent.with_name(name))
        with pytest.raises(InputError, match="it belongs in MNIST-mlp-fixed/seed-000"):
            runs.tables("stranger")


def test_weights_that_are_not_finite_are_measured_as_nan_and_said_so(run, splits):
    weights = {name: torch.full_like(w, float("nan")) for name, w in runs.load(run).weights.items()}
    settle(run, "weights.safetensors", save(weights))
    found = metrics.measure(runs.load(run), splits[1], pairs=50)
    assert found["value"].isna().all() and set(found["note"]) == {
        "the network's weights are not finite"
    }


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "a<b", "x\x1b[2J", "a\x00b", "<img src=x onerror=alert(1)>"],
)
@pytest.mark.parametrize("column", ["architecture", "regime", "layer", "note"])
def test_html_and_control_characters_in_a_table_are_refused(results, column, text):
    table = pd.DataFrame([dict.fromkeys(metrics.COLUMNS, "a")] * 2).assign(seed=[0, 1], value=0.5)
    table.loc[1, column] = text
    runs.write(table, "stranger", "measures.csv")
    with pytest.raises(InputError, match=r"measures.csv is damaged \(") as caught:
        runs.table("stranger", "measures.csv")
    assert "\x1b" not in str(caught.value) and "\x00" not in str(caught.value)


def test_html_in_a_runs_provenance_is_not_shown(run):
    origin = json.loads((run / "provenance.json").read_text()) | {
        "cpu": "<script>alert(1)</script>"
    }
    settle(run, "provenance.json", json.dumps(origin).encode())
    about, _ = runs.tables("stranger")
    runs.write(about, "stranger", "runs.csv")
    with pytest.raises(InputError, match=r"runs.csv is damaged \(in cpu"):
        runs.table("stranger", "runs.csv")


OFFLINE = """
import sys

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        raise SystemExit(f"{event} {args}")

sys.addaudithook(watch)
from modvar_lib import data, figures, metrics, runs, statistics
from modvar_lib.settings import Settings

toy = dict(epochs=1, final_epochs=0, pairs_per_epoch=128, device="cpu")
runs.complete(Settings(study="offline", architecture="summed", **toy))
metrics.measure_study("offline")
"""


def test_nothing_is_fetched_at_run_time(results):
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
