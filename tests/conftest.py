"""Shared by all tests. Nothing a test trains or executes touches the project's own results."""

import os
import shutil
import tempfile

import pytest
import torch
from playwright.sync_api import sync_playwright
from xdist.scheduler import LoadFileScheduling

from modvar_lib import data, models, verify
from modvar_lib.settings import Settings

TOY = {
    "epochs": 3,
    "period": 1,
    "final_epochs": 1,
    "pairs_per_epoch": 512,
    "batch_size": 64,
    "test_pairs": 200,
    "device": "cpu",
}

ARCHITECTURES = [  # every one, but only one of the doses
    name
    for name, cls in models.ARCHITECTURES.items()
    if not issubclass(cls, models.Dose) or name == "dose20"
]


if "PYTEST_XDIST_WORKER" in os.environ:  # tests side by side share the cores
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_configure(config):
    os.environ.pop("MODVAR_TTY", None)
    os.environ["MODVAR_RESULTS"] = config.modvar_results = tempfile.mkdtemp(
        prefix="modvar-"
    )  # kernels of nbval inherit it


def pytest_unconfigure(config):
    shutil.rmtree(config.modvar_results, ignore_errors=True)


class Files(LoadFileScheduling):
    """Of `pytest --numprocesses 2`: tests of a file go together, and reference notebooks, as they build on each other."""

    def _split_scope(self, nodeid):
        return "reference" if ".ipynb::" in nodeid else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config, log):
    return Files(config, log)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, Debian's; tests of pages are left out where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
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


@pytest.fixture(scope="session")
def derived(tmp_path_factory):
    """What the analyses make of the measured tables of every published study: a folder a study. They are executed once."""
    folder = tmp_path_factory.mktemp("derived")
    with verify.workers() as pool:
        for study in verify.studies():
            verify.derive(study, folder, pool)
    return folder


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty results folder of the test's own."""
    monkeypatch.setenv("MODVAR_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture
def toy():
    """Settings of a training that takes a moment: toy(regime="varying", seeds=...)."""
    return lambda **changes: Settings(**{"study": "toy", **TOY, **changes})
