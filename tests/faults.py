"""Kill the real programs at random instants, start them again, and compare with an undisturbed run: python tests/faults.py 100

A trial starts a study or a papermill run in an empty folder, kills it after a random time, in a random way, and starts the same
command again, until it finishes. It survives if the command succeeds, every table and run is the undisturbed one, byte for
byte, runs that were complete at a kill were not touched, and nothing is left over. A loop of writes is killed ten times as often.
"""

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import psutil
import yaml

from modvar_lib import data, files, runs, training
from modvar_lib.settings import Settings

TOY = {
    "study": "faults",
    "architecture": "summed",  # measured quickly
    "regime": ["fixed", "varying"],
    "seeds": "0-1",
    "group_size": 1,
    "epochs": 8,
    "period": 2,
    "final_epochs": 2,
    "pairs_per_epoch": 6000,
    "device": "cpu",
}
SETTINGS = ["dataset", "architecture", "regime", "variant", "seed", "epochs", "pairs_per_epoch"]
ONE = {**TOY, "regime": "varying", "seeds": "0-3", "epochs": 80}  # of the papermill runs
ONE = {name: value for name, value in ONE.items() if name != "group_size"}
MOST = 12  # kills, before a program is left to finish
LIMIT = 900  # seconds, of a command that must succeed
SHARE = {"papermill": 1 / 2, "study": 1 / 5}  # of what it takes undisturbed: until a kill, at most


