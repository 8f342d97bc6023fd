"""What does a network cost besides its training? python benchmarks/scaling.py (about ten minutes on two cores; ratios in one run)

Graph      dry runs of the real Snakefile with generated configs: CPU seconds and peak memory against jobs and networks;
           a line through the smaller ones, held against the largest. Parsing alone is what a job on a cluster repeats.
Execution  the real Snakefile with papermill and jupyter replaced by scripts that only leave the files a job leaves: Snakemake's
           own share; and the two commands of a real job at toy size.
Tables     runs.tables over copies of a run, and reading measures.csv many times as long as the published one.
"""

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from modvar_lib import data, runs

TOY = {
    "study": "scaling",
    "regime": ["fixed", "varying"],
    "epochs": 2,
    "period": 1,
    "final_epochs": 1,
    "pairs_per_epoch": 64,
    "batch_size": 64,
    "device": "cpu",
}
STUBS = {  # leave what a job leaves, compute nothing
    "papermill": r"""
while [[ $1 == --* ]]; do shift; done
mkdir -p $(dirname $2); echo > $2; study=$(dirname $(dirname $2)); args=" $* "
if [[ $1 == *02_train* ]]; then
  [[ $args =~ \ regime\ ([a-z]+) ]]; regime=${BASH_REMATCH[1]}
  [[ $args =~ \ seeds\ ([0-9,]+) ]]; for seed in ${BASH_REMATCH[1]//,/ }; do
    mkdir -p $study/runs/MNIST-mlp-$regime/seed-$(printf %03d $seed); done
elif [[ $1 == *03_metric* ]]; then touch $study/{measures,copies,runs,history}.csv
else touch $study/headline.md; fi""",
    "python": r"""
[[ $2 == modvar_lib.report ]] || exec PYTHON "$@"
mkdir -p $MODVAR_RESULTS/$3/report; touch $MODVAR_RESULTS/$3/report/index.html""".replace(
        "PYTHON", sys.executable
    ),
}


def config(jobs: int, group: int, folder: Path) -> Path:
    """A config of so many training jobs of `group` networks each."""
    path = folder / f"{jobs}x{group}.yaml"
    seeds = f"0-{jobs * group // 2 - 1}"
    path.write_text(yaml.safe_dump({**TOY, "seeds": seeds, "group_size": group}))
    return path


