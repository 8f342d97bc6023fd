"""Build the site of a study from its executed notebooks: python book/build.py STUDY. It lands in
results/<study>/book/."""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import explorer
import nbformat
from sphinx.cmd.build import main as sphinx

from modvar_lib import runs
from modvar_lib.data import ROOT
from modvar_lib.errors import InputError, command
from modvar_lib.runs import study_folder

AS_THEY_ARE = (
    "01_data",
    "02_train",
    "03_metric",
    "10_your_own",
)  # shown without outputs where no executed copy is


def explored() -> str:
    """The explorer with the networks of the published study, in one piece with the page, so that it
    works from a disk."""
    networks = [
        runs.load(path, "paper")
        for path in sorted((ROOT / "results" / "paper" / "runs").glob("*/seed-*"))
    ]
    if not networks:
        return ""
    young = [(run, min(run.frames)) for run in networks if run.frames][
        :1
    ]  # a page has room for one
    packed = explorer.packed([(run, None) for run in networks] + young)
    start = f'const root = document.getElementById("explorer"), data = {json.dumps(packed)};'
    script = f'<script type="module">\n{explorer.SCRIPT.read_text()}\n{start}\nroot.explorer = mount(root, data);\n</script>'
    return f'```{{raw}} html\n<div id="explorer"></div>\n{script}\n```'


def folded(cells: list) -> list:
    """Code is folded until it is asked for, and cells that show nothing are folded into the one
    after them."""
    together = []
    for cell in cells:
        if (
            together
            and cell.cell_type == together[-1].cell_type == "code"
            and not together[-1].outputs
        ):
            cell.source = f"{together.pop().source}\n\n{cell.source}"
        cell.metadata.setdefault("tags", []).append("hide-input")
        together.append(cell)
    return together


def build(study: str) -> None:
    """Hand Sphinx the pages of this folder and the study's notebooks, of 02 and 03 those of its
    first group."""
    folder = study_folder(study)
    if not any(folder.glob("notebooks/*.ipynb")):
        raise InputError(
            f"study: {study!r} has no executed notebooks in {folder}; allowed: a study that make has run"
        )
    with tempfile.TemporaryDirectory() as temporary:
        source, site = Path(temporary, "source"), Path(temporary, "site")
        shutil.copytree(ROOT / "book", source)
        shutil.copytree(
            ROOT / "figures" / "paper", source / "figures", ignore=shutil.ignore_patterns("*.svg")
        )
        (source / "notebooks").mkdir()
        for original in sorted((ROOT / "notebooks").glob("*.ipynb")):
            executed = sorted(folder.glob(f"notebooks/{original.stem}*.ipynb"))
            if executed or original.stem in AS_THEY_ARE:
                page = nbformat.read([*executed, original][0], as_version=4)
                if original.stem != "10_your_own":  # where code is the matter
                    page.cells = folded(page.cells)
                for cell in page.cells:
                    for output in cell.get("outputs", []):
                        if words := output.get("metadata", {}).get(
                            "image/png"
                        ):  # for those who do not see the figure
                            cell.metadata["mystnb"] = {"image": {"alt": words["alt"]}}
                    if (
                        cell.cell_type == "markdown"
                    ):  # links to files of the repository, which the site has not
                        cell.source = re.sub(r"\[([^]]*)\]\(\.\./[^)]*\)", r"\1", cell.source)
                nbformat.write(page, source / "notebooks" / original.name)
        headline = folder / "headline.md"
        article = source / "article.md"
        text = (
            article.read_text()
            .replace("../figures/paper/", "figures/")
            .replace("../results/paper/notebooks/", "notebooks/")
        )
        article.write_text(text.replace("<!-- explorer -->", explored()))
        (source / "headline.md").write_text(headline.read_text() if headline.exists() else "")
        if sphinx(
            [
                "-q",
                "-d",
                f"{temporary}/doctrees",
                "-D",
                f"html_title=modvar: {study}",
                str(source),
                str(site),
            ]
        ):
            raise InputError("book: Sphinx could not build it; see above")
        shutil.rmtree(folder / "book", ignore_errors=True)
        shutil.move(site, folder / "book")
    print(f"made {folder / 'book' / 'index.html'}")


if __name__ == "__main__":
    command(lambda: build(*sys.argv[1:2]))