def study(folder: Path) -> list[str]:
    """The command of a whole study."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(TOY))
    return ["snakemake", "--configfile", str(config)]


def papermill(folder: Path) -> list[str]:
    """The command of one training."""
    options = [word for name, value in ONE.items() for word in ("-p", name, str(value))]
    return ["papermill", "notebooks/02_train.ipynb", str(folder / "out.ipynb"), *options]


def start(command: list[str], folder: Path) -> subprocess.Popen:
    """A command of which everything it writes is under `folder`."""
    own = {"MODVAR_RESULTS": str(folder / "results"), "MODVAR_CHECKPOINT_SECONDS": "0.2"}
    log = open(folder / "log.txt", "a")
    return subprocess.Popen(
        command,
        cwd=data.ROOT,
        env={**os.environ, **own, "MODVAR_TTY": ""},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def kill(process: subprocess.Popen, how: str) -> None:
    """SIGKILL or SIGTERM to the program, to all of its group, or to any one process below it."""
    number = signal.SIGTERM if "TERM" in how else signal.SIGKILL
    try:
        if "group" in how:
            os.killpg(process.pid, number)
        elif "below" in how:
            below = psutil.Process(process.pid).children(recursive=True)
            (random.choice(below) if below else process).send_signal(number)
        else:
            process.send_signal(number)
    except (ProcessLookupError, psutil.NoSuchProcess):
        pass


WAYS = [f"{name} {whom}" for name in ("KILL", "TERM") for whom in ("program", "group", "below")]


def state(folder: Path) -> dict[str, bytes]:
    """All that a study says: its tables (of runs.csv the settings), and of each run what was learnt."""
    root = folder / "results" / "faults"
    found = {path.name: path.read_bytes() for path in root.glob("*.csv")}
    found |= {path.name: path.read_bytes() for path in root.glob("*.md")}
    if "runs.csv" in found:
        found["runs.csv"] = pd.read_csv(root / "runs.csv")[SETTINGS].to_csv().encode()
    for path in root.glob("runs/*/*/*"):
        if path.name not in ("provenance.json", ".snakemake_timestamp"):
            found[str(path.relative_to(root))] = path.read_bytes()
    return found


def left_over(folder: Path) -> list[str]:
    """Half-written files and checkpoints."""
    root = folder / "results" / "faults"
    usual = f".{files.SUMS}.lock", ".snakemake_timestamp"
    hidden = [path for path in root.rglob(".*") if path.name not in usual]
    return [str(p.relative_to(root)) for p in [*hidden, *root.glob("checkpoints/*/*")]]


def stamps(folder: Path) -> dict[Path, int]:
    """When each complete run was written."""
    found = (folder / "results" / "faults").glob("runs/*/seed-*")
    return {
        path: (path / "history.csv").stat().st_mtime_ns
        for path in found
        if all((path / name).is_file() for name in runs.FILES)
    }


def undisturbed(make) -> tuple[dict[str, bytes], float]:
    """(what the command leaves, its seconds)."""
    with tempfile.TemporaryDirectory() as name:
        began, folder = time.monotonic(), Path(name)
        status = start(make(folder), folder).wait(LIMIT)
        assert status == 0, (folder / "log.txt").read_text()
        return state(folder), time.monotonic() - began


def trial(make, wanted: dict[str, bytes], seconds: float) -> tuple[list[str], str]:
    """(how it was killed, again and again until it finished, what is wrong: empty if it survived)."""
    ways, complete = [], {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        command, status = make(folder), None
        while status is None:
            process = start(command, folder)
            try:
                patience = (
                    LIMIT
                    if len(ways) == MOST
                    else random.uniform(0, seconds * SHARE[make.__name__])
                )
                status = process.wait(patience)
            except subprocess.TimeoutExpired:
                ways.append(random.choice(WAYS))
                kill(process, ways[-1])
                process.wait(LIMIT)  # what it had started may live on, beside what comes now
                complete = stamps(folder) | complete
        status = start(command, folder).wait(LIMIT)  # if one below was killed, it may have failed
        again, found = stamps(folder), state(folder)
        wrong = [
            f"exit status {status}" * (status != 0),
            *(f"{path} trained again" for path in complete if again.get(path) != complete[path]),
            *(f"{name} differs" for name in wanted if found.get(name) != wanted[name]),
            *(f"{name} is too much" for name in found.keys() - wanted.keys()),
            *left_over(folder),
        ]
        wrong = "; ".join(filter(None, wrong))
        return ways, wrong and f"{wrong}\n{(folder / 'log.txt').read_text()[-5000:]}"


def write_for_ever(folder: str, trained: training.Trained, table: pd.DataFrame) -> None:
    os.environ["MODVAR_RESULTS"] = folder
    for turn in range(10**9):
        runs.write(table.assign(turn=turn), "faults", "measures.csv")
        runs.save("faults", trained)


def writes(count: int) -> list[str]:
    """Kill a process that writes a run and a table over and over; what was wrong afterwards, for each time."""
    settings = Settings(study="faults", epochs=1, final_epochs=0, pairs_per_epoch=256, device="cpu")
    trained = training.train(settings, data.digits())[0]
    table = pd.DataFrame([{key: settings.of_run(0)[key] for key in runs.KEYS}] * 5000)
    table = table.assign(epoch=range(5000))
    found, fork = [], multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODVAR_RESULTS"] = folder
        for _ in range(count):
            writer = fork.Process(target=write_for_ever, args=(folder, trained, table))
            writer.start()
            time.sleep(random.uniform(0.01, 0.3))
            writer.kill()
            writer.join()
            wrong = ""
            try:
                if (runs.study_folder("faults") / "measures.csv").exists():
                    read = runs.table("faults", "measures.csv")
                    wrong += "rows lost" * (len(read) != 5000 or read["turn"].nunique() != 1)
                path = runs.run_folder("faults", trained.settings)
                if path.exists():
                    runs.load(path)
            except Exception as error:
                wrong += str(error)
            found.append(wrong)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("times", type=int, help="kills of each program, at least")
    parser.add_argument("--only", choices=["study", "papermill", "writes"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    random.seed(asked.seed)
    print(
        "| program | kills | how | started, to be finished | survived | lost |\n|---|---|---|---|---|---|"
    )
    lost = []
    if asked.only in (None, "writes"):
        wrong = [one for one in writes(10 * asked.times) if one]
        count = 10 * asked.times
        print(
            f"| writes | {count} | KILL program | {count} | {count - len(wrong)} | {len(wrong)} |",
            flush=True,
        )
        lost += wrong
    for make in (papermill, study):
        if asked.only not in (None, make.__name__):
            continue
        wanted, seconds = undisturbed(make)
        killed, survived, trials = Counter(), 0, 0
        while killed.total() < asked.times:
            ways, wrong = trial(make, wanted, seconds)
            killed.update(ways)
            survived, trials = survived + (not wrong), trials + 1
            lost += [f"{make.__name__}, {', '.join(ways)}: {wrong}"] if wrong else []
            print(
                f"# {make.__name__} {killed.total()} kills, {trials - survived} lost",
                file=sys.stderr,
            )
        how = ", ".join(f"{way} {count}" for way, count in sorted(killed.items()))
        row = make.__name__, killed.total(), how, trials, survived, trials - survived
        print("|", " | ".join(map(str, row)), "|", flush=True)
    for one in lost:
        print(f"\nlost: {one}")
    raise SystemExit(bool(lost))


if __name__ == "__main__":
    main()
