"""The site of the published study: complete, offline, and usable by everybody who opens it; and the
explorer in a JupyterLab."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch

from modvar_lib import data, models, runs
from modvar_lib.errors import InputError
from modvar_lib.settings import Settings

sys.path.append(str(data.ROOT / "book"))
import explorer as explorers

STUDY = "paper"
NOTEBOOKS = sorted(path.stem for path in (data.ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built in an empty results folder, from the committed notebooks."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(data.ROOT / "results" / STUDY / "notebooks", folder / STUDY / "notebooks")
    shutil.copy(data.ROOT / "results" / STUDY / "headline.md", folder / STUDY)
    env = {**os.environ, "MODVAR_RESULTS": str(folder)}
    words = [sys.executable, "book/build.py", STUDY]
    done = subprocess.run(words, cwd=data.ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder / STUDY / "book"


class Page(HTMLParser):
    """Its links, its ids, and images without words for them."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.links, self.ids, self.silent = path, [], set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids.add(values.get("id"))
        self.links += [(tag, values[key]) for key in ("href", "src") if values.get(key)]
        if tag == "img" and not values.get("alt"):
            self.silent.append(values.get("src"))


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_every_notebook_is_a_page(site):
    assert {path.stem for path in site.glob("notebooks/*.html")} >= set(NOTEBOOKS)
    assert {"index.html", "search.html", "searchindex.js"} <= {path.name for path in site.iterdir()}


