"""The project's files: versions, names, sizes, form."""

import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from itertools import chain

import faults
import pytest
import yaml
from packaging.requirements import Requirement

from modvar_lib import data

PYPROJECT = tomllib.loads((data.ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PINS = [Requirement(line) for line in (data.ROOT / "requirements.lock").read_text().splitlines()]
EXTRAS = PROJECT["optional-dependencies"]
BINARY = (".gz", ".png", ".gif", ".safetensors")


def tracked() -> list[str]:
    """What git tracks, or would."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, cwd=data.ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (data.ROOT / name).is_file()]


def test_the_lock_pins_everything_exactly_within_the_projects_ranges():
    for pin in PINS:
        assert pin.url is None and re.fullmatch(r"==[^*]+", str(pin.specifier)), pin
    for wanted in map(Requirement, chain(PROJECT["dependencies"], *EXTRAS.values())):
        pinned = [pin for pin in PINS if pin.name == wanted.name]
        assert pinned or wanted.name == "modvar", (
            f"{wanted.name} is not in requirements.lock: make lock"
        )
        assert all(wanted.specifier.contains(str(pin.specifier)[2:]) for pin in pinned), (
            f"{pinned} is outside {wanted}"
        )


def test_what_is_installed_is_what_is_pinned():
    only = {Requirement(line).name for line in EXTRAS["benchmark"]}  # what the tests do not need
    for pin in PINS:
        if pin.name not in only and (pin.marker is None or pin.marker.evaluate({"extra": "test"})):
            assert version(pin.name).split("+")[0] == str(pin.specifier)[2:].split("+")[0], pin.name


def test_condas_environment_is_in_step():
    environment = yaml.safe_load((data.ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    python = [
        line
        for line in environment["dependencies"]
        if isinstance(line, str) and line.startswith("python=")
    ]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        python[0].split("=")[1]
    )
    (packages,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    text = " ".join(packages)
    assert "requirements.lock" in text and re.search(r"--editable \.", text)
    for extra in re.findall(r"\.\[([\w,]+)\]", text):
        assert set(extra.split(",")) <= set(EXTRAS)


def test_no_registry_and_no_path_of_a_machine_is_named():
    hosts = re.compile(
        "|".join(["pypi" + r"\.org", "python" + "hosted", "[/]simple[/]", r"[.]whl\b"])
    )
    home = re.compile(re.escape(str(data.ROOT)) + "|" + r"(?<![\w.])/(home|root|Users|work)/\w")
    for name in tracked():
        if not name.endswith(BINARY):
            text = (data.ROOT / name).read_text()
            assert not hosts.search(text) and not home.search(text), name


def test_nothing_large_is_tracked():
    limits = {".gz": 10_000_000, ".safetensors": 45_000_000, ".csv": 4_000_000, ".js": 3_000_000}
    sizes = {name: (data.ROOT / name).stat().st_size for name in tracked()}
    large = {
        name: size
        for name, size in sizes.items()
        if size > limits.get("." + name.split(".")[-1], 1_000_000)
    }
    assert large == {} and sum(sizes.values()) < 200e6


def test_the_digits_are_the_published_ones():
    raw = data.ROOT / "data" / "MNIST" / "raw"
    for line in (raw / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((raw / name).read_bytes()).hexdigest() == digest
        assert digest in (raw / "README.md").read_text()
    assert data.checksums("MNIST").keys() == {
        line.split()[1] for line in (raw / "SHA256SUMS").read_text().splitlines()
    }


def test_importing_is_light():
    """No plotting, tables, statistics or notebooks are pulled in by the package itself."""
    ask = "import sys, modvar_lib; print([m for m in ('torch', 'pandas', 'scipy', 'matplotlib', 'IPython') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout.strip()
        == "[]"
    )


def test_the_package_outside_its_checkout_is_one_plain_line(tmp_path):
    shutil.copytree(data.ROOT / "modvar_lib", tmp_path / "modvar_lib")
    words = [sys.executable, "-c", "import modvar_lib"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode and last.startswith("ImportError: modvar_lib: config/, data/, ")


def test_every_fault_is_planted_somewhere_and_caught_by_a_test_that_is_there():
    """Of tests/faults.csv, without planting any: its text is once in its file."""
    for fault in faults.read():
        text = faults.text_of(data.ROOT / fault["file"])
        assert text.count(fault["old"]) == 1, f"{fault['name']}: not once in {fault['file']}"
        for test in fault["tests"].split():
            file, name = test.partition("[")[0].split("::")
            assert f"def {name}(" in (data.ROOT / file).read_text(), fault["name"]


@pytest.mark.parametrize("words", [["check"], ["format", "--check"]], ids=" ".join)
def test_code_and_notebooks_are_linted_and_formatted(words):
    command = [sys.executable, "-m", "ruff", *words, "--no-cache", "."]
    done = subprocess.run(command, cwd=data.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


CODE = [
    *sorted((data.ROOT / "modvar_lib").rglob("*.py")),
    *sorted((data.ROOT / "notebooks").glob("*.ipynb")),
]
UNSAFE = {  # can run what a file says
    *(
        "pickle",
        "cPickle",
        "dill",
        "joblib",
        "shelve",
        "marshal",
        "cloudpickle",
        "read_pickle",
        "to_pickle",
    ),
    *("load_module", "exec", "eval", "unsafe_load", "full_load", "system", "popen"),
}
CALLS = "torch.load", "np.load", "numpy.load", "yaml.load"


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.name)
def test_nothing_that_reads_a_file_can_run_it(path):
    source = path.read_text()
    if path.suffix == ".ipynb":
        source = "\n".join(
            "".join(cell["source"])
            for cell in json.loads(source)["cells"]
            if cell["cell_type"] == "code"
        )
    for node in ast.walk(ast.parse(source)):
        names = set()
        if isinstance(node, ast.Attribute) and node.attr != "eval":  # a network's switch
            names = {node.attr}
        elif isinstance(node, ast.Name):
            names = {node.id}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {part for a in node.names for part in a.name.split(".")} | {
                *(getattr(node, "module", "") or "").split(".")
            }
        elif isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in CALLS, (path.name, node.lineno)
            assert not any(word.arg in ("shell", "allow_pickle") for word in node.keywords), (
                path.name,
                node.lineno,
            )
        assert not names & UNSAFE, (path.name, node.lineno)


OFFLINE = """
import sys

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        raise SystemExit(f"{event} {args}")

sys.addaudithook(watch)
from functools import partial
from modvar_lib import data, metrics, runs
from modvar_lib.analysis import figures, statistics, study
from modvar_lib.settings import Settings

settings = Settings(study="offline", architecture="summed", epochs=1, pairs_per_epoch=128, device="cpu")
metrics.measure = partial(metrics.measure, pairs=50)
metrics.measure_group(settings, runs.complete(settings))
"""


def test_nothing_is_fetched_at_run_time(results):
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
