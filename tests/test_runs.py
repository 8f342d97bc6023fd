"""A network on disk: whole or absent, read back as it was, and one line of error that names the
file when it is not."""

import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load, load_file
from safetensors.torch import save as to_bytes

from modvar_lib import models, runs, training
from modvar_lib.analysis import study
from modvar_lib.config import read_config
from modvar_lib.errors import InputError
from modvar_lib.settings import Settings


@pytest.fixture(scope="module")
def origin(toy, splits, tmp_path_factory):
    """(settings, networks as trained, results folder) of two networks with frames, trained and
    written once."""
    settings, folder = toy(regime="varying", seeds="0-1", frames=2), tmp_path_factory.mktemp("o")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODVAR_RESULTS", str(folder))
        trained = training.train(settings, splits)
        runs.save(trained)
    return settings, trained, folder


@pytest.fixture
def saved(origin, results):
    """(settings, networks as trained, their folders) to spoil."""
    settings, trained, folder = origin
    shutil.copytree(folder, results)
    return settings, trained, [runs.run_folder(one) for one in settings.runs()]


@pytest.fixture
def untouched(monkeypatch):
    """Training is an error."""
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("trained again"))


def content(path: Path) -> dict[str, bytes]:
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def learnt(path: Path) -> dict[str, bytes]:
    """All but where and when it was trained."""
    return {name: what for name, what in content(path).items() if "provenance" not in name}


def same(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(some[name], others[name].to(some[name].dtype)) for name in some)


def test_what_is_saved_comes_back(saved, results):
    settings, trained, paths = saved
    assert paths[1] == results / "toy" / "runs" / "MNIST-mlp-varying" / "seed-001"
    assert {p.name for p in paths[0].iterdir()} == {*runs.FILES, "frames.safetensors"}
    run, before = runs.load(paths[1], "toy"), trained[1]
    assert run.settings.saved() == settings.runs()[1].saved() and run.key["seed"] == 1
    assert list(run.key) == runs.KEYS and list(run.frames) == list(before.frames)
    exact = {"check_exact": True, "check_dtype": False}
    pd.testing.assert_frame_equal(run.history, before.history, **exact)
    assert same(run.weights, before.weights)
    assert all(same(frame, run.frames[epochs]) for epochs, frame in before.frames.items())
    assert run.provenance["threads"] == torch.get_num_threads() and len(run.provenance["data"]) == 4
    assert {"commit", "dirty"} == set(run.provenance["git"] or {"commit", "dirty"})


def test_a_network_as_it_was_at_any_kept_moment(saved):
    run = runs.load(saved[2][0], "toy")
    start = models.initial("mlp", 0).state_dict()
    for epochs, weights in {0: start, 3: run.weights, None: run.weights, **run.frames}.items():
        assert same(run.network(epochs).state_dict(), weights)
    with pytest.raises(InputError, match=r"^epochs: got 7; kept of seed-000: \[0, 1, 2, 3\]$"):
        run.network(7)


def test_a_finished_group_is_not_trained_again(saved, toy, untouched):
    """Frames, device and what is measured besides do not determine a network."""
    assert [run.key["seed"] for run in runs.complete(saved[0])] == [0, 1]
    other = toy(regime="varying", seeds="0-1", frames=0, extras="seen", device="auto")
    assert runs.missing(saved[0]) == runs.missing(other) == ()


LEFT = f"{platform.node()}-{2**22 + 1}-abc"  # by a process that is no more: no number is as high


def test_a_group_that_was_killed_ends_in_the_same_bits(saved, results, monkeypatch):
    """Killed while training: nothing is there. While writing: half a folder beside those that are
    whole."""
    settings, _, paths = saved
    monkeypatch.setattr(
        torch, "get_num_threads", lambda: 2
    )  # a lot per network, whichever are missing
    shutil.rmtree(results)
    runs.complete(settings)
    whole = [learnt(path) for path in paths]
    stamp = (paths[0] / "weights.safetensors").stat().st_mtime_ns
    aside = paths[1].with_name(f".seed-001-{LEFT}")
    paths[1].rename(aside)
    (aside / "weights.safetensors").write_bytes(b"half")
    runs.complete(settings)
    assert [learnt(path) for path in paths] == whole and not aside.exists()
    assert (paths[0] / "weights.safetensors").stat().st_mtime_ns == stamp