def test_every_link_within_leads_somewhere(pages):
    for page in pages.values():
        for _, link in page.links:
            parts = urlsplit(link)
            if not parts.scheme and not parts.netloc:
                target = (
                    (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
                )
                assert target.exists(), (page.path.name, link)
                if parts.fragment and target in pages:
                    assert unquote(parts.fragment) in pages[target].ids, (page.path.name, link)


def test_nothing_is_fetched_from_elsewhere(pages):
    for page in pages.values():
        foreign = [
            link
            for tag, link in page.links
            if tag in ("script", "link", "img") and urlsplit(link).netloc
        ]
        assert not foreign, page.path.name


def test_every_picture_has_words(pages):
    for page in pages.values():
        assert page.silent == [], page.path.name


def test_a_study_without_notebooks_is_one_line(results):
    words = [sys.executable, "book/build.py", "nothing"]
    done = subprocess.run(words, cwd=data.ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and re.match(
        r"InputError: study: 'nothing' has no executed notebooks", done.stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize(
    "name", ["index", "article", "notebooks/04_analysis", "notebooks/07_controls"]
)
def test_a_page_is_usable_by_everybody(site, browser, name, width, scheme):
    """By axe's rules, on a phone and on a desk; nothing is wider than the screen; formulas are
    drawn without a network."""
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"file://{site / name}.html")
    page.wait_for_timeout(1500)
    serious = [
        one
        for one in Axe().run(page).response["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert not serious, [(one["id"], one["nodes"][0]["html"][:200]) for one in serious]
    assert not errors and page.evaluate("document.documentElement.scrollWidth") <= width + 1
    page.close()


@pytest.fixture
def explorer(site, browser):
    """The article from the disk, offline; the name of what a script of the page's own can reach the
    explorer by."""
    page = browser.new_page(viewport={"width": 900, "height": 900}, offline=True)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"file://{site / 'article.html'}")
    page.locator(".explorer canvas.units").first.wait_for(timeout=20_000)
    yield page
    assert not errors
    page.close()


def test_the_explorer_in_the_browser_agrees_with_pytorch(explorer):
    """Every activation of every network, to 1e-3, with weights rounded as the page has them."""
    paths = sorted((data.ROOT / "results" / STUDY / "runs").glob("*/seed-*"))
    _, digits = data.digits("MNIST")
    rows = [
        int(torch.where(digits.labels == digit)[0][example])
        for digit in range(10)
        for example in range(3)
    ]
    for n, path in enumerate(paths):
        network = runs.load(path, STUDY).network()
        for parameter in network.parameters():
            parameter.data = parameter.data.half().float()
        for left, right in ((0, 29), (17, 4)):
            with torch.no_grad():
                pair = torch.tensor([[rows[left], rows[right]]])
                _, seen = models.activations(network, data.halves(digits.images, pair))
            shown = explorer.evaluate(
                "([n, l, r]) => document.querySelector('#explorer').explorer.activations(n, l, r)",
                [n, left, right],
            )
            for layer, values in zip(
                (value[0] for (_, when), value in seen.items() if when == "post"),
                shown,
                strict=True,
            ):
                assert torch.allclose(
                    layer, torch.tensor(values), atol=1e-3 * max(1, float(layer.abs().max()))
                )


def test_the_explorer_answers_to_keys_and_to_a_pen(explorer):
    """Exchange, choose, another network, draw: each changes what is said and shown."""
    said = explorer.locator(".explorer .answer")

    def changed(use):
        before = said.inner_text()
        use()
        assert said.inner_text() != before
        return said.inner_text()

    def draw():
        box = explorer.locator("canvas.digit").first.bounding_box()
        explorer.mouse.move(box["x"] + 56, box["y"] + 20)
        explorer.mouse.down()
        explorer.mouse.move(box["x"] + 56, box["y"] + 90, steps=5)
        explorer.mouse.up()

    assert "Before: 2 and 7" in said.inner_text() and "After: 2 and 4" in said.inner_text()
    explorer.get_by_label("right digit: choose").focus()
    assert "After: 2 and 7" in changed(lambda: explorer.keyboard.type("7"))
    changed(lambda: explorer.locator("select.network").select_option(index=1))
    explorer.get_by_role("button", name="clear the left digit").focus()
    assert "your and 7" in changed(lambda: explorer.keyboard.press("Enter"))
    changed(draw)


@pytest.mark.slow
def test_the_explorer_answers_in_jupyterlab(browser, results, tmp_path):
    """Run all cells, then use its controls: what it says changes, and nothing is an error."""
    sizes = {"epochs": 4, "period": 2, "final_epochs": 1, "pairs_per_epoch": 3000, "device": "cpu"}
    runs.complete(Settings(study="toy", regime="varying", frames=2, **sizes))
    runs.complete(Settings(study="toy", architecture="towers", **sizes))
    source = (data.ROOT / "notebooks" / "09_explore.ipynb").read_text()
    (tmp_path / "09_explore.ipynb").write_text(re.sub(r'(study: str = \\")\w+', r"\1toy", source))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = f"-m jupyter lab --no-browser --allow-root --port={port} --IdentityProvider.token=t --ServerApp.root_dir={tmp_path}"
    env = os.environ | {
        "JUPYTER_CONFIG_DIR": str(tmp_path / "c"),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "s"),
    }
    with (tmp_path / "log.txt").open("w") as log:
        lab = subprocess.Popen(
            [sys.executable, *words.split()],
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        page = browser.new_page(viewport={"width": 1400, "height": 1100})
        for _ in range(120):
            try:
                page.goto(f"http://127.0.0.1:{port}/lab/tree/09_explore.ipynb?token=t")
                break
            except Exception:
                time.sleep(0.5)
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=120_000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.locator(".explorer canvas.units").first.wait_for(timeout=120_000)
        said = page.locator(".explorer .answer")
        for use in (
            lambda: page.get_by_role("button", name="exchange the left digit").click(),
            lambda: page.locator("select.network").select_option(index=1),
        ):
            before = said.inner_text()
            use()
            assert said.inner_text() != before and page.locator("text=Traceback").count() == 0
    finally:
        os.killpg(lab.pid, signal.SIGTERM)
        lab.wait(30)


def test_an_explorer_of_convolutions_alone_is_one_line(results):
    (run,) = runs.complete(
        Settings(
            study="toy",
            architecture="cnn",
            epochs=1,
            pairs_per_epoch=256,
            test_pairs=100,
            device="cpu",
        )
    )
    with pytest.raises(InputError, match=r"^networks: none is small enough"):
        explorers.packed([(run, None)])
