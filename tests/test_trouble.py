"""Full disks, folders that are closed, damaged files, short memory, clocks that jump, two users at once, late kernels."""

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import faults
import pandas as pd
import papermill
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError
from test_study import CONFIG, snakemake

from modvar_lib import data, files, metrics, publish, runs
from modvar_lib.errors import InputError, one_line

TRAIN = [
    sys.executable,
    "-m",
    "papermill",
    "--no-progress-bar",
    "notebooks/02_train.ipynb",
    os.devnull,
]
TOY = "-p epochs 2 -p final_epochs 1 -p period 1 -p pairs_per_epoch 512 -p device cpu -p seeds 0-3".split()


def train(results: Path, *before: str) -> tuple[int, list[str]]:
    """The papermill line as a user types it; (exit status, the lines that name an error)."""
    env = {**os.environ, "MODVAR_RESULTS": str(results), "MODVAR_CHECKPOINT_SECONDS": "0"}
    command = [*before, *TRAIN, *TOY]
    done = subprocess.run(command, cwd=data.ROOT, env=env, capture_output=True, text=True)
    said = (done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in said if line.startswith("InputError")]


@pytest.fixture
def mounted(tmp_path):
    """mounted(options): a small file system of its own."""
    folders = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(folders)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder])
        if done.returncode:
            pytest.skip("only root may mount")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("size=1m", "No space left on device"),  # one network has 0.8 MB, a checkpoint of two 5 MB
        ("ro,size=1m", "Read-only file system"),
    ],
)
def test_a_disk_that_is_full_or_read_only_is_one_line(mounted, options, reason):
    disk = mounted(options)
    status, lines = train(disk)
    assert status != 0 and len(lines) == 1
    assert reason in lines[0] and "allowed: folders of this user's, with free space" in lines[0]
    if "ro" not in options:
        left = [path.name for path in disk.rglob("*") if path.is_file()]
        assert set(left) <= {"MNIST-mlp-fixed.lock"}
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        assert train(disk)[0] == 0  # room was made; the same command again
        assert len(list(disk.glob("original/runs/*/seed-*/weights.safetensors"))) == 4


def test_a_folder_of_somebody_else_is_one_line(tmp_path):
    (tmp_path / "results").mkdir(mode=0o555)
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # root as anybody else
    status, lines = train(tmp_path / "results", *(without if os.getuid() == 0 else []))
    assert status != 0 and len(lines) == 1 and "Permission denied" in lines[0]
    assert not list((tmp_path / "results").iterdir())


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "results").write_text("")
    status, lines = train(tmp_path / "results")
    assert status != 0 and len(lines) == 1 and "MODVAR_RESULTS says where results go" in lines[0]


SHORT = """
import resource
import psutil
from modvar_lib import data, runs, training
from modvar_lib.settings import Settings

toy = dict(epochs=1, final_epochs=0, pairs_per_epoch=4096, batch_size=4096, device="cpu")
settings = Settings(study="short", architecture="cnn", seeds="0-7", **toy)
one = settings.model_copy(update={"seeds": (0,)})
training.train(one, data.digits())  # threads and their stacks are there
room = 250_000_000 + int(3 * training.memory_a_replica(settings) / training.SHARE)  # data; three networks
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + room,) * 2)
lot = training.train_lot
training.train_lot = lambda s, seeds, *others: print("lot of", len(seeds)) or lot(s, seeds, *others)
print(len(runs.complete(settings)), "runs")
"""


def test_groups_shrink_where_a_limit_is_set_on_memory(results):
    """Room for three networks, and what else is needed, where eight are wanted: smaller lots, and all are trained."""
    done = subprocess.run([sys.executable, "-c", SHORT], capture_output=True, text=True)
    sizes = [
        int(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("lot of")
    ]
    assert "8 runs" in done.stdout, done.stdout + done.stderr
    assert len(sizes) > 2 and max(sizes) < 4


RAW = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    path.unlink()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "unpacked":
        path.write_bytes(gzip.decompress(content))
    elif how == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    "how", ["missing", "cut", "flipped", "empty", "unpacked", "folder", "swapped"]
)
@pytest.mark.parametrize("name", RAW)
def test_a_damaged_data_file_is_one_line_that_names_it(tmp_path, monkeypatch, name, how):
    shutil.copytree(data.data_folder() / "MNIST", tmp_path / "MNIST")
    monkeypatch.setenv("MODVAR_DATA", str(tmp_path))
    path = tmp_path / "MNIST" / "raw" / name
    if how == "swapped":
        other = path.with_name("t10k-labels-idx1-ubyte.gz")
        path.rename(tmp_path / "aside"), other.rename(path), (tmp_path / "aside").rename(other)
    else:
        spoil(path, how)
    with pytest.raises(InputError, match=rf"^dataset: .*{name} is (missing|damaged)"):
        data.digits()


