"""Build the site of a study from its executed notebooks.

`python book/build.py STUDY` puts it into results/<study>/book/.

Code, texts and pictures of this repository are shown as they are. Of a study come only: source
code, text, PNG pictures, tables and plain Markdown, none of which can run, include or fetch
anything.
"""

import argparse
import json
import os
import re
import shutil
import tempfile
from base64 import b64decode, b64encode
from contextlib import suppress
from pathlib import Path

import bleach
import explorer
import nbformat
from markdown_it import MarkdownIt
from nbformat import NotebookNode, v4
from sphinx.cmd.build import main as sphinx

from modvar_lib import notebook
from modvar_lib.data import ROOT
from modvar_lib.errors import InputError, command
from modvar_lib.runs import study_folder

AS_THEY_ARE = ("12_two_arms", "13_predictions", "14_transfer")  # where nothing has executed them
PUBLISHED = "paper", "third"  # studies
EXPLORER = "<!-- explorer -->"  # where it goes
NO_SVG = shutil.ignore_patterns("*.svg")
TAGS = {
    *("h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "ul", "ol", "li", "blockquote"),
    *("em", "strong", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {"th": ["colspan", "rowspan"], "td": ["colspan", "rowspan"]}


def safe(html: str) -> str:
    """HTML of a study without what could run, fetch, style or lead anywhere."""
    html = re.sub(r"(?is)<(style|script)\b.*?</\1\s*>", "", html)  # what is in them is not text
    html = bleach.clean(html, tags=TAGS, attributes=ATTRIBUTES, strip=True)
    scrolls = '<div class="pst-scrollable-table-container"><table class="table dataframe">'
    return html.replace("<table>", scrolls).replace("</table>", "</table></div>")


def plain(text: str) -> str:
    """Markdown of a study as HTML: no markup of its own, no directives, no links."""
    return safe(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))


def fenced(html: str) -> str:
    """HTML as a part of a page; nothing in it ends that part."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", html)), default=0))
    return f"{fence}{{raw}} html\n{html}\n{fence}"


def output(found: NotebookNode) -> NotebookNode | None:
    """What is shown of an output of a cell: the richest form of it that is harmless."""
    if found.output_type == "stream":
        return v4.new_output("stream", text=str(found.text))
    if found.output_type == "error":
        return v4.new_output("stream", text=f"{found.ename}: {found.evalue}")
    shown, png = {}, b64decode(found.data.get("image/png", ""))
    if png.startswith(b"\x89PNG\r\n"):
        shown["image/png"] = b64encode(png).decode()
    elif "text/html" in found.data:
        shown["text/html"] = safe(found.data["text/html"])
    elif "text/markdown" in found.data:
        shown["text/html"] = plain(found.data["text/markdown"])
    elif "text/plain" in found.data:
        shown["text/plain"] = str(found.data["text/plain"])
    return v4.new_output("display_data", shown) if shown else None


def cleaned(executed: Path, original: Path) -> NotebookNode:
    """A notebook of a study, made anew of no more than the text of its cells, `output`, and words
    for figures. Cells that the repository's notebook has, too, are rendered in full."""
    own = nbformat.read(original, as_version=4)
    known, title = {cell.source: cell for cell in own.cells}, own.cells[0].source.splitlines()[0]
    cells = []
    try:
        for cell in nbformat.read(executed, as_version=4).cells:
            tags = known[cell.source].metadata.get("tags", []) if cell.source in known else None
            if cell.cell_type == "markdown":
                text = cell.source
                if tags is None:  # the page's name stays a heading
                    head = title if text.startswith(title) else ""
                    text = f"{head}\n\n{fenced(plain(text.removeprefix(head)))}"
                cells.append(v4.new_markdown_cell(text.strip()))
            elif tags and "explorer" in tags:
                cells.append(v4.new_markdown_cell(EXPLORER))
            elif cell.cell_type == "code":
                shown = [*filter(None, map(output, cell.outputs))]
                cells.append(v4.new_code_cell(str(cell.source), outputs=shown))
                for one in cell.outputs:
                    if words := one.get("metadata", {}).get("image/png", {}).get("alt"):
                        cells[-1].metadata["mystnb"] = {"image": {"alt": str(words)}}
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"study: {executed} is not an executed notebook ({why})") from None
    if not cells or not cells[0].source.startswith(title):
        cells.insert(0, v4.new_markdown_cell(title))
    return v4.new_notebook(cells=cells, metadata=own.metadata)


def executed(name: str, study: str) -> tuple[Path, str] | None:
    """Where a notebook is as it was executed, and a line that says so if it was not for this
    study."""
    if own := sorted(study_folder(study).glob(f"notebooks/{name}*.ipynb")):
        return own[0], ""
    for other in PUBLISHED if study in PUBLISHED else ():
        if (path := ROOT / "results" / other / "notebooks" / f"{name}.ipynb").is_file():
            return path, f"*This page is of the study `{other}`.*"
    if (path := ROOT / "tests" / "reference" / f"{name}.ipynb").is_file():
        return path, "*This page was executed at toy size. Its numbers mean nothing.*"
    path = ROOT / "notebooks" / f"{name}.ipynb"
    return (path, "*This page has not been executed.*") if name in AS_THEY_ARE else None


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
        if cell.cell_type == "code":
            cell.metadata["tags"] = ["hide-input"]
        together.append(cell)
    return together


def linked(text: str, at: str, source: Path, study: str) -> str:
    """A text of this repository, from the folder `at` of it, with links to what the site has; of
    other links into the repository the words are left."""

    def site(found: re.Match) -> str:
        target, mark, anchor = found["target"].partition("#")
        path = os.path.normpath(f"{at}/{target}")
        path = re.sub(f"^(book/|results/({re.escape(study)}|third)/(?=notebooks/))", "", path)
        if not target or ":" in target:
            return found[0]
        if not (source / path).is_file():
            return found["words"]
        here = "notebooks" if at == "notebooks" else "."
        return f"{found['start']}{found['words']}]({os.path.relpath(path, here)}{mark}{anchor})"

    return re.sub(r"(?P<start>!?\[)(?P<words>[^]]*)\]\((?P<target>[^)\s]+)\)", site, text)


def answer() -> str:
    """What README.md says between its title and its first picture."""
    return (ROOT / "README.md").read_text().partition("\n")[2].partition("\n![")[0].strip()


def networks(study: str) -> list:
    """What the explorer shows: networks of the study, then of the published ones what it lacks, and
    one as it was early in training."""
    found = {}
    for name in (study, *PUBLISHED):
        with suppress(InputError):  # a study without networks
            for run in explorer.networks(name):
                found.setdefault(run.settings.arm, run)
    young = [(run, min(run.frames)) for run in found.values() if run.frames][:1]
    return [(run, None) for run in found.values()] + young


def explored(study: str, static: Path) -> str:
    """The explorer as a part of a page that works from a disk, without a server; its networks go to
    a file that pages share."""
    try:
        packed = explorer.packed(networks(study))
    except InputError:  # there is nothing that it could show
        return ""
    static.joinpath("networks.js").write_text(f"window.networks = {json.dumps(packed)};")
    start = 'const root = document.getElementById("explorer");'
    mount = "root.explorer = mount(root, window.networks);"
    script = f'<script type="module">\n{explorer.SCRIPT.read_text()}\n{start}\n{mount}\n</script>'
    return fenced(
        f'<div id="explorer"></div>\n<script src="STATIC/networks.js"></script>\n{script}'
    )


def build(study: str) -> None:
    """Hand Sphinx the pages of this folder and the study's notebooks, of 02 and 03 those of its
    first group."""
    notebook.own_code()
    folder = study_folder(study)
    if not any(folder.glob("notebooks/*.ipynb")):
        raise InputError(
            f"study: {study!r} has no executed notebooks in {folder}; allowed: a study that make has run"
        )
    with tempfile.TemporaryDirectory() as temporary:
        source, site = Path(temporary, "source"), Path(temporary, "site")
        shutil.copytree(ROOT / "book", source)
        for published in PUBLISHED:
            figures = ROOT / "figures" / published
            if figures.is_dir():
                shutil.copytree(figures, source / "figures" / published, ignore=NO_SVG)
        pages = {}
        for original in sorted((ROOT / "notebooks").glob("*.ipynb")):
            if found := executed(original.stem, study):
                page = pages[source / "notebooks" / original.name] = cleaned(found[0], original)
                page.cells[0].source += f"\n\n{found[1]}"
                if original.stem != "10_your_own":  # where code is the matter
                    page.cells = folded(page.cells)
        (source / "notebooks").mkdir()
        for path in pages:
            path.touch()  # so that links to it stay
        shown = explored(study, source / "static")
        for path, page in pages.items():
            for cell in page.cells:
                if cell.cell_type == "markdown":
                    cell.source = linked(cell.source, "notebooks", source, study).replace(
                        EXPLORER, shown.replace("STATIC", "../_static")
                    )
            nbformat.write(page, path)
        headline = folder / "headline.md"
        headline = headline.read_text(errors="replace") if headline.is_file() else ""
        for path in source.glob("*.md"):
            text = linked(path.read_text(), "book", source, study)
            for mark, words in (
                (EXPLORER, shown.replace("STATIC", "_static")),
                ("<!-- answer -->", linked(answer(), ".", source, study)),
                ("<!-- headline -->", fenced(plain(headline))),
                ("<!-- study -->", study),
            ):
                text = text.replace(mark, words)
            path.write_text(text)
        words = ["-q", "-d", f"{temporary}/doctrees", "-D", f"html_title=modvar: {study}"]
        if sphinx([*words, str(source), str(site)]):
            raise InputError("book: Sphinx could not build it; see above")
        shutil.rmtree(folder / "book", ignore_errors=True)
        shutil.move(site, folder / "book")
    print(f"made {folder / 'book' / 'index.html'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a folder of results/ that has executed notebooks")
    command(lambda: build(parser.parse_args().study))
