"""Does what is published still follow from what is committed? python -m modvar_lib.verify [STUDY ...] (or make verify)

data        the digits have the checksums that the repository and torchvision know
files       tables, executed notebooks and figures are those that `modvar_lib.publish` wrote: SHA256SUMS beside them
notebooks   04 to 08 run in an empty folder that has the measured tables alone
tables      what they derive is what is published, byte for byte (on another processor: but for rounding)
figures     what they draw is what is published, pixel for pixel (svg: byte for byte)
texts       what they print and show is what the published notebooks do
training    seed 0 of every architecture, trained again for three epochs, alone: its history is the published one, within BAND

Exit status 1, and on the line of that check what differs, when one of these does not hold. What is promised where, and why the
band is what it is: docs/reproducibility.md.
"""

import argparse
import contextlib
import csv
import io
import math
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat, zip_longest
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from modvar_lib import data, files, runs
from modvar_lib.errors import InputError
from modvar_lib.settings import Settings

MEASURED = (
    "measures.csv",
    "copies.csv",
    "costly.csv",
    "history.csv",
    "runs.csv",
    "units.csv",
)  # need networks
ANALYSES = "0[4-8]_*.ipynb"
ROUNDING = (
    1e-12  # relative, of a derived number: on other processors sums are taken in another order
)
LOSSES = ["train_mse", "test_mse", "sum_mse"]
BAND = (1e-4, 1e-2, 1e-1)  # of a loss, relative, in the first, second and third epoch


class Differs(Exception):
    """What is published is not what follows; the message names the first place."""


def studies() -> list[str]:
    """Every study that is published."""
    return sorted(path.parent.name for path in data.ROOT.glob("results/published/*/headline.md"))


def tables_of(study: str) -> Path:
    return data.ROOT / "results" / "published" / study


def figures_of(study: str) -> Path:
    return data.ROOT / "figures" / study


def digits(study: str) -> str:
    """Every data set of the study against its SHA256SUMS, where it has one, and torchvision's MD5."""
    names = pd.read_csv(tables_of(study) / "runs.csv")["dataset"].unique()
    count = 0
    for name in names:
        raw, made = data.data_folder() / name / "raw", data.checksums(name)
        same_files(raw, files.checksums(raw) or made, made)
        count += len(made)
    return f"{count} files of {', '.join(names)}"


def published(study: str) -> str:
    """What is published against the checksums written with it; none missing, none besides."""
    count = 0
    for folder in (tables_of(study), figures_of(study)):
        said = files.checksums(folder)
        if not said:
            raise Differs(f"{folder / files.SUMS} is missing")
        same_files(folder, said, files.digests(folder))
        count += len(said)
    return f"{count} files by their SHA-256"


def same_files(folder: Path, said: dict[str, str], made: dict[str, str]) -> None:
    """Differs, naming the first file that is not as its checksum says."""
    for name in sorted(said.keys() | made.keys()):
        if said.get(name) != made.get(name):
            why = "missing" if name not in made else "changed" if name in said else "not in it"
            raise Differs(f"{folder / name} is {why}, by {files.SUMS} beside it")


def derive(study: str, results: Path, pool: ProcessPoolExecutor) -> str:
    """Execute the analyses of a study over copies of its measured tables in results/<study>/."""
    committed, folder = tables_of(study), results / study
    (folder / "notebooks").mkdir(parents=True)
    measured = [name for name in MEASURED if (committed / name).exists()]
    for name in measured:
        shutil.copyfile(committed / name, folder / name)
    executed = list(committed.glob(f"notebooks/{ANALYSES}"))
    executed.sort(key=lambda path: path.stat().st_size, reverse=True)  # what takes longest first
    sources = [data.ROOT / "notebooks" / path.name for path in executed]
    list(pool.map(execute, sources, repeat(study), repeat(results)))
    return f"{len(sources)} over {len(measured)} measured tables"


def execute(source: Path, study: str, results: Path) -> None:
    """One notebook by papermill, its kernel on one thread; for a process of `workers`, whose environment it changes."""
    import papermill

    os.environ |= {"MODVAR_RESULTS": str(results), "OMP_NUM_THREADS": "1"}
    executed = results / study / "notebooks" / source.name
    try:
        papermill.execute_notebook(source, executed, {"study": study}, progress_bar=False)
    except papermill.PapermillExecutionError as error:
        raise Differs(f"{source.name} ends in {error.ename}: {error.evalue}") from None