def measured(words: list, results: Path, stubs: Path | None = None) -> dict:
    """Seconds on the clock, CPU seconds of the command and all that it starts, and its own peak memory in MB."""
    around = os.environ | {"MODVAR_RESULTS": str(results), "MODVAR_TTY": ""}
    tools = [stubs] if stubs else []
    around["PATH"] = os.pathsep.join(
        map(str, [*tools, Path(sys.executable).parent, around["PATH"]])
    )
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    running = subprocess.Popen(
        list(map(str, words)),
        cwd=data.ROOT,
        env=around,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    said = running.stderr.read()
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{said.decode()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "s": time.perf_counter() - started,
        "cpu s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak MB": used.ru_maxrss / 1024,
    }


def graph(sizes: list[tuple[int, int]], folder: Path) -> pd.DataFrame:
    """Dry runs, and the parsing that is a part of them, of (jobs, networks a job)."""
    table = []
    for jobs, group in sizes:
        words = ["snakemake", "--configfile", config(jobs, group, folder)]
        dry = measured([*words, "--dry-run", "--quiet", "all"], folder / "none")
        parsed = measured([*words, "--list-rules"], folder / "none")
        table.append(
            {"jobs": jobs, "networks": jobs * group, **dry, "parsing cpu s": parsed["cpu s"]}
        )
        print(table[-1], flush=True)
    return pd.DataFrame(table)


def line(table: pd.DataFrame, what: str) -> tuple[float, float]:
    """(at 0 jobs, per job) through all rows with one network a job but the last."""
    some = table[table["jobs"] == table["networks"]].iloc[:-1]
    slope, start = np.polyfit(some["jobs"], some[what], 1)
    return start, slope


def execution(sizes: list[int], folder: Path) -> pd.DataFrame:
    """Whole studies of so many jobs that do nothing; then the command of a real one, at toy size."""
    stubs = folder / "stubs"
    stubs.mkdir()
    for name, script in STUBS.items():
        (stubs / name).write_text("#!/bin/bash\nset -e" + script)
        (stubs / name).chmod(0o755)
    table = []
    for jobs in sizes:
        for scheduler in ("ilp", "greedy"):  # ilp is Snakemake's default
            words = ["snakemake", "--configfile", config(jobs, 1, folder), "--scheduler", scheduler]
            spent = measured(words, folder / f"{scheduler}{jobs}", stubs)
            table.append({"jobs": f"{jobs:,} that do nothing, scheduler {scheduler}", **spent})
            print(table[-1], flush=True)
    one = Path(folder, "one.ipynb")
    first = ["papermill", "--no-progress-bar", "notebooks/02_train.ipynb", one]
    first += [w for k, v in TOY.items() if k != "regime" for w in ("-p", k, v)]
    table.append({"jobs": "papermill, one toy training", **measured(first, folder / "papermill")})
    return pd.DataFrame(table)


TABLES = """
import resource, sys, time
from modvar_lib import files, runs
import pandas as pd
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
found = None
WORK
print(time.process_time() - started, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def tables(copies: list[int], times: int, folder: Path) -> pd.DataFrame:
    """CPU seconds and further MB of runs.tables over copies of a run of 100 epochs, and of reading and writing measures."""
    published = data.ROOT / "results" / "published" / "paper"
    toy = next((folder / "papermill").rglob("seed-000"))
    history = pd.read_csv(published / "history.csv")
    arm = (history[["architecture", "regime", "variant"]] == ["mlp", "fixed", "default"]).all(
        axis=1
    )
    first = history[arm & (history["seed"] == 0)].drop(columns=runs.KEYS)
    table = []

    def one(what: str, work: str, networks: int) -> None:
        around = os.environ | {"MODVAR_RESULTS": str(folder)}
        said = subprocess.run(
            [sys.executable, "-c", TABLES.replace("WORK", work)],
            env=around,
            capture_output=True,
            text=True,
        )
        assert said.returncode == 0, said.stderr
        seconds, mb = map(float, said.stdout.split())
        table.append({"what": what, "networks": networks, "cpu s": seconds, "peak MB more": mb})
        print(table[-1], flush=True)

    for count in copies:
        for seed in range(count):
            to = folder / f"copies{count}" / "runs" / toy.parent.name / f"seed-{seed:03d}"
            to.mkdir(parents=True)
            settings = json.loads((toy / "settings.json").read_text())
            said = json.dumps(settings | {"seed": seed, "epochs": 100})
            (to / "settings.json").write_text(said)
            first.to_csv(to / "history.csv", index=False)
            about = json.loads((toy / "provenance.json").read_text())
            about.pop("files", None)  # checksums, of the files that were just changed
            (to / "provenance.json").write_text(json.dumps(about))
            os.link(toy / "weights.safetensors", to / "weights.safetensors")
        one("runs.tables", f"runs.tables('copies{count}')", count)
        shutil.rmtree(folder / f"copies{count}")
    about = len(pd.read_csv(published / "runs.csv"))
    long = folder / "long" / "measures.csv"
    long.parent.mkdir()
    head, *rows = (published / "measures.csv").read_text().splitlines(keepends=True)
    for many in (times // 4, times):
        long.write_text(head + "".join(rows) * many)
        work = f"found = files.read_table(runs.study_folder('long') / 'measures.csv'); found.to_csv('{os.devnull}')"
        one("measures.csv read and written", work, many * about)
    return pd.DataFrame(table)


def on_disk(study: str) -> pd.DataFrame:
    """Files and bytes of a finished study: a run of each architecture, a page and an executed notebook of training, tables."""
    folder, table = runs.study_folder(study), []
    parts = {f"run, {p.parent.name}": p.glob("*") for p in sorted(folder.glob("runs/*/seed-000"))}
    parts["executed trainings"] = folder.glob("notebooks/02_train*")
    parts["their pages"] = folder.glob("report/02_train*")
    parts["tables"] = folder.glob("*.csv")
    for what, files in parts.items():
        sizes = [path.stat().st_size for path in files]
        blocks = sum(math.ceil(size / 4096) * 4096 for size in sizes)
        table.append({"what": what, "files": len(sizes), "bytes": sum(sizes), "blocks": blocks})
    return pd.DataFrame(table)


def shown(table: pd.DataFrame) -> None:
    print("\n" + table.to_markdown(index=False, floatfmt=".4g") + "\n", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--jobs", default="100,1000,5000,20000", help="one network a job")
    arguments.add_argument("--study", help="a finished study to weigh")
    chosen = arguments.parse_args()
    sizes = [int(n) for n in chosen.jobs.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found = graph([*((n, 1) for n in sizes), (sizes[-1] // 8, 8)], folder)
        shown(found)
        for what in ("cpu s", "peak MB", "parsing cpu s"):
            start, slope = line(found, what)
            last = found[found["jobs"] == sizes[-1]].iloc[0]
            print(
                f"{what} = {start:.3g} + {slope:.3g} a job, from {sizes[0]:,} to {sizes[-2]:,} jobs;"
                f" at {sizes[-1]:,}: {start + slope * sizes[-1]:.3g} predicted, {last[what]:.3g} measured"
            )
        shown(execution([100, 800], folder))
        shown(tables([100, 400], 35, folder))
    if chosen.study:
        shown(on_disk(chosen.study))


if __name__ == "__main__":
    main()
