"""The project's files: versions, names, sizes, form."""

import ast
import hashlib
import json
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


def tracked() -> list[str]:
    """What git tracks, or would."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, cwd=data.ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (data.ROOT / name).is_file()]


def test_the_lock_pins_everything_exactly_within_the_projects_ranges():
    for pin, line in zip(PINS, LOCK):
        assert pin.url is None and re.fullmatch(r"==[^*]+", str(pin.specifier)), pin
        hashes = line.split("--hash=")[1:]
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64} *", text) for text in hashes), pin
    groups = EXTRAS | PYPROJECT["dependency-groups"]
    wants = chain(PROJECT["dependencies"], PYPROJECT["build-system"]["requires"], *groups.values())
    for wanted in map(Requirement, wants):
        pinned = [pin for pin in PINS if pin.name == wanted.name]
        assert pinned or wanted.name == "modvar", (
            f"{wanted.name} is not in requirements.lock: make lock"
        )
        assert all(wanted.specifier.contains(str(pin.specifier)[2:]) for pin in pinned), (
            f"{pinned} is outside {wanted}"
        )
    (builds,) = map(Requirement, PYPROJECT["build-system"]["requires"])
    assert re.fullmatch(r"==[^*]+", str(builds.specifier))
    assert not (data.ROOT / "uv.lock").exists()


def test_what_is_installed_is_what_is_pinned():
    only = {Requirement(line).name for line in EXTRAS["benchmark"]}  # what the tests do not need
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
    said = {
        words: subprocess.run(
            ["make", *words], cwd=data.ROOT, capture_output=True, text=True
        ).stdout
        for words in [(), ("help",)]
    }
    assert said[()] == said["help",]
    (targets,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    for target in targets.split():
        assert re.search(rf"\bmake {target}(?![\w-])", said[()]), target
    assert all(len(line) <= 100 for line in said[()].splitlines())


def wheel(folder: Path, name: str, files: dict[str, str]) -> str:
    """A package of these files, put into `folder`: its line in a lock."""
    about = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n", "RECORD": ""}
    about["WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {
            **{f"{name}-1.dist-info/{k}": v for k, v in about.items()},
            **files,
        }.items():
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
    words = ["make", ".venv/ready-test", f"PYTHON={sys.executable}"]
    env = {**os.environ, **offline, **env}
    done = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True)
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
    done = subprocess.run(
        [sys.executable, "-m", *hooks["nbstripout"], "--verify", *notebooks], cwd=data.ROOT
    )
    assert done.returncode == 0


def test_no_registry_and_no_path_of_a_machine_is_named():
    hosts = re.compile(
        "|".join(["pypi" + r"\.org", "python" + "hosted", "[/]simple[/]", r"/[\w.+-]*[.]whl\b"])
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


SCRIPTS = [
    path
    for folder in ("benchmarks", "book", "tests")
    for path in sorted((data.ROOT / folder).rglob("*.py"))
    if '\nif __name__ == "__main__":\n' in path.read_text()
]


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_that_is_called_wrongly_says_how_to_use_it(path):
    done = subprocess.run(
        [sys.executable, path, "--wrong"], cwd=data.ROOT, capture_output=True, text=True
    )
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
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
