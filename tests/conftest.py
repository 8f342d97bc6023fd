"""Shared by all tests. Nothing a test trains or executes touches the project's own results."""

import os
import shutil
import tempfile

import pytest
import torch
from xdist.scheduler import LoadFileScheduling

from modvar_lib import data, goals, metrics, models
from modvar_lib.settings import Settings

SIZES = {
    "epochs": 3,
    "period": 1,
    "final_epochs": 1,
    "pairs_per_epoch": 512,
    "batch_size": 64,
    "test_pairs": 200,
}
TOY = {**SIZES, "device": "cpu"}
ARCHITECTURES = [
    name for name in models.ARCHITECTURES if "dose" not in name or name == "dose20"
]  # one of the doses
LONG = (
    "test_graph.py",
    "test_published.py",
    "test_measures.py",
)  # files that go first, so that workers end together


if "PYTEST_XDIST_WORKER" in os.environ:  # tests side by side share the cores
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_configure(config):
    for name in (
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
    ):  # a make that a test starts is not part of the one that started the tests
        os.environ.pop(name, None)
    os.environ["MODVAR_RESULTS"] = config.modvar_results = tempfile.mkdtemp(
        prefix="modvar-"
    )  # kernels inherit it


def pytest_unconfigure(config):
    shutil.rmtree(config.modvar_results, ignore_errors=True)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


class Files(LoadFileScheduling):
    """Of `pytest --numprocesses 2`: tests of a file go together, and reference notebooks, as they
    build on each other."""

    def _split_scope(self, nodeid):
        return "reference" if ".ipynb::" in nodeid else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config, log):
    return Files(config, log)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, Debian's; tests of pages are left out where there is none."""
    from playwright.sync_api import sync_playwright

    chromium = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not chromium:
        pytest.skip("no Chromium on PATH; Debian and Ubuntu: apt install chromium")
    quiet = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=quiet.split())
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def splits():
    return data.digits("MNIST")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty results folder of the test's own."""
    monkeypatch.setenv("MODVAR_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture
def registries():
    """Regimes, architectures and measures that a test registers are forgotten after it."""
    registered = goals.REGIMES, models.ARCHITECTURES, metrics.METRICS
    before = [dict(registry) for registry in registered]
    yield
    for registry, entries in zip(registered, before):
        registry.clear()
        registry.update(entries)


@pytest.fixture(scope="session")
def toy():
    """Settings of a training that takes a moment: toy(regime="varying", seeds=...)."""
    return lambda **changes: Settings(**{"study": "toy", **TOY, **changes})