@pytest.fixture
def finished(results, toy):
    """A measured study of two networks."""
    found = runs.complete(toy(architecture="summed", seeds="0-1", regime="varying"))
    runs.write(metrics.measure_study("toy"), "toy", "measures.csv")
    return [run.path for run in found]


@pytest.mark.parametrize("name", runs.FILES[:3])
def test_one_flipped_bit_in_a_run_is_one_line_that_names_the_file(finished, name):
    path = finished[0] / name
    content = bytearray(path.read_bytes())
    for place in (0, len(content) // 3, len(content) - 10):
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"^run: .*{name} is damaged"):
            runs.load(finished[0])
        content[place] ^= 1


def test_weights_of_another_seed_are_damage(finished):
    shutil.copy(finished[1] / "weights.safetensors", finished[0])
    with pytest.raises(InputError, match=r"weights.safetensors is damaged \(its SHA-256"):
        runs.load(finished[0])


@pytest.mark.parametrize("how", ["cut", "flipped", "empty"])
def test_a_damaged_table_is_one_line(finished, results, how):
    path = results / "toy" / "measures.csv"
    spoil(path, how)
    with pytest.raises(InputError, match=r"^study: .*measures.csv is damaged"):
        runs.table("toy", "measures.csv")
    (path.with_name(files.SUMS)).unlink()  # a table from elsewhere, without a checksum
    if how == "cut":
        with pytest.raises(InputError, match="last line is cut short"):
            runs.table("toy", "measures.csv")


def test_a_damaged_measurement_that_was_kept_is_made_again(finished, results):
    first = metrics.measure_study("toy")
    kept = sorted((results / "toy" / "measures").rglob("*.csv"))
    spoil(kept[0], "flipped"), spoil(kept[1], "cut")
    pd.testing.assert_frame_equal(metrics.measure_study("toy"), first)
    assert sorted((results / "toy" / "measures").rglob("*.csv")) == kept


def test_a_clock_that_jumps_changes_nothing(finished, results):
    """Times of files in the future or long past: nothing is trained or measured again, or taken for up to date."""
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    for i, path in enumerate(before):
        os.utime(path, (4e9, 4e9) if i % 2 else (1e8, 1e8))
    metrics.measure_study("toy")
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


LATE = """#!/bin/sh
# papermill, whose first kernel loses the race for its ports
if [ -e "$STARTED" ]; then exec "$PAPERMILL" "$@"; fi
touch "$STARTED"
echo "RuntimeError: Kernel died before replying to kernel_info" >&2
exit 1
"""


def test_a_kernel_that_does_not_start_is_tried_again(tmp_path, results, monkeypatch):
    fake = tmp_path / "bin" / "papermill"
    fake.parent.mkdir()
    fake.write_text(LATE)
    fake.chmod(0o755)
    monkeypatch.setenv("PAPERMILL", shutil.which("papermill"))
    monkeypatch.setenv("STARTED", str(tmp_path / "started"))
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    status, said = snakemake(tmp_path, architecture="summed", regime="fixed", seeds="0-1")
    assert status == 0, said
    assert "Kernel died before replying" in said and len(runs.paths("tiny")) == 2


