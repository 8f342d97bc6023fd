"""Record the explorer for README.

`python book/record.py` makes figures/paper/explorer.gif. It needs Chromium, and playwright, which
`make test` installs. The right digit is exchanged in two towers, in a network on fixed goals and in
one on varying goals of the same size. What they do is in the committed networks; the same machine
makes the same file.
"""

import argparse
import io
import json
import shutil

import explorer
from PIL import Image
from playwright.sync_api import sync_playwright

from modvar_lib.data import ROOT

TO = ROOT / "figures" / "paper" / "explorer.gif"
NETWORKS = {
    "MNIST-towers-fixed": "Two towers, one for each digit",
    "MNIST-mlp-fixed": "One network, always asked for x + y",
    "MNIST-mlp-varying-standardised": "One network, asked for a·x + b·y, with ever new a and b",
}
SHOWN, WIDTH, COLOURS = (7, 4, 1), 660, 160  # right digits, in turn; pixels; of the palette
LOOK = """
body { font: 16px sans-serif; margin: 0; background: #fff }
h2 { font-size: 20px; margin: 10px 0 4px 10px }
main .explorer { border: 0; margin: 0 }
main .explorer > p, main .explorer fieldset p { display: none }
main .explorer .board { grid-template-columns: 260px 1fr }
main .explorer .answer { min-height: 0 } main .explorer .answer p:last-child { display: none }
main fieldset.now canvas { outline: 4px solid #cca000 }
"""


def frames(page) -> list[tuple[Image.Image, int]]:
    """Pictures, each with how long it is to be seen, in milliseconds."""
    made = []

    def take(duration: int, pressed: bool = False) -> None:
        mark = "on => document.querySelectorAll('fieldset')[1].classList.toggle('now', on)"
        page.evaluate(mark, pressed)
        picture = Image.open(io.BytesIO(page.screenshot()))
        made.append((picture.convert("RGB"), duration))

    for n, title in enumerate(NETWORKS.values()):
        page.evaluate("words => (document.querySelector('h2').textContent = words)", title)
        page.locator("select.network").evaluate(
            "(one, n) => { one.value = n; one.dispatchEvent(new Event('change')) }", str(n)
        )
        for digit in SHOWN:
            page.evaluate("digit => window.made.exchange(1, digit)", digit)
            take(400, pressed=True)
            take(1600)
    return made


def record() -> None:
    """Draw the frames, reduce their colours to one palette, and write the file."""
    found = {run.path.parent.name: run for run in explorer.networks("paper")}
    packed = json.dumps(explorer.packed([(found[arm], None) for arm in NETWORKS]))
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 100}, offline=True)
        page.set_content(f"<style>{LOOK}</style><main><h2></h2><div id=explorer></div></main>")
        start = "window.made = mount(document.getElementById('explorer'), data)"
        script = f"{explorer.SCRIPT.read_text()}\nconst data = {packed};\n{start}"
        page.add_script_tag(content=script, type="module")
        page.locator("canvas.units").first.wait_for()
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": WIDTH, "height": height + 18})
        made = frames(page)
        browser.close()
    sheet = Image.new("RGB", (WIDTH, sum(picture.height for picture, _ in made)))
    for n, (picture, _) in enumerate(made):
        sheet.paste(picture, (0, n * picture.height))
    palette = sheet.quantize(COLOURS, dither=Image.Dither.NONE)
    small = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture, _ in made]
    durations = [duration for _, duration in made]
    small[0].save(TO, save_all=True, append_images=small[1:], duration=durations, loop=0)
    print(f"made {TO.relative_to(ROOT)}: {TO.stat().st_size / 1e6:.2f} MB, {len(small)} frames")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    record()