HALF = "import sys; from modvar_lib import runs, settings; runs.complete(settings.Settings(**eval(sys.argv[1])))"


def test_a_killed_training_leaves_nothing_to_the_next(toy, splits, results):
    """Killed while it trains, and as if while it writes; then the same seed, in the same study,
    with another learning rate."""
    first, second = toy(learning_rate=0.05, frames=2, epochs=10**6, final_epochs=1), toy(frames=2)
    words = [sys.executable, "-c", HALF, repr(first.model_dump())]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert b"epoch" in process.stderr.readline(200)  # it trains
        time.sleep(1)
        process.kill()
    (other,) = training.train(toy(learning_rate=0.05, frames=2), splits)
    path = runs.run_folder(second)
    for half in (path, path.with_name(f".{path.name}-{LEFT}")):
        frames = {f"1/{name}": weight for name, weight in other.frames[1].items()}
        runs.write(half / "frames.safetensors", to_bytes(frames))
        runs.write(half / "history.csv", b"epoch\n")
    (run,), (alone,) = runs.complete(second), training.train(second, splits)
    pd.testing.assert_frame_equal(run.history, alone.history, check_exact=True, check_dtype=False)
    assert run.settings.learning_rate == 0.001 and os.listdir(path.parent) == [path.name]
    assert same(run.weights, alone.weights)
    assert all(same(run.frames[epochs], frame) for epochs, frame in alone.frames.items())


LINKS = ["", "groups", "groups/MNIST-mlp-varying", "runs/MNIST-mlp-varying/seed-000", "headline.md"]


@pytest.mark.parametrize("name", LINKS)
def test_a_link_out_of_a_study_is_one_line_and_nothing_is_touched(
    saved, results, tmp_path, name, untouched
):
    outside, link = tmp_path / "outside", results / "toy" / name
    outside.mkdir()
    (outside / "file").write_text("mine")
    shutil.rmtree(link, ignore_errors=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside if name != "headline.md" else outside / "file")
    runs.inside.cache_clear()
    for call in (
        lambda: study.table("toy", "runs"),
        lambda: study.write(pd.DataFrame([1]), "toy", "x.csv"),
        lambda: runs.paths("toy"),
        lambda: read_config({"study": "toy", "regime": "varying", "seeds": "0-1"}),
        lambda: runs.complete(saved[0]),
    ):
        with pytest.raises(InputError, match=rf"^study: {re.escape(str(link))} is a link out of "):
            call()
    assert content(outside) == {"file": b"mine"}


def test_a_link_within_a_study_is_followed(saved, results):
    (results / "toy" / "also").symlink_to(results / "toy" / "runs")
    runs.inside.cache_clear()
    assert len(runs.paths("toy")) == 2


def test_other_settings_never_overwrite(saved, toy, untouched):
    before = content(saved[2][0].parent)
    for name, value, was in (("epochs", 5, 3), ("penalty", 0.1, 0.0), ("standardise", True, False)):
        line = rf"^{name}: got {value}, but .*seed-000 have {was}; allowed: .*-p study mine"
        with pytest.raises(InputError, match=line):
            runs.complete(toy(regime="varying", seeds="0-1", **{name: value}))
    assert content(saved[2][0].parent) == before