def test_two_drivers_of_one_study_at_once(tmp_path, results):
    """The second waits for the first, then finds everything done."""
    config = tmp_path / "config.yaml"
    small = {**CONFIG, "architecture": "summed", "regime": "fixed", "seeds": "0-1"}
    config.write_text(yaml.safe_dump(small))
    make = ["make", "reproduce", f"CONFIG={config}"]
    both = [
        subprocess.Popen(make, cwd=data.ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = sorted((one.communicate()[0] for one in both), key=len)
    assert [one.returncode for one in both] == [0, 0], said
    assert sum("Another make works on this study; waiting for it" in text for text in said) == 1
    assert len(runs.paths("tiny")) == 2


def test_kills_at_random(monkeypatch):
    """A few of what `python tests/faults.py 100` does; benchmarks/faults.md has the record."""
    monkeypatch.setattr(faults, "MOST", 4)
    assert not any(faults.writes(20))
    wanted, seconds = faults.undisturbed(faults.papermill)
    ways, wrong = [], ""
    while len(ways) < 3 and not wrong:
        more, wrong = faults.trial(faults.papermill, wanted, seconds)
        ways += more
    assert not wrong


@pytest.fixture
def about():
    return pd.read_csv(data.ROOT / "results" / "published" / "paper" / "runs.csv")


def test_a_study_of_one_kind_is_not_mixed(about):
    same = about[about["git.commit"] == about["git.commit"].iloc[0]]
    assert runs.mixed(same) == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("code", "abc"),
        ("git.commit", "abc"),
        ("data", "abc"),
        ("versions.torch", "2.11.0"),
        ("cpu", "another"),
    ],
)
def test_runs_of_other_code_data_or_versions_are_named(about, column, value):
    about = about[about["architecture"] == "mlp"].drop(columns="code", errors="ignore").copy()
    about["data"] = "one"
    rows = about["regime"] == "tables"
    about.loc[rows, column] = value
    (line,) = runs.mixed(about)
    name = "code" if column == "git.commit" else column
    assert line.startswith(f"mixed {name}: ") and f"{value} (16 runs, of mlp tables)" in line


def test_code_of_ones_own_is_compared_within_an_arm(about):
    about = about[about["regime"].isin(["fixed", "tables"])].copy()
    own = (about["regime"] == "tables") & (about["architecture"] == "mlp")
    about["code"] = "abc"
    about.loc[own, "code"] = "abc+1"
    assert runs.mixed(about) == []
    about.loc[own & (about["seed"] > 3), "code"] = "abc+2"
    assert (
        runs.mixed(about)[0].startswith("mixed code: abc (")
        and "abc+2 (12 runs" in runs.mixed(about)[0]
    )


@pytest.mark.parametrize(
    ("column", "value"), [("epochs", 50), ("learning_rate", 0.1), ("batch_size", 8)]
)
def test_an_arm_of_different_settings_is_refused(about, column, value):
    about.loc[(about["regime"] == "tables") & (about["seed"] == 3), column] = value
    with pytest.raises(
        InputError, match=rf"^{column}: MNIST mlp tables default has .*{value}.*seeds 3\)"
    ):
        runs.mixed(about)


def test_mixed_runs_stop_the_measuring_notebook(finished, toy):
    other = runs.complete(toy(architecture="summed", seeds="5", regime="varying", epochs=4))
    source = data.ROOT / "notebooks" / "03_metric.ipynb"
    with pytest.raises(PapermillExecutionError, match=r"epochs: MNIST summed varying default has"):
        papermill.execute_notebook(source, None, {"study": "toy"}, progress_bar=False)
    shutil.rmtree(other[0].path)


def test_publishing_a_study_with_a_damaged_table_changes_nothing(
    finished, results, tmp_path, monkeypatch
):
    root = tmp_path / "project"
    monkeypatch.setattr(data, "ROOT", root)
    for name in publish.NEEDED:
        path = results / "toy" / name
        if "." not in name:
            path.mkdir(exist_ok=True)
        elif not path.exists():
            path.write_text("a\n1\n")
    spoil(results / "toy" / "measures.csv", "flipped")
    with pytest.raises(InputError, match=r"measures.csv is damaged"):
        publish.publish("toy")
    assert not root.exists()


def test_only_what_a_user_can_mend_is_one_line():
    assert one_line(KeyError("a")) is None and one_line(RuntimeError("shapes")) is None
    assert "ran out" in str(one_line(MemoryError()))
    assert str(one_line(InputError("x"))) == "x"
