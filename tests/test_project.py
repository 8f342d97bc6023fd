"""The project's files: versions, names, sizes, form."""

import ast
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import faults
import pytest
import torch
import yaml
from packaging.requirements import Requirement

from modvar_lib import data

PYPROJECT = tomllib.loads((data.ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LOCK = (data.ROOT / "requirements.lock").read_text().replace("\\\n", "").splitlines()
PINS = [Requirement(line.split("--hash=")[0]) for line in LOCK]
EXTRAS = PROJECT["optional-dependencies"]
MAKEFILE = (data.ROOT / "Makefile").read_text()
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text())
    for path in sorted((data.ROOT / ".github" / "workflows").iterdir())
}
BINARY = (".gz", ".png", ".gif", ".safetensors")


def run(*words, cwd: Path = data.ROOT, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(words, cwd=cwd, env=os.environ | env, capture_output=True, text=True)


@functools.cache
def tracked() -> list[str]:
    """What git tracks, or would."""
    done = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [name for name in done.stdout.split("\0") if name and (data.ROOT / name).is_file()]


def test_the_lock_pins_everything_exactly_within_the_projects_ranges():
    for pin, line in zip(PINS, LOCK):
        assert pin.url is None and re.fullmatch(r"==[^*]+", str(pin.specifier)), pin
        hashes = line.split("--hash=")[1:]
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64} *", text) for text in hashes), pin
    groups = EXTRAS | PYPROJECT["dependency-groups"]
    wants = chain(PROJECT["dependencies"], PYPROJECT["build-system"]["requires"], *groups.values())
    for wanted in map(Requirement, wants):
        pinned = [str(pin.specifier)[2:] for pin in PINS if pin.name == wanted.name]
        assert pinned or wanted.name == "modvar", f"{wanted.name} is not locked: make lock"
        assert all(map(wanted.specifier.contains, pinned)), wanted
    (builds,) = map(Requirement, PYPROJECT["build-system"]["requires"])
    assert re.fullmatch(r"==[^*]+", str(builds.specifier))
    assert not (data.ROOT / "uv.lock").exists()


def test_what_is_installed_is_what_is_pinned():
    only = {Requirement(line).name for line in EXTRAS["benchmark"]}  # what the tests do not need,
    only |= {"absl-py", "jaxlib", "ml-dtypes", "opt-einsum"}  # and what that brings
    for pin in PINS:
        cuda = pin.name.startswith(("nvidia-", "cuda-", "triton"))
        if pin.name in only or (cuda and torch.version.cuda is None):
            continue
        if pin.marker is None or pin.marker.evaluate({"extra": "test"}):
            assert version(pin.name).split("+")[0] == str(pin.specifier)[2:].split("+")[0], pin.name