def test_networks_are_found_by_their_names_alone(saved, toy):
    """Whatever they were trained with; all with the same, and all there."""
    _, _, paths = saved
    asked = Settings(study="toy", regime="varying", seeds="0-1")
    assert [run.settings.epochs for run in runs.trained(asked, named=True)] == [3, 3]
    written = json.loads((paths[1] / "settings.json").read_text()) | {"learning_rate": 0.5}
    (paths[1] / "settings.json").write_text(json.dumps(written))
    with pytest.raises(InputError, match=r"^learning_rate: got 0.001, but .*seed-001 have 0.5; "):
        runs.trained(asked, named=True)
    with pytest.raises(InputError, match=r"^run: .*seed-002 cannot be used \(.*settings.json"):
        runs.trained(asked.of((0, 2)), named=True)


def test_networks_whose_tables_are_there_are_not_trained_anew(saved, toy, untouched):
    settings, _, folders = saved
    table = runs.tables([runs.load(path, settings.study) for path in folders])["runs"]
    runs.write_table(table, runs.group_folder(settings) / "runs.csv")
    assert len(runs.complete(settings)) == 2
    shutil.rmtree(folders[0])
    line = r"^study: .*000-001 has seed 0 already; allowed: another study, or delete"
    with pytest.raises(InputError, match=line):
        runs.complete(settings)


def test_frames_that_were_not_kept_are_one_line(saved, toy, untouched):
    (saved[2][0] / "frames.safetensors").unlink()
    with pytest.raises(InputError, match=r"^frames: got 2, but none were kept of .*seed-000; allo"):
        runs.complete(toy(regime="varying", seeds="0-1", frames=2))