def tables(study: str, results: Path) -> str:
    """Derived tables and headline against the published ones: byte for byte, or but for rounding, which is said."""
    ours, theirs = tables_of(study), results / study
    names = [n for n in same_names(ours, theirs, "*.csv", "*.md") if n not in MEASURED]
    numbers, rounded = 0, []
    for name in names:
        if (ours / name).read_bytes() != (theirs / name).read_bytes():
            compare(ours / name, theirs / name)
            rounded.append(name)
        if name.endswith(".csv"):
            numbers += int(pd.read_csv(ours / name).select_dtypes("number").count().sum())
    how = f"but for rounding in {', '.join(rounded)}" if rounded else "byte for byte"
    return f"{len(names)} files, {numbers:,} numbers, {how}"


def compare(ours: Path, theirs: Path) -> None:
    """Differs, naming the first cell of a table that is another text and no number within ROUNDING."""
    published, derived = (list(csv.reader(path.open(newline=""))) for path in (ours, theirs))
    for row, pair in enumerate(zip_longest(published, derived, fillvalue=[])):
        for column, (was, now) in enumerate(zip_longest(*pair, fillvalue="nothing")):
            if was != now and not close(was, now):
                name = published[0][column] if column < len(published[0]) else column
                raise Differs(f"{ours}: row {row}, {name}: {was} published, {now} derived")


def close(was: str, now: str) -> bool:
    """Whether both texts are the same number but for rounding."""
    try:
        return math.isclose(float(was), float(now), rel_tol=ROUNDING, abs_tol=1e-15)
    except ValueError:
        return False


def figures(study: str, results: Path) -> str:
    """Drawn figures against the published ones."""
    from matplotlib.image import imread

    ours, theirs = figures_of(study), results / study / "figures"
    names = same_names(ours, theirs, "*.png", "*.svg", "*.gif")
    for name in names:
        if (ours / name).read_bytes() == (theirs / name).read_bytes():
            continue
        if name.endswith(".svg"):
            raise Differs(f"{ours / name}: not the bytes that are drawn")
        was, now = imread(ours / name), imread(theirs / name)
        if was.shape != now.shape:
            raise Differs(f"{ours / name}: {was.shape[:2]} pixels published, {now.shape[:2]} drawn")
        apart = abs(was - now).max(-1)
        if apart.any():
            raise Differs(
                f"{ours / name}: {np.count_nonzero(apart):,} of {apart.size:,} pixels differ from those drawn,"
                f" by at most {apart.max() * 255:.0f} of 255"
            )
    return f"{len({Path(name).stem for name in names})} figures, png and svg"


def texts(study: str, results: Path) -> str:
    """What the executed notebooks print and show, but for versions and pictures."""
    ours, theirs = (folder / "notebooks" for folder in (tables_of(study), results / study))
    count = 0
    for path in sorted(theirs.glob(ANALYSES)):
        for cell, (was, now) in enumerate(zip_longest(shown(ours / path.name), shown(path))):
            if was != now:
                raise Differs(f"{ours / path.name}: code cell {cell + 1} shows something else now")
            count += len(was)
    return f"{count} outputs"


def shown(executed: Path) -> list[list[str]]:
    """The texts under each code cell of a notebook: all that is printed, in one piece (a kernel may send it in several), and what
    is displayed."""
    cells = [c for c in nbformat.read(executed, as_version=4).cells if c.cell_type == "code"]
    found = []
    for cell in cells:
        if "notebook.versions()" in cell.source or cell.metadata.tags == ["injected-parameters"]:
            continue
        printed = "".join(o.text for o in cell.outputs if o.output_type == "stream")
        displayed = [o.data for o in cell.outputs if o.output_type != "stream"]
        texts = [str(data.get("text/markdown") or data["text/plain"]) for data in displayed]
        found.append([printed] * bool(printed) + texts)
    return found


def same_names(ours: Path, theirs: Path, *patterns: str) -> list[str]:
    """The files in both folders; Differs when there is one in one alone."""
    was, now = ({p.name for pattern in patterns for p in f.glob(pattern)} for f in (ours, theirs))
    for name in sorted(was ^ now):
        what = "published, but nothing makes it" if name in was else "made, but not published"
        raise Differs(f"{ours / name} is {what}")
    return sorted(was)


