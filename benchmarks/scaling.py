"""What does a network cost besides its training?

`python benchmarks/scaling.py` measures CPU seconds; compare ratios within one run.

graph      dry runs of the real Snakefile with generated configs, against groups (one job each) and
           networks
execution  the real Snakefile with its commands replaced by scripts that leave the files that a job
           leaves
tables     study.table over so many groups: copies of a published one, under other seeds
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

from modvar_lib import data, runs

TOY = {"study": "scaling", "regime": ["fixed", "varying"]}
STUBS = {
    "papermill": """shift; mkdir -p $(dirname $2); cp $1 $2; name=$(basename $2 .ipynb); study=$(dirname $(dirname $2))
[[ $name == 03_metric-* ]] || exit 0; name=${name#03_metric-}; arm=${name%-*-*}; group=$study/groups/$arm/${name#$arm-}
mkdir -p $group; touch $group/{runs,history,measures}.csv""",
    "python": f"""[[ $1 == book/build.py ]] || exec {sys.executable} "$@"
mkdir -p $MODVAR_RESULTS/$2/book; touch $MODVAR_RESULTS/$2/book/index.html""",
}


def spent(
    words: list[str], results: Path, commands: Path | None = None, config: Path | None = None
) -> dict:
    """CPU seconds of a command and of all that it starts, and the peak MB of the largest of these
    processes. commands: a folder with programs that take the place of others."""
    folders = [*filter(None, [commands]), Path(sys.executable).parent, os.environ["PATH"]]
    env = {
        "MODVAR_RESULTS": str(results),
        "MODVAR_CONFIG": str(config),
        "PATH": os.pathsep.join(map(str, folders)),
    }
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            words, cwd=data.ROOT, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=log
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        if child.returncode:
            sys.exit(f"{' '.join(words)}\n{log.read()[-2000:]}")
    return {"CPU s": used.ru_utime + used.ru_stime, "peak MB": used.ru_maxrss / 1024}


def config(groups: int, size: int, folder: Path) -> Path:
    path = folder / f"{groups}x{size}.yaml"
    path.write_text(
        yaml.safe_dump({**TOY, "seeds": f"0-{groups * size // 2 - 1}", "group_size": size})
    )
    return path


def graph(groups: int, size: int, folder: Path) -> dict:
    words = ["snakemake", "--dry-run", "--quiet", "all"]
    return spent(words, folder / "none", config=config(groups, size, folder))


def execution(groups: int, size: int, folder: Path) -> dict:
    commands = folder / "commands"
    commands.mkdir(exist_ok=True)
    for name, script in STUBS.items():
        (commands / name).write_text(f"#!/bin/bash\nset -e\n{script}")
        (commands / name).chmod(0o755)
    words = ["snakemake", "--workflow-profile", "profiles/default", "--quiet", "all"]
    return spent(words, folder / f"executed{groups}x{size}", commands, config(groups, size, folder))


def tables(groups: int, size: int, folder: Path) -> dict:
    """Copies of a group of 8, whatever the size of others."""
    source, results = (
        runs.study_folder("paper") / "groups" / "MNIST-mlp-fixed" / "000-007",
        folder / f"tables{groups}",
    )
    copies = results / "scaling" / "groups" / "MNIST-mlp-fixed"
    for name in ("runs.csv", "measures.csv"):
        table = pd.read_csv(source / name, dtype={"note": str})
        for i in range(groups):
            part = table.assign(seed=table["seed"] + 8 * i)
            runs.write_table(part, copies / f"{i:03d}" / name)
    return spent(
        [
            sys.executable,
            "-c",
            "from modvar_lib.analysis import study; study.table('scaling', 'measures')",
        ],
        results,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", default="100,400,1600", help="how many, for each part")
    parser.add_argument("--sizes", default="1,8", help="seeds per group")
    chosen = parser.parse_args()
    groups, sizes = ([int(n) for n in text.split(",")] for text in (chosen.groups, chosen.sizes))
    with tempfile.TemporaryDirectory() as temporary:
        for part in (graph, execution, tables):
            todo = [(g, s) for g in groups for s in (sizes if part is graph else sizes[-1:])]
            rows = [
                {"groups": g, "seeds per group": s, **part(g, s, Path(temporary))} for g, s in todo
            ]
            print(
                f"\n{part.__name__}\n\n{pd.DataFrame(rows).to_markdown(index=False, floatfmt='.4g')}",
                flush=True,
            )


if __name__ == "__main__":
    main()
