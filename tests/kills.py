"""Kill the real programs at random, start them again, and compare with an undisturbed run.

`python tests/kills.py 100`: a trial starts a study or a papermill run in an empty folder, kills it
after a random time, in a random way, and starts the same command again, until it finishes. It
survives if the command succeeds, every table and network is the undisturbed one, byte for byte,
networks that were complete at a kill were not touched, and nothing is left over. Ten times as
often, a loop of writes.
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

from modvar_lib import data, runs, training
from modvar_lib.analysis import study as studies
from modvar_lib.settings import Settings

SIZES = {"epochs": 8, "period": 2, "final_epochs": 2, "pairs_per_epoch": 6000, "device": "cpu"}
TOY = {"study": "kills", "architecture": "summed", "regime": ["fixed", "varying"], **SIZES}
TOY |= {"seeds": "0-1", "group_size": 1}
ONE = {**TOY, "regime": "varying", "seeds": "0-3", "epochs": 40}  # of the papermill runs
SETTINGS = ["dataset", "architecture", "regime", "variant", "seed", "epochs", "pairs_per_epoch"]
MOST = 12  # kills, before a program is left to finish
LIMIT = 900  # seconds, of a command that must succeed
DEAF = {}  # how the program itself was killed: the most seconds that it took to end
WAYS = [f"{name} {whom}" for name in ("KILL", "TERM") for whom in ("program", "group", "below")]


def study(folder: Path) -> list[str]:
    """The command of a whole study."""
    (folder / "config.yaml").write_text(yaml.safe_dump(TOY))
    return ["env", f"MODVAR_CONFIG={folder / 'config.yaml'}", "snakemake"]


def papermill(folder: Path) -> list[str]:
    """The command of one training."""
    options = [(name, value) for name, value in ONE.items() if name != "group_size"]
    words = [word for name, value in options for word in ("-p", name, str(value))]
    return ["papermill", "notebooks/02_train.ipynb", str(folder / "out.ipynb"), *words]


SHARE = {papermill: 1 / 2, study: 1 / 5}  # of what it takes undisturbed: until a kill, at most


def start(command: list[str], folder: Path) -> subprocess.Popen:
    """A command of which everything it writes is under `folder`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "MODVAR_RESULTS": str(folder / "results"), "PATH": path}
    log = open(folder / "log.txt", "a")
    options = {"stdout": log, "stderr": log, "start_new_session": True}
    return subprocess.Popen(command, cwd=data.ROOT, env=env, **options)


def kill(process: subprocess.Popen, how: str) -> None:
    """SIGKILL or SIGTERM to the program, to all of its group, or to any one process below it."""
    number = signal.SIGTERM if "TERM" in how else signal.SIGKILL
    try:
        if "group" in how:
            os.killpg(process.pid, number)
        else:
            below = psutil.Process(process.pid).children(recursive=True) if "below" in how else []
            random.choice(below or [process]).send_signal(number)
    except (ProcessLookupError, psutil.NoSuchProcess):
        pass


def state(folder: Path) -> dict[str, bytes]:
    """All that a study says: its tables (of runs.csv the settings), and of each network what was
    learnt; and what is hidden."""
    root = folder / "results" / "kills"
    kinds = ("*.csv", "*.md", "groups/*/*/*", "runs/*/*/*")
    paths = [path for kind in kinds for path in root.glob(kind) if path.name != "provenance.json"]
    paths += [path for path in root.rglob(".*") if path.name != ".snakemake_timestamp"]  # left over
    content = {path: path.read_bytes() if path.is_file() else b"" for path in paths}
    for path in root.glob("groups/*/*/runs.csv"):
        content[path] = pd.read_csv(path)[SETTINGS].to_csv().encode()
    return {str(path.relative_to(root)): what for path, what in content.items()}


def stamps(folder: Path) -> dict[Path, int]:
    """When each complete network was written."""
    paths = [path.parent for path in folder.glob("results/kills/runs/*/seed-*/provenance.json")]
    paths = [path for path in paths if all((path / name).is_file() for name in runs.FILES)]
    return {path: (path / "history.csv").stat().st_mtime_ns for path in paths}


def undisturbed(program) -> tuple[dict[str, bytes], float]:
    """(what the command leaves, its seconds)."""
    with tempfile.TemporaryDirectory() as name:
        began, folder = time.monotonic(), Path(name)
        status = start(program(folder), folder).wait(LIMIT)
        assert status == 0, (folder / "log.txt").read_text()
        return state(folder), time.monotonic() - began