def training(study: str, epochs: int, pool: ProcessPoolExecutor, architectures=()) -> str:
    """The first epochs of one seed of every architecture, under `varying` if published, against the published history."""
    about, history = (pd.read_csv(tables_of(study) / f"{name}.csv") for name in ("runs", "history"))
    usual = (about["variant"] == "default") & about["regime"].isin(["fixed", "varying"])
    if architectures:
        usual &= about["architecture"].isin(architectures)
    chosen = about[usual & (about["seed"] == about["seed"].min())].sort_values("regime")
    rows = chosen.drop_duplicates("architecture", keep="last").to_dict("records")
    todo = [pool.submit(again, row, epochs, [row["seed"]]) for row in rows]
    furthest = np.zeros(epochs)
    for row, done in zip(rows, todo):
        (trained,) = done.result()
        was, now = published_history(history, trained), trained.history
        apart = difference(was, now)
        beyond = apart.gt(list(BAND[: len(now)]), axis=0).stack()
        if beyond.any():
            epoch, column = beyond.idxmax()
            names = " ".join(str(row[key]) for key in runs.KEYS)
            raise Differs(
                f"{tables_of(study) / 'history.csv'}: {names}, epoch {epoch}, {column}:"
                f" {was.loc[epoch, column]:g} published, {now.loc[epoch, column]:g} trained"
            )
        furthest = np.maximum(furthest, apart.max(axis=1))
    within, band = (", ".join(f"{x:.0e}" for x in values) for values in (furthest, BAND[:epochs]))
    return f"{len(rows)} networks, {epochs} epochs; losses within {within} (band {band})"


def again(row: dict, epochs: int, seeds: list[int]) -> list:
    """The first epochs of a published arm, a row of runs.csv, trained for some seeds together. Goals depend on the length of a
    schedule through its final phase only, so a shorter one without it begins the same."""
    from modvar_lib import training as library

    names = set(Settings.model_fields) - {
        "study",
        "device",
        "frames",
        "seeds",
        "epochs",
        "final_epochs",
    }
    epochs = min(epochs, row["epochs"] - row["final_epochs"])
    settings = Settings(
        **{name: row[name] for name in names},
        seeds=seeds,
        epochs=epochs,
        final_epochs=0,
        device="cpu",
    )
    with contextlib.redirect_stdout(io.StringIO()):
        return library.train(settings, data.digits(settings.dataset))


def published_history(history: pd.DataFrame, trained) -> pd.DataFrame:
    """The rows that the epochs of a network trained again should repeat."""
    own = (history[runs.KEYS] == [trained.settings[key] for key in runs.KEYS]).all(axis=1)
    return history[own].head(len(trained.history)).reset_index(drop=True)


def difference(was: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """By epoch: the relative difference of each loss, and 1 where a goal is another."""
    losses, goals = (now[LOSSES] / was[LOSSES] - 1).abs(), ["a", "b"]
    same = (now[goals] == was[goals]) | (now[goals].isna() & was[goals].isna())
    return losses.fillna(np.inf).join((~same).astype(float))


def holds(name: str, check: Callable[[], str]) -> bool:
    """Make one check and print its line."""
    started = time.perf_counter()
    try:
        found, good = check(), True
    except (Differs, InputError, OSError) as error:
        found, good = str(error).splitlines()[0], False
    seconds = time.perf_counter() - started
    print(f"{'same' if good else 'DIFFERS':<8}{name:<10} {found} ({seconds:.1f} s)", flush=True)
    return good


def checks(study: str, epochs: int, results: Path, pool) -> Iterator[tuple[str, Callable[[], str]]]:
    """(name, check) in order; `results` is an empty folder to derive into."""
    yield "data", lambda: digits(study)
    yield "files", lambda: published(study)
    yield "notebooks", lambda: derive(study, results, pool)
    for check in (tables, figures, texts):
        yield check.__name__, lambda check=check: check(study, results)
    yield "training", lambda: training(study, epochs, pool)


def workers() -> ProcessPoolExecutor:
    """A process a core, started afresh: a forked one would inherit torch's threads."""
    return ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("studies", nargs="*", help="all that are published, if none is named")
    arguments.add_argument(
        "--epochs", type=int, default=len(BAND), choices=range(1, len(BAND) + 1), help="to train"
    )
    chosen, started, good = arguments.parse_args(), time.perf_counter(), True
    for study in chosen.studies or studies():
        print(f"{study}: what is published against what follows from the committed tables")
        with tempfile.TemporaryDirectory() as folder, workers() as pool:
            for name, check in checks(study, chosen.epochs, Path(folder), pool):
                good &= holds(name, check)
    print(
        f"{'everything holds' if good else 'not everything holds'}, {time.perf_counter() - started:.0f} s"
    )
    sys.exit(not good)


if __name__ == "__main__":
    main()