def test_conda_and_ci_are_in_step():
    """Conda installs the lock and nothing else; all name a Python that the project allows."""
    environment = yaml.safe_load((data.ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    python, pip, packages = environment["dependencies"]
    assert pip == "pip" and packages == {"pip": ["--requirement requirements.lock"]}
    pythons = [
        python.removeprefix("python="),
        *WORKFLOWS["test.yml"]["jobs"]["test"]["strategy"]["matrix"]["python"],
    ]
    allowed = Requirement(f"python{PROJECT['requires-python']}").specifier
    assert all(allowed.contains(python) for python in pythons)
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert oldest in pythons and f"--python-version {oldest} " in MAKEFILE
    assert f"(3, {oldest.split('.')[1]})" in MAKEFILE


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_little_and_takes_actions_by_commit(name):
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    for job in WORKFLOWS[name]["jobs"].values():
        uses = [step["uses"] for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action in uses)
        deploys = any("deploy-pages" in action for action in uses)
        assert job.get("permissions", {}) == (
            {"pages": "write", "id-token": "write"} if deploys else {}
        )
        assert not deploys or not any("run" in step for step in job["steps"])
        assert job["timeout-minutes"] <= 120


def test_help_names_every_command_and_is_what_make_alone_says():
    said = run("make", "help").stdout
    assert said == run("make").stdout and max(map(len, said.splitlines())) <= 100
    (targets,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    for target in targets.split():
        assert re.search(rf"\bmake {target}(?![\w-])", said), target


def wheel(folder: Path, name: str, files: dict[str, str]) -> str:
    """A package of these files, put into `folder`: its line in a lock."""
    about = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n", "RECORD": ""}
    about["WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (
            {f"{name}-1.dist-info/{k}": v for k, v in about.items()} | files
        ).items():
            entry = zipfile.ZipInfo(file)
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, text)
    return f"{name}==1 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def checkout(tmp_path):
    """The real Makefile around a package without dependencies, and a packaged uv that is the real
    one: set-up needs no network. Its folder has a space in its name."""
    root = tmp_path / "a checkout"
    root.mkdir()
    shutil.copyfile(data.ROOT / "Makefile", root / "Makefile")
    uv = Path(sys.executable).with_name("uv")
    script = {"uv-1.data/scripts/uv": f'#!/bin/sh\nexec {uv} "$@"\n'}
    (root / "requirements.lock").write_text(wheel(root, "uv", script))
    wheel(root, "modvar", {})
    (root / "pyproject.toml").write_text(
        '[project]\nname = "modvar"\nversion = "1"\noptional-dependencies = {test = []}\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (root / "backend.py").write_text(
        "import shutil\n\n\ndef build_editable(folder, *more):\n"
        '    return shutil.copy("modvar-1-py3-none-any.whl", folder).split("/")[-1]\n'
    )
    return root


def set_up(root: Path, **env: str) -> tuple[int, str]:
    """`make .venv/ready-test` without a network: (exit status, what it said)."""
    offline = {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(root / "cache")}
    offline |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ".", "PYTHONPATH": ""}
    words = "make", ".venv/ready-test", f"PYTHON={sys.executable}"
    done = run(*words, cwd=root, **offline | env)
    return done.returncode, done.stdout + done.stderr


def test_set_up_goes_into_venv_whatever_the_environment_says(checkout, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    venv.create(elsewhere, with_pip=False)
    before = set(elsewhere.rglob("*"))
    names = (
        "VIRTUAL_ENV CONDA_PREFIX UV_PROJECT_ENVIRONMENT UV_TARGET UV_PREFIX PIP_TARGET PIP_ROOT"
    )
    redirects = {**dict.fromkeys(names.split(), str(elsewhere)), "UV_SYSTEM_PYTHON": "1"}
    redirects |= {"UV_PYTHON": str(elsewhere / "bin" / "python"), "PIP_DRY_RUN": "1"}
    status, said = set_up(checkout, **redirects)
    assert status == 0, said
    assert set(elsewhere.rglob("*")) == before
    assert list(checkout.glob(".venv/lib/*/site-packages/modvar-1.dist-info"))
    assert (checkout / ".venv" / "ready-test").exists()


@pytest.mark.parametrize("case", ["a uv.toml", "another package than the lock's"])
def test_set_up_that_went_wrong_is_not_taken_as_done(checkout, case):
    if case == "a uv.toml":
        (checkout / "uv.toml").write_text('[pip]\ntarget = "elsewhere"\n')
        line = "uv: it installed elsewhere than .venv"
    else:
        wheel(checkout, "uv", {"other.py": ""})
        line = "THESE PACKAGES DO NOT MATCH THE HASHES"
    status, said = set_up(checkout)
    assert status != 0 and line in said
    assert not list(checkout.glob(".venv/ready-*"))


def test_what_runs_before_a_commit_changes_nothing_here():
    config = yaml.safe_load((data.ROOT / ".pre-commit-config.yaml").read_text())
    hooks = {hook["id"]: hook["entry"].split() for hook in config["repos"][0]["hooks"]}
    assert hooks.keys() == {"ruff-format", "ruff-check", "nbstripout"}
    notebooks = [name for name in tracked() if re.match(r"notebooks/.*\.ipynb$", name)]
    assert run(sys.executable, "-m", *hooks["nbstripout"], "--verify", *notebooks).returncode == 0


def test_no_registry_and_no_path_of_a_machine_is_named():
    hosts = re.compile(r"pypi[.]org|python" + r"hosted|[/]simple[/]|/[\w.+-]*[.]whl\b")
    home = re.compile(re.escape(str(data.ROOT)) + r"|(?<![\w.])/(home|root|Users|work)/\w")
    for name in tracked():
        if not name.endswith(BINARY):
            text = (data.ROOT / name).read_text()
            assert not hosts.search(text) and not home.search(text), name


def test_nothing_large_is_tracked():
    limits = {".gz": 10_000_000, ".safetensors": 45_000_000, ".csv": 4_000_000, ".js": 3_000_000}
    sizes = {name: (data.ROOT / name).stat().st_size for name in tracked()}
    large = [name for name in sizes if sizes[name] > limits.get(Path(name).suffix, 1_000_000)]
    assert large == [] and sum(sizes.values()) < 200e6


def test_the_digits_are_the_published_ones():
    raw = data.ROOT / "data" / "MNIST" / "raw"
    sums = {
        line.split()[1]: line.split()[0] for line in (raw / "SHA256SUMS").read_text().splitlines()
    }
    assert data.checksums("MNIST").keys() == sums.keys()
    for name, digest in sums.items():
        assert hashlib.sha256((raw / name).read_bytes()).hexdigest() == digest
        assert digest in (raw / "README.md").read_text()


def test_importing_is_light():
    """No plotting, tables, statistics or notebooks are pulled in by the package itself."""
    heavy = {"torch", "pandas", "scipy", "matplotlib", "IPython"}
    done = run(sys.executable, "-c", f"import sys, modvar_lib; print({heavy} & {{*sys.modules}})")
    assert done.stdout == "set()\n"


def test_the_package_outside_its_checkout_is_one_plain_line(tmp_path):
    shutil.copytree(data.ROOT / "modvar_lib", tmp_path / "modvar_lib")
    done = run(sys.executable, "-c", "import modvar_lib", cwd=tmp_path, PYTHONPATH="")
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


def ruff(*words: str) -> str:
    """What ruff finds."""
    done = run(sys.executable, "-m", "ruff", *words, "--no-cache", "--quiet")
    return done.stdout + done.stderr


def test_code_and_notebooks_are_linted_and_formatted():
    assert ruff("check", ".") == "" and ruff("format", "--diff", ".") == ""


def test_types_of_the_library_hold():
    command = ["-m", "ty", "check", "--python", sys.prefix, "--output-format", "concise"]
    done = run(sys.executable, *command, "--exit-zero", "modvar_lib")
    assert done.stdout.strip() == "All checks passed!", done.stdout


SHELLS_AND_PICKLES = "S102,S301,S302,S307,S506,S602,S604,S605"
LOADERS = r"(torch|np|numpy)\.load\b|(unsafe|full)_load|allow_pickle|to_pickle|joblib|cloudpickle|load_module"


def test_nothing_that_reads_a_file_can_run_it():
    """By ruff's rules for exec, eval, pickle, marshal, yaml.load and shells; and by name."""
    assert (
        ruff("check", "--isolated", "--select", SHELLS_AND_PICKLES, "modvar_lib", "notebooks") == ""
    )
    code = [*(data.ROOT / "modvar_lib").rglob("*.py"), *(data.ROOT / "notebooks").glob("*.ipynb")]
    assert not [path.name for path in code if re.search(LOADERS, faults.text_of(path))]


SCRIPTS = [
    path
    for folder in ("benchmarks", "book", "tests")
    for path in sorted((data.ROOT / folder).rglob("*.py"))
    if '\nif __name__ == "__main__":\n' in path.read_text()
]


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_that_is_called_wrongly_says_how_to_use_it(path):
    done = run(sys.executable, path, "--wrong")
    assert done.returncode == 2 and done.stderr.startswith("usage: ") and not done.stdout
    about = ast.get_docstring(ast.parse(path.read_text())).splitlines()
    assert about[0].endswith((".", "?")) and about[1:2] in ([], [""])  # what --help says


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
    done = run(sys.executable, "-c", OFFLINE)
    assert done.returncode == 0, done.stderr + done.stdout
