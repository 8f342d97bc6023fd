"""The explorer: its numbers are those of the measures, and it answers in a real JupyterLab."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from modvar_lib import data, explore, models, runs
from modvar_lib.errors import InputError
from modvar_lib.metrics.activation_change import score
from modvar_lib.metrics.selectivity import selectivity
from modvar_lib.metrics.subject import Subject

SIZE = {"epochs": 4, "period": 2, "final_epochs": 1, "pairs_per_epoch": 3000, "frames": 2}


@pytest.fixture
def study(toy, results):
    """Two networks, one with frames."""
    explore._served.cache_clear()
    (framed,) = runs.complete(toy(**SIZE, regime="varying"))
    (plain,) = runs.complete(toy(**{**SIZE, "frames": 0}, architecture="towers"))
    return framed, plain


def moved(picture, swapped) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(picture.png(swapped))))


def test_a_swap_is_what_the_measures_see(study, splits):
    run, _ = study
    _, digits = splits
    rows = explore.rows_of(digits, 3, 4, 9, "left", np.random.default_rng(0))
    assert digits.labels[rows].tolist() == [[3, 4], [9, 4]] and rows[0, 1] == rows[1, 1]
    found = explore.swap(run.network(), digits, rows)
    with torch.no_grad():
        answers, seen = models.activations(run.network(), data.halves(digits.images, rows))
    assert torch.equal(found.answers, answers)
    assert list(found.activations) == ["hidden1", "hidden2", "bottleneck"]
    for layer in found.activations:
        v, w = seen[layer, "post"]
        assert found.scores[layer] == score(v, w).item()
    pooled = torch.cat([seen[layer, "post"] for layer in found.activations], 1)
    assert found.scores["pooled"] == pytest.approx(score(*pooled).item())


def test_units_are_in_the_order_of_the_side_they_serve(study, splits):
    _, towers = study
    picture = explore.Picture(towers, 4)
    draws = torch.from_numpy(data.evaluation_pairs(0, explore.DRAWS, len(splits[1])))
    with torch.no_grad():
        subject = Subject(towers.network(), splits[1], draws)
        served = subject.sides("hidden2")
    order = picture.order["hidden2"]
    left = served["left"].numpy()[order]
    assert left[: left.sum()].all() and 20 < left.sum() <= 32
    assert served["right"].numpy()[order][-20:].all()
    rows = explore.rows_of(splits[1], 3, 4, 9, "right", np.random.default_rng(0))
    picture.put(explore.swap(picture.network, picture.digits, rows))
    change = np.asarray(picture.strips["hidden2"][0].get_array())[2]
    assert (change[:20] == 1).all()  # units of the left tower do not move: white
    assert (change[32:] < 1).any()


def test_the_picture_changes_with_the_swap_the_epoch_and_the_network(study, splits):
    framed, plain = study
    rng = np.random.default_rng(0)
    one, two = (explore.rows_of(splits[1], 3, 4, new, "right", rng) for new in (9, 0))
    pictures = {}
    for run, epochs in ((framed, 0), (framed, 2), (framed, 4), (plain, 4)):
        picture = explore.Picture(run, epochs)
        for name, rows in (("one", one), ("two", two), ("again", one)):
            swapped = explore.swap(picture.network, splits[1], rows)
            pictures[run.path.parent.name, epochs, name] = moved(picture, swapped)
    again = {k: v for k, v in pictures.items() if k[2] == "again"}
    assert all((v == pictures[k[0], k[1], "one"]).all() for k, v in again.items())
    different = [v for k, v in pictures.items() if k[2] != "again"]
    assert all((a != b).any() for i, a in enumerate(different) for b in different[:i])
    with pytest.raises(InputError, match=r"epochs: got 3; kept of seed-000: \[0, 2, 4\]"):
        explore.Picture(framed, 3)


def test_the_ruler_is_the_studys_or_none(study):
    run, _ = study
    title = lambda picture: picture.figure.axes[-1].get_title(loc="left")  # noqa: E731
    assert explore.scale_of("toy") is None
    picture = explore.Picture(run, 4, None)
    assert "no ruler" in title(picture)
    own = picture.figure.axes[-1].lines[1].get_xdata()[0]
    assert own == pytest.approx(selectivity(picture.layers["hidden1"]))
    ends = {"towers fixed": 0.9, "towers fixed, rotated": 0.1, "mlp fixed": 0.5}
    scale = [
        (k, layer, "side_selectivity", v)
        for k, v in ends.items()
        for layer in ("hidden1", "hidden2")
    ]
    scale = pd.DataFrame(scale, columns=["network", "layer", "measure", "mean"])
    placed = explore.Picture(run, 4, scale)
    assert "on the ruler" in title(placed)
    x = [line.get_xdata()[0] for line in placed.figure.axes[-1].lines if len(line.get_xdata()) == 1]
    assert x[0] == pytest.approx(0.5) and x[2] == pytest.approx((own - 0.1) / 0.8)


def test_a_silent_network_and_one_that_is_not_finite(study, monkeypatch):
    _, plain = study
    silent = {k: torch.zeros_like(v) for k, v in plain.weights.items()}
    monkeypatch.setattr(runs.Run, "network", lambda run, epochs=None: _with(run, silent))
    figure = explore.still(plain)
    assert "silent, no score" in figure.axes[2].get_title(loc="left")
    explore._served.cache_clear()
    broken = {k: v * float("nan") for k, v in plain.weights.items()}
    monkeypatch.setattr(runs.Run, "network", lambda run, epochs=None: _with(run, broken))
    with pytest.raises(InputError, match=r"network: the weights of seed-000 are not finite"):
        explore.still(plain)
    explore._served.cache_clear()


def _with(run, weights):
    network = runs.network_of(run.settings)
    network.load_state_dict(weights)
    return network


def test_by_hand_without_a_browser(study):
    explorer = explore.Explorer("toy")
    assert [name for name, _ in explorer.network.options] == [
        "MNIST-mlp-varying, seed-000",
        "MNIST-towers-fixed, seed-000",
    ]
    assert explorer.epoch.options == (0, 2, 4) and explorer.epoch.value == 4
    seen = [explorer.picture.value]
    for press in (
        explorer.again.click,
        explorer.others.click,
        lambda: setattr(explorer.epoch, "value", 2),
        lambda: setattr(explorer.side, "value", "left"),
        lambda: setattr(explorer.left, "value", 7),
        lambda: setattr(explorer.network, "value", study[1].path),
    ):
        press()
        assert explorer.picture.value not in seen
        seen.append(explorer.picture.value)
    assert explorer.epoch.options == (0, 4)
    examples = explorer.rows
    explorer.epoch.value, explorer.network.value = 0, study[0].path
    assert torch.equal(explorer.rows, examples)  # the same, to compare epochs and networks
    explorer.others.click()
    assert not torch.equal(explorer.rows, examples)
    assert re.search(r"Answer .* before, .* after. Score: hidden1 ", explorer.said.value)
    with pytest.raises(InputError, match=r"study: 'nothing' has no runs"):
        explore.Explorer("nothing")


def test_in_jupyterlab(study, browser, tmp_path):
    """Run all cells of the notebook, then use every control: the picture answers, and nothing is an error."""
    source = (data.ROOT / "notebooks" / "09_explore.ipynb").read_text()
    (tmp_path / "09_explore.ipynb").write_text(source.replace("published/paper", "toy"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = f"-m jupyter lab --no-browser --allow-root --port={port} --IdentityProvider.token=t"
    command += f" --ServerApp.root_dir={tmp_path}"
    here = os.environ | {
        "JUPYTER_CONFIG_DIR": str(tmp_path / "c"),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "s"),
    }
    log = (tmp_path / "log.txt").open("w")
    lab = subprocess.Popen(
        [sys.executable, *command.split()],
        env=here,
        stdout=log,
        stderr=log,
        cwd=data.ROOT,
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
        image = page.locator("img.widget-image, .jupyter-widgets img").first
        image.wait_for(timeout=120_000)

        def answers(action) -> None:
            before = image.get_attribute("src")
            action()
            page.wait_for_function(
                "old => document.querySelector('img.widget-image, .jupyter-widgets img').src != old",
                arg=before,
                timeout=30_000,
            )

        swaps = [
            page.evaluate(
                """() => new Promise(done => {
                    const image = document.querySelector(".jupyter-widgets img"), started = performance.now();
                    new MutationObserver(() => done(performance.now() - started)).observe(image, {attributeFilter: ["src"]});
                    [...document.querySelectorAll(".jupyter-widgets button")].find(one => one.innerText == "exchange").click();
                })"""
            )
            for _ in range(9)
        ]
        answers(page.get_by_role("button", name="other examples").click)
        answers(lambda: page.get_by_label("exchange", exact=True).select_option("left"))
        answers(lambda: page.locator(".jupyter-widgets .noUi-handle").press("ArrowLeft"))
        answers(lambda: page.get_by_label("network", exact=True).select_option(index=1))
        assert "Answer" in page.locator("p[role=status]").inner_text()
        assert (
            page.locator(
                ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']"
            ).count()
            == 0
        )
        assert page.locator("text=Traceback").count() == 0
        page.screenshot(path=os.environ.get("MODVAR_SCREENSHOT", str(tmp_path / "lab.png")))
        print(f"from a click to the new picture: median {sorted(swaps)[4]:.0f} ms of {len(swaps)}")
    finally:
        os.killpg(lab.pid, signal.SIGTERM)
        lab.wait(30)
