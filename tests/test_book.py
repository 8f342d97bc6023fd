"""The site of the published study: complete, offline, and usable by everybody who opens it; and the
explorer in a JupyterLab."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import torch
from nbformat import v4

from modvar_lib import data, models, runs
from modvar_lib.errors import InputError
from modvar_lib.settings import Settings

sys.path.append(str(data.ROOT / "book"))
import explorer as explorers

STUDY = "paper"
NOTEBOOKS = sorted(path.stem for path in (data.ROOT / "notebooks").glob("*.ipynb"))


HOSTILE = """# A title

```{{include}} {secret}
```
```{{literalinclude}} {secret}
```
```{{raw}} html
<script>window.hit = 1</script>
```
```{{eval-rst}}
.. include:: {secret}
```
{{download}}`here <{secret}>` [a](javascript:hit=1) [b]({secret}) ![c](http://elsewhere.test/c.png)
<script>window.hit = 2</script> <img src=x onerror="hit=3"> <iframe src="{secret}"></iframe>
$\\href{{javascript:hit=4}}{{x}}$ `` ``` ````` `` <!-- explorer -->

| a | b |
|---|---|
| <script>window.hit = 5</script> | ````````{{raw}} html |
"""


def build(study, **env):
    words = sys.executable, "book/build.py", study
    return subprocess.run(
        words, cwd=data.ROOT, env=os.environ | env, capture_output=True, text=True
    )


def built(study, folder):
    """A site, without a warning."""
    done = build(study, MODVAR_RESULTS=str(folder))
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder / study / "book"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built in an empty results folder, from the committed notebooks."""
    folder, of = tmp_path_factory.mktemp("site"), data.ROOT / "results" / STUDY
    for name in ("notebooks", "runs"):
        shutil.copytree(of / name, folder / STUDY / name)
    shutil.copy(of / "headline.md", folder / STUDY)
    return built(STUDY, folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A study of few notebooks, one of which would execute, include, fetch and script."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "secret").write_text("THE SECRET")
    words, made = HOSTILE.format(secret=folder / "secret"), folder / "made"
    plain, script = {"text/plain": "x"}, "<script>window.hit = 6</script>"
    outputs = [
        {"text/html": f"<table onclick='hit=7'><tr><td>{script}kept</td></tr></table>{words}"},
        {"image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg'>{script}</svg>"},
        {"application/javascript": "window.hit = 8", **plain},
        {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, **plain},
        {"text/markdown": words},
        {"text/latex": "$\\href{javascript:hit=9}{x}$"},
        {"image/png": "bm8gcGljdHVyZQ=="},
        {"image/png": b64encode((data.ROOT / "figures/paper/units.png").read_bytes()).decode()},
    ]
    code = v4.new_code_cell(
        f"from pathlib import Path; Path({str(made)!r}).write_text('executed')",
        outputs=[
            v4.new_output("display_data", one, metadata={"image/png": {"alt": f'">{script}'}})
            for one in outputs
        ]
        + [v4.new_output("error", ename="E", evalue=words, traceback=[words])],
        metadata={"mystnb": {"image": {"alt": script}, "figure": {"caption": words}}},
    )
    raw = v4.new_raw_cell(script, metadata={"format": "text/html", "raw_mimetype": "text/html"})
    evil = v4.new_notebook(
        cells=[v4.new_markdown_cell(words), code, raw],
        metadata={
            "mystnb": {"execution_mode": "force", "execution_allow_errors": True},
            "file_format": "mystnb",
            "kernelspec": {"name": "python3", "display_name": "x", "language": "python"},
        },
    )
    (folder / "mine" / "notebooks").mkdir(parents=True)
    nbformat.write(evil, folder / "mine" / "notebooks" / "06_ruler.ipynb")
    of = data.ROOT / "results" / STUDY / "notebooks"
    shutil.copy(of / "05_why_the_score_moves.ipynb", folder / "mine" / "notebooks")
    (folder / "mine" / "headline.md").write_text(words)
    return built("mine", folder)


def test_nothing_of_a_study_runs_or_is_included(hostile):
    assert not (hostile.parents[1] / "made").exists(), "executed"
    for path in hostile.rglob("*"):
        assert path.is_dir() or b"THE SECRET" not in path.read_bytes(), path
    for name in ("index.html", "notebooks/06_ruler.html"):
        page = Page(hostile / name)
        assert page.scripts and not any("hit" in text for text in page.scripts), name
        assert not any(
            (key.startswith("on") and "hit" in value)
            or value.startswith(("javascript:", "http://elsewhere"))
            for key, value in page.attributes
        )
        assert "iframe" not in page.tags and "A title" in page.path.read_text()
    assert "kept</td>" in (hostile / "notebooks" / "06_ruler.html").read_text()


def test_a_study_without_some_notebooks_has_no_dead_links(hostile):
    every_link_leads_somewhere({path: Page(path) for path in own_pages(hostile)})
    assert not (hostile / "notebooks" / "07_controls.html").exists()


def test_nothing_of_a_study_runs_in_a_browser(hostile, browser):
    page = browser.new_page(offline=True)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for name in ("index", "notebooks/06_ruler"):
        page.goto(f"file://{hostile / name}.html")
        page.wait_for_timeout(1500)
        assert page.evaluate("window.hit === undefined")
        assert not page.locator("a[href^='javascript'], [*|href^='javascript']").count()
    assert all(url.startswith(("file:", "data:")) for url in asked)
    page.close()


def test_the_first_page_opens_with_the_answer(site, hostile):
    """README's own words, and a picture, before any table."""
    question = (data.ROOT / "README.md").read_text().split("*")[1]
    for folder in (site, hostile):
        text = (folder / "index.html").read_text()
        assert text.index(question) < text.index("units.png") < text.index("<table")


class Page(HTMLParser):
    """Its links, its ids, and images without words for them."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.links, self.ids, self.silent = path, [], set(), []
        self.tags, self.attributes, self.scripts, self.within = set(), [], [], ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        self.attributes += [(key, value or "") for key, value in attributes]
        self.within = tag
        self.ids.add(values.get("id"))
        self.links += [(tag, values[key]) for key in ("href", "src") if values.get(key)]
        if tag == "img" and not values.get("alt"):
            self.silent.append(values.get("src"))

    def handle_data(self, text):
        if self.within == "script":
            self.scripts.append(text)

    def handle_endtag(self, tag):
        self.within = ""


def own_pages(site):
    return [path for path in site.rglob("*.html") if "_static" not in path.parts]


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in own_pages(site)}


def test_every_notebook_is_a_page(site):
    assert {path.stem for path in site.glob("notebooks/*.html")} == set(NOTEBOOKS)
    assert {"index.html", "search.html", "searchindex.js"} <= {path.name for path in site.iterdir()}


def test_notebooks_that_the_study_did_not_execute_are_shown_with_outputs_and_say_so(site):
    for name, says in (
        ("02_train", "Its numbers mean nothing"),
        ("03_metric", "Its numbers mean nothing"),
        ("10_your_own", "Its numbers mean nothing"),
        ("13_predictions", "of the study"),
    ):
        text = (site / "notebooks" / f"{name}.html").read_text()
        assert says in text and "cell_output" in text, name


def test_pages_lead_somewhere_fetch_nothing_and_describe_their_pictures(pages):
    every_link_leads_somewhere(pages)
    for page in pages.values():
        loaded = [link for tag, link in page.links if tag in ("script", "link", "img")]
        assert not any(urlsplit(link).netloc for link in loaded), page.path.name
        assert page.silent == [], page.path.name


def every_link_leads_somewhere(pages):
    for page in pages.values():
        for _, link in page.links:
            parts = urlsplit(link)
            if not parts.scheme and not parts.netloc:
                target = (page.path.parent / unquote(parts.path)).resolve()
                target = target if parts.path else page.path
                assert target.exists(), (page.path.name, link)
                if parts.fragment and target in pages:
                    assert unquote(parts.fragment) in pages[target].ids, (page.path.name, link)


def test_a_study_without_notebooks_is_one_line(results):
    assert build("nothing").stderr.startswith(
        "InputError: study: 'nothing' has no executed notebooks"
    )


@pytest.mark.parametrize("text", ["[]", "{", '{"cells": [7], "nbformat": 4, "metadata": {}}'])
def test_a_notebook_that_is_none_is_one_line(results, text):
    (results / "odd" / "notebooks").mkdir(parents=True)
    (results / "odd" / "notebooks" / "06_ruler.ipynb").write_text(text)
    done = build("odd")
    assert re.search(r"^InputError: study: \S+06_ruler.ipynb is not an executed", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize(
    "name",
    ["index", "article", "notebooks/04_analysis", "notebooks/07_controls", "notebooks/09_explore"],
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
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
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
    rows = [int(row) for d in range(10) for row in torch.where(digits.labels == d)[0][:3]]
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
            agree(seen, shown)


def agree(seen, shown, least=1):
    """Activations as PyTorch has them and as the page has them."""
    wanted = [value[0] for (_, when), value in seen.items() if when == "post"]
    for layer, values in zip(wanted, shown, strict=True):
        assert torch.allclose(
            layer, torch.tensor(values), atol=1e-3 * max(least, float(layer.abs().max()))
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


def test_on_a_phone_all_is_in_view_and_nothing_jumps(site, browser):
    """Digits side by side; the strips, a row of each named, on one screen with the buttons; after an
    exchange all is where it was."""
    page = browser.new_page(viewport={"width": 390, "height": 844}, offline=True)
    page.goto(f"file://{site / 'notebooks' / '09_explore.html'}")
    page.locator(".explorer canvas.units").first.wait_for(timeout=20_000)
    everything = page.locator(".explorer, .explorer :is(.answer, canvas, button)")

    def places():
        boxes = everything.evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().toJSON())"
        )
        return [(box["x"], box["y"] - boxes[0]["y"], box["width"], box["height"]) for box in boxes]

    left, right = (page.locator("canvas.digit").nth(side).bounding_box() for side in (0, 1))
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    last = page.locator("canvas.units").last.bounding_box()
    assert last["y"] + last["height"] - page.locator(".explorer").bounding_box()["y"] < 600
    rows = page.locator(".strip").first.locator("span").all_inner_texts()
    assert rows == ["before", "after", "change"]
    before = places()
    for _ in range(5):
        for side in ("left", "right"):
            page.get_by_role("button", name=f"exchange the {side} digit").click()
            assert places() == before
    page.close()


def test_networks_that_are_not_matrices_are_explored_too(results, browser):
    """A transformer: all layers, before and after its average, for every pair of ten digits, as
    PyTorch has them; drawing is for networks of matrices."""
    sizes = {"epochs": 2, "period": 1, "pairs_per_epoch": 512, "test_pairs": 100, "device": "cpu"}
    for architecture in ("vit", "towers"):
        runs.complete(Settings(study="toy", architecture=architecture, regime="varying", **sizes))
    towers, vit = explorers.networks("toy")
    packed = explorers.packed([(vit, None), (towers, None)])
    page = browser.new_page(viewport={"width": 800, "height": 900}, offline=True)
    page.set_content('<div id="explorer"></div>')
    start = f'{explorers.SCRIPT.read_text()}\nconst root = document.querySelector("#explorer");'
    page.add_script_tag(
        content=f"{start} root.explorer = mount(root, {json.dumps(packed)});", type="module"
    )
    heads = [head.split(",")[0] for head in page.locator(".strip h3").all_inner_texts()]
    assert heads == ["patches", "block1", "block2", "mean", "bottleneck"]
    _, digits = data.digits("MNIST")
    first = [int(torch.where(digits.labels == digit)[0][0]) for digit in range(10)]
    with torch.no_grad():
        pair = data.halves(digits.images, torch.tensor([[first[9], first[4]]]))
        _, seen = models.activations(vit.network(), pair)
    use = "document.querySelector('#explorer').explorer"
    shown = page.evaluate(f"{use}.activations(0, 3 * 9, 3 * 4)")
    agree(seen, shown, least=0)
    said, clear = page.locator(".answer"), page.get_by_role("button", name="clear the left digit")
    page.evaluate(f"{use}.exchange(0, 8)")
    assert "After: 8 and 4" in said.inner_text() and clear.is_disabled()
    page.locator("select.network").select_option(index=1)
    clear.click()
    assert "After: your and 4" in said.inner_text()
    page.locator("select.network").select_option(index=0)
    assert "After: 0 and 4" in said.inner_text()
    page.close()


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
    folders = {"JUPYTER_CONFIG_DIR": f"{tmp_path}/c", "JUPYTERLAB_SETTINGS_DIR": f"{tmp_path}/s"}
    with (tmp_path / "log.txt").open("w") as log:
        lab = subprocess.Popen(
            [sys.executable, *words.split()],
            env=os.environ | folders,
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
    sizes = {"epochs": 1, "pairs_per_epoch": 256, "test_pairs": 100, "device": "cpu"}
    (run,) = runs.complete(Settings(study="toy", architecture="cnn", **sizes))
    with pytest.raises(InputError, match=r"^networks: none is small enough"):
        explorers.packed([(run, None)])
