"""Does every planted fault turn a test red?

`python tests/faults.py [NAME ...]`: tests/faults.csv is the table: of each fault its name, the
file, the text there (once; of a notebook, in its cells), what takes its place, and the tests that
must catch it. A fault is planted in a temporary copy of the project, where these tests run; all of
them run on a copy without a fault, too. Red: a test failed, as it should. GREEN: none did. BROKEN:
the tests could not run, or the text is not there.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("data", "results", "figures", ".git", ".venv")  # only read, and large
WORDS = {0: "GREEN", 1: "red"}  # by exit status of pytest


def read() -> list[dict]:
    with open(Path(__file__).with_suffix(".csv"), newline="") as file:
        return list(csv.DictReader(file))


def text_of(path: Path) -> str:
    """Of a notebook, of its cells."""
    if path.suffix != ".ipynb":
        return path.read_text()
    return "\0".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])


def plant(fault: dict, path: Path) -> None:
    text = text_of(path)
    if text.count(fault["old"]) != 1:
        raise ValueError(f"{text.count(fault['old'])} times there: {fault['old']}")
    text = text.replace(fault["old"], fault["new"])
    if path.suffix == ".ipynb":
        notebook = json.loads(path.read_text())
        for cell, source in zip(notebook["cells"], text.split("\0"), strict=True):
            cell["source"] = source
        text = json.dumps(notebook)
    path.write_text(text)


def trial(fault: dict) -> tuple[str, str, float]:
    """(red, GREEN or BROKEN; the first test that failed, or why not; seconds)."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "project")
        ignored = shutil.ignore_patterns(*LINKED, "__pycache__", ".snakemake", "*.egg-info")
        shutil.copytree(ROOT, copy, ignore=ignored)
        for name in filter(lambda name: (ROOT / name).exists(), LINKED):
            (copy / name).symlink_to(ROOT / name)
        try:
            plant(fault, copy / fault["file"]) if fault["file"] else None
        except (ValueError, OSError) as error:
            return "BROKEN", str(error), 0.0
        options = ["-x", "-q", "-o", "addopts=-p no:cacheprovider"]
        words = [sys.executable, "-m", "pytest", *options, *fault["tests"].split()]
        env = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=copy, env=env, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    broken = any(line.startswith("ERROR") for line in failed)
    word = "BROKEN" if broken else WORDS.get(done.returncode, "BROKEN")
    return word, " ".join(failed[:1] or lines[-1:]), time.perf_counter() - began


def main() -> None:
    faults = {fault["name"]: fault for fault in read()}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help="of a fault in tests/faults.csv; none: all")
    asked = parser.parse_args().name
    if unknown := [name for name in asked if name not in faults]:
        sys.exit(f"NAME: got {unknown[0]!r}; allowed: {', '.join(faults)}")
    chosen = [faults[name] for name in asked or faults]
    tests = sorted({test for fault in chosen for test in fault["tests"].split()})
    none = {"name": "none", "file": "", "tests": " ".join(tests)}
    red = 0
    with ThreadPoolExecutor(2) as pool:
        for fault, (word, why, seconds) in zip([*chosen, none], pool.map(trial, [*chosen, none])):
            red += word == "red" and fault is not none
            print(f"{word:<7}{seconds:4.0f} s  {fault['name']:<32} {why[:140]}", flush=True)
    print(f"{red} of {len(chosen)} red; without a fault: {word.lower()}")
    sys.exit(red < len(chosen) or word != "GREEN")


if __name__ == "__main__":
    main()