def trial(program, before: dict[str, bytes], seconds: float) -> tuple[list[str], str]:
    """(how it was killed, again and again until it finished, what is wrong: empty if it
    survived)."""
    ways, complete, status = [], {}, None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        command = program(folder)
        while status is None:
            process = start(command, folder)
            limit = LIMIT if len(ways) == MOST else random.uniform(0, seconds * SHARE[program])
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                ways.append(random.choice(WAYS))
                kill(process, ways[-1])
                killed = time.monotonic()
                process.wait(LIMIT)  # what it had started may live on, beside what comes now
                if "below" not in ways[-1]:
                    DEAF[ways[-1]] = max(DEAF.get(ways[-1], 0), time.monotonic() - killed)
                complete = stamps(folder) | complete
        status = start(command, folder).wait(LIMIT)  # if one below was killed, it may have failed
        again, after = stamps(folder), state(folder)
        wrong = [f"exit status {status}"] if status else []
        wrong += [f"{path} trained again" for path in complete if again.get(path) != complete[path]]
        names = before.keys() | after.keys()
        wrong += [f"{name} differs" for name in names if before.get(name) != after.get(name)]
        log = (folder / "log.txt").read_text()[-5000:]
        return ways, f"{'; '.join(wrong)}\n{log}" if wrong else ""


def write_for_ever(folder: str, trained: training.Trained, table: pd.DataFrame) -> None:
    os.environ["MODVAR_RESULTS"] = folder
    path = runs.group_folder(trained.settings) / "history.csv"
    for turn in range(10**9):
        runs.write_table(table.assign(test_r2=turn), path)
        runs.save([trained])


def writes(count: int) -> list[str]:
    """Kill a process that writes a network and a table over and over; what was wrong afterwards,
    for each time."""
    settings = Settings(study="kills", epochs=1, pairs_per_epoch=256, device="cpu")
    (trained,), lines = training.train(settings, data.digits()), []
    fork = multiprocessing.get_context("fork")
    table = pd.DataFrame([{name: settings.saved()[name] for name in runs.KEYS}] * 5000)
    table = table.assign(epoch=range(5000), sum_r2=0)
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODVAR_RESULTS"] = folder
        about = pd.DataFrame([settings.saved() | {"epochs": 5000}])
        runs.write_table(about, runs.group_folder(settings) / "runs.csv")
        for _ in range(count):
            writer = fork.Process(target=write_for_ever, args=(folder, trained, table))
            writer.start()
            time.sleep(random.uniform(0.01, 0.3))
            writer.kill()
            writer.join()
            try:
                there = (runs.group_folder(settings) / "history.csv").exists()
                read = studies.table("kills", "history") if there else table.assign(test_r2=0)
                lines.append("rows lost" * (len(read) != 5000 or read["test_r2"].nunique() != 1))
                if runs.run_folder(settings).exists():
                    runs.load(runs.run_folder(settings), "kills")
            except Exception as error:
                lines.append(str(error))
    os.environ.clear(), os.environ.update(before)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("times", type=int, help="kills of each program, at least")
    parser.add_argument("--only", choices=["study", "papermill", "writes"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    random.seed(asked.seed)
    print("| program | kills | how | started, to be finished | lost |\n|---|---|---|---|---|")
    lost = []
    if asked.only in (None, "writes"):
        lost += [line for line in writes(10 * asked.times) if line]
        print(f"| writes | {10 * asked.times} | KILL program | | {len(lost)} |", flush=True)
    for program in (papermill, study):
        if asked.only in (None, program.__name__):
            (before, seconds), killed, trials, wrong = undisturbed(program), Counter(), 0, []
            while killed.total() < asked.times:
                ways, line = trial(program, before, seconds)
                killed.update(ways)
                trials += 1
                wrong += [f"{program.__name__}, {', '.join(ways)}: {line}"] * bool(line)
            how = ", ".join(f"{way} {count}" for way, count in sorted(killed.items()))
            row = (program.__name__, killed.total(), how, trials, len(wrong))
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            lost += wrong
    for way, seconds in sorted(DEAF.items()):
        print(f"{way}: ended within {seconds:.1f} s")
    print(*lost, sep="\n\nlost: ")
    raise SystemExit(bool(lost))


if __name__ == "__main__":
    main()