@pytest.mark.parametrize("fails", ["provenance", "to_bytes"])
def test_a_failed_write_leaves_nothing(results, origin, monkeypatch, fails):
    monkeypatch.setattr(runs, fails, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runs.save(origin[1])
    assert [p for p in results.rglob("*") if p.is_file() or "seed" in p.name] == []


def full(_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    runs.write(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        runs.write(path, b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def header(text: bytes, length: int) -> bytes:
    return struct.pack("<Q", length) + text


LARGE = b'{"w":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
NARROW = {"readout.bias": torch.zeros(7)}
DAMAGE = {  # of each file: what takes its place; of text, whole, what that becomes
    "weights.safetensors": [
        *(b"\x80\x04\x95 a pickle", b"PK\x03\x04 a zip, as torch.save writes"),
        *(header(b"{}", 2**63), header(LARGE, len(LARGE)), to_bytes({"../../x": torch.zeros(2)})),
        *(to_bytes(NARROW), to_bytes(models.initial("cnn", 0).state_dict())),
    ],
    "settings.json": [
        *(b'{"regime": "fixd", "seed": 0}', b'{"epochs": 0, "seed": 0}', b"[]", b"{}", b"\xff"),
        *(b'{"variant": "../../etc", "seed": 0}', b"[" * 100_000),
        lambda whole: whole.replace(b'"seed": 0', b'"seed": 1'),
    ],
    "provenance.json": [b"[]", b"{}"],
    "history.csv": [b"epoch,test_r2\n0,1\n", lambda whole: whole.replace(b"\n1,", b"\nx,")],
    "frames.safetensors": [
        *(b"x", to_bytes({"x": torch.zeros(1)})),
        lambda whole: to_bytes(load(whole) | {"1/readout.bias": torch.zeros(7)}),
    ],
}
CASES = [(name, how) for name, hows in DAMAGE.items() for how in hows]
CASES += [(name, how) for name in runs.FILES for how in (None, b"", lambda w: w[: len(w) // 2])]


@pytest.mark.parametrize(("name", "how"), CASES)
def test_a_damaged_network_is_one_line(saved, name, how):
    path = saved[2][0] / name
    whole = path.read_bytes()
    path.unlink()
    if how is not None:
        path.write_bytes(how(whole) if callable(how) else how)
    with pytest.raises(InputError) as caught:
        runs.load(path.parent, "toy")
    line = str(caught.value)
    assert line.startswith(f"run: {path.parent} cannot be used (") and "\n" not in line
    assert "train again" in line and "MODVAR_OWN" in line and len(line) < 1000 + 2 * len(str(path))


def test_a_group_keeps_the_final_weights_of_its_networks(saved):
    settings, _, _ = saved
    networks = runs.complete(settings)
    folder = runs.save_group(settings, networks, runs.tables(networks))
    kept = list(runs.published(settings.study))
    assert [run.settings.saved() for run in kept] == [run.settings.saved() for run in networks]
    for run, network in zip(kept, networks):
        assert all(same({k: v.half()}, {k: run.weights[k]}) for k, v in network.weights.items())
        assert run.weights["readout.bias"].dtype == torch.float16
        assert run.history.shape == network.history.shape and not run.frames
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ZeroDivisionError), runs.whole(folder) as aside:
        runs.write(aside / "runs.csv", b"half")
        1 / 0  # noqa: B018
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert os.listdir(folder.parent) == [folder.name]


def of_another_arm(path):
    path.parent.rename(path.parent.with_name("000-007"))


def of_another_shape(path):
    weights = {key: value[:1] for key, value in load_file(path).items()}
    runs.write(path, to_bytes(weights, {"arm": path.parts[-3], "group": path.parts[-2]}))


def without_one(path):
    weights = {key: value for key, value in load_file(path).items() if not key.startswith("1/")}
    runs.write(path, to_bytes(weights, {"arm": path.parts[-3], "group": path.parts[-2]}))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "weights.safetensors cannot"),
        (lambda path: path.write_bytes(b""), "weights.safetensors cannot"),
        (of_another_arm, "it is of .*000-001"),
        (of_another_shape, "size mismatch|Error"),
        (without_one, r"weights.safetensors cannot be used \(1\)"),
        (lambda path: path.with_name("runs.csv").unlink(), "No such file"),
    ],
)
def test_damaged_weights_of_a_group_are_one_line(saved, damage, why):
    networks = runs.complete(saved[0])
    folder = runs.save_group(saved[0], networks, runs.tables(networks))
    damage(folder / "weights.safetensors")
    with pytest.raises(InputError, match=why) as error:
        list(runs.published(saved[0].study))
    assert len(str(error.value).splitlines()) == 1


WRITER = """import sys
from pathlib import Path
from modvar_lib import runs
for _ in range(40):
    with runs.whole(Path(sys.argv[1])) as aside:
        for name in "abc":
            (aside / name).write_text(sys.argv[2])
"""


def test_two_writers_of_one_folder_leave_a_whole_one(tmp_path):
    words = [sys.executable, "-c", WRITER, str(tmp_path / "group")]
    writers = [subprocess.Popen([*words, name]) for name in ("first", "second")]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert os.listdir(tmp_path) == ["group"]
    assert len({path.read_text() for path in (tmp_path / "group").iterdir()}) == 1
    assert sorted(os.listdir(tmp_path / "group")) == ["a", "b", "c"]


RACE = """import sys
from dataclasses import replace
from modvar_lib import runs, training
from modvar_lib.settings import Settings
runs.provenance = lambda _: {"data": {}}
run = runs.load(runs.Path(sys.argv[1]), "toy")
trained = training.Trained(run.settings, run.history, run.weights, {}, "cpu", 0, 1)
for turn in range(60):
    own = run.settings.model_copy(update={"study": f"toy{turn // 3}"})
    (path,) = runs.save([replace(trained, settings=own)])
    assert runs.load(path, own.study).settings == own
"""


def test_processes_that_save_the_same_network_all_find_it_whole(saved, results):
    """What the first has saved stays, and is what the others read."""
    words = [sys.executable, "-c", RACE, str(saved[2][1])]
    racers = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        said = racer.communicate()[1]
        assert racer.returncode == 0, said
    for number in range(20):
        folder = results / f"toy{number}" / "runs" / "MNIST-mlp-varying"
        assert os.listdir(folder) == ["seed-001"]
        assert sorted(os.listdir(folder / "seed-001")) == sorted(runs.FILES)
