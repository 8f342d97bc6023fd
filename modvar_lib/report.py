"""A study as a site to read: python -m modvar_lib.report STUDY (or make report STUDY=...).

results/<study>/report/ has index.html, figures.html, networks.html and a page a notebook, with the images that they show. It
opens from disk and fetches nothing. Names, texts and tables may be those of strangers: Jinja escapes every string, and what
notebooks and Markdown hold passes one list of allowed HTML. The same study makes the same bytes.
"""

import base64
import os
import re
import shutil
import sys
import tempfile
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote

import bleach
import itables.options
import numpy as np
import pandas as pd
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import InvalidNotebook
from nbformat import NotebookNode, ValidationError
from nbformat.v4 import new_markdown_cell, new_notebook
from PIL import Image
from traitlets.config import Config

from modvar_lib import data, files, notebook, runs
from modvar_lib.errors import InputError, command

TEMPLATES = Path(__file__).parent / "templates"
PAGES = ("index", "figures", "networks")
MAIN = ("ruler", "headline")  # figures that the first page shows
SCORE = "## The score, beside the original's\n\n"
ROWS = 20  # of a table below its figure
NETWORKS = 10_000  # that are listed
SIZE = 100_000_000  # bytes that an image may have
KINDS = ["text/html", "text/markdown", "image/png", "image/jpeg", "text/plain"]  # of an output
TAGS = set(
    "a abbr b blockquote br code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre s samp"
    " small span strong sub summary sup table tbody td th thead tr tt u ul var".split()
)
ATTRIBUTES = {
    "a": ["href"],
    "img": ["src", "alt"],
    "ol": ["start"],
    **{tag: ["rowspan", "colspan"] for tag in ("th", "td")},
    **{tag: ["class"] for tag in ("div", "span", "details", "table")},
    **{tag: ["id"] for tag in ("h1", "h2", "h3", "h4", "h5", "h6")},
}
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$", re.DOTALL)  # as Jupyter has it
MATHML = set(  # tags of a formula; their attributes below
    "math mfrac mi mn mo mover mphantom mroot mrow mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder"
    " munderover".split()
)
SHAPE = {"*": ["accent", "display", "fence", "form", "mathvariant", "stretchy", "width"]}
MEASURES = {  # columns of networks.html: a measure of the layer before the bottleneck
    "selectivity": "side_selectivity",
    "by chance": "side_selectivity_rotated",
    "interaction": "interaction",
    "interchange error": "interchange_error",
}


def make(study: str, folder: Path) -> Path:
    """Write the report of the study in a folder, which replaces the one before; its first page."""
    for name in ("runs.csv", "history.csv", "measures.csv"):
        if not (folder / name).is_file():
            raise InputError(
                f"study: {study!r} has no {folder / name}; measure its runs first, with 03_metric.ipynb"
            )
    with files.locked(folder / f".{files.SUMS}.lock", waiting=f"{folder} is in use; waiting"):
        for killed in folder.glob(".report-*"):
            shutil.rmtree(killed)
        aside = Path(tempfile.mkdtemp(prefix=".report-", dir=folder))
        build(study, folder, aside)
        aside.chmod(0o755)
        if (folder / "report").exists():
            (folder / "report").rename(aside.with_name(f"{aside.name}-old"))
        aside.rename(folder / "report")
        shutil.rmtree(aside.with_name(f"{aside.name}-old"), ignore_errors=True)
    return folder / "report" / "index.html"


def build(study: str, folder: Path, out: Path) -> None:
    """Write the pages of a study into an empty folder `out`, as for folder/report."""
    about, history, measures = (
        _table(folder / f"{name}.csv") for name in ("runs", "history", "measures")
    )
    notebooks = {path.stem: path for path in _plain(folder / "notebooks", "*.ipynb")}
    if taken := set(notebooks) & set(PAGES):
        raise InputError(f"notebook: {folder} has one called {taken.pop()}; allowed: other names")
    figures = [_figure(path, folder) for path in _plain(_figures_of(study, folder), "*.png")]
    (out / "figures").mkdir()
    for figure in figures:
        (out / "figures" / figure["png"]).write_bytes(files.read(figure["path"], SIZE))
    exporter, executed, left_out = _exporter(), {}, []
    for stem, path in notebooks.items():
        try:
            executed[stem] = _notebook(exporter, path, figures, out)
        except (
            InputError
        ) as error:  # what it made may be whole: a kill cuts the record of a training
            left_out.append(f"left out: {error}")
            print(left_out[-1])
    links = {path.name: quote(f"../{path.name}") for path in _plain(folder, "*.csv")}
    links |= {f"{stem}.ipynb": quote(f"{stem}.html") for stem in executed}
    links |= {figure["png"]: quote(f"figures.html#{figure['name']}", "#") for figure in figures}

    def markdown(text: str) -> Markup:
        page = exporter.from_notebook_node(new_notebook(cells=[new_markdown_cell(text)]))[0]
        return Markup(_clean(page, links, out))

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"study": study, "links": links, "cells": cells}

    def write(name: str, template: str, **values) -> None:
        page = environment.get_template(f"{template}.html.j2").render(page=name, **values)
        (out / f"{name}.html").write_text(page)

    titles = {}
    for stem, html in executed.items():
        body = _clean(html, links, out)
        titles[stem] = body.h1.extract().get_text() if body.h1 else stem
        sections = [(h["id"], h.get_text()) for h in body("h2") if h.get("id")]
        write(stem, "notebook", title=titles[stem], sections=sections, body=Markup(body))
    for figure in figures:
        figure["data"] = {name: _table(folder / name) for name in figure["tables"]}
    write("figures", "figures", figures=figures, rows=ROWS)
    networks = _networks(about, history, measures)
    bundle = Path(itables.options.dt_bundle)
    shutil.copyfile(bundle.with_suffix(".css"), out / "datatables.css")
    script = base64.b64encode(bundle.read_bytes()).decode()
    write("networks", "networks", networks=networks, most=NETWORKS, script=script)
    headline, difference = folder / "headline.md", folder / "difference.csv"
    write(
        "index",
        "index",
        answer=markdown(_answer(study)),
        headline=markdown(SCORE + headline.read_text() if headline.is_file() else ""),
        difference=_table(difference).drop(columns="note", errors="ignore")
        if difference.is_file()
        else None,
        main=[figure for name in MAIN for figure in figures if figure["name"] == name],
        arms=networks.groupby(runs.KEYS[:-1], sort=False, as_index=False).agg(
            networks=("seed", "size"),
            failed=("failed", lambda failed: (failed == "yes").sum()),
            score=("score", "mean"),
        ),
        titles=titles,
        provenance=_provenance(about),
        mixed=[*runs.mixed(about), *left_out],
    )
    shutil.copyfile(TEMPLATES / "report.css", out / "report.css")


def cells(table: pd.DataFrame) -> list[list[str]]:
    """The rows of a table as texts: numbers to four digits, nothing for what is missing."""

    def text(value) -> str:
        if pd.isna(value):
            return ""
        if isinstance(value, float):
            return np.format_float_positional(value, 4, unique=False, fractional=False, trim="-")
        return str(value)

    return [[text(value) for value in row] for row in table.itertuples(index=False)]


def _exporter() -> HTMLExporter:
    """nbconvert's, with our cells; of an output it takes what can be made safe."""
    return HTMLExporter(
        config=Config(NbConvertBase={"display_data_priority": KINDS}),
        template_name="basic",
        template_file="cells.html.j2",
        extra_template_paths=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )


def _notebook(exporter: HTMLExporter, path: Path, figures: list[dict], out: Path) -> str:
    """The HTML of an executed notebook, its images written to files. It is not safe yet."""
    shown = {figure["alt"]: figure["png"] for figure in figures}
    try:
        executed = notebook.clean(path)
        for output in (o for cell in executed.cells for o in cell.get("outputs", [])):
            for kind in {"image/png", "image/jpeg"} & set(output.get("data", {})):
                content = base64.b64decode(output.data[kind])
                name = f"{files.digest(content)[:16]}.{kind.removeprefix('image/')}"
                (out / "figures" / name).write_bytes(content)
                alt = output.metadata.get(kind, {}).get("alt", "A figure without a description")
                output.metadata = NotebookNode(file=name, alt=alt, figure=shown.get(alt))
        return exporter.from_notebook_node(executed)[0]
    except InputError:
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ValidationError,
        InvalidNotebook,
    ) as error:
        why = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(f"notebook: {path} is damaged ({why}); execute it again") from None


def _clean(html: str, links: dict[str, str], out: Path) -> BeautifulSoup:
    """HTML of a stranger made safe: allowed tags alone, links to pages of the report and beside it, images of its own; its tables
    in frames that scroll, its formulas in MathML."""
    soup = BeautifulSoup(html, "html.parser")
    for tag in soup.select(
        "style, script, a.anchor-link"
    ):  # their text too, which bleach would leave
        tag.decompose()
    safe = bleach.clean(str(soup), TAGS, ATTRIBUTES, protocols=["http", "https", "mailto", "data"])
    soup = BeautifulSoup(safe, "html.parser")
    for tag in soup("a"):
        href = tag.get("href", "")
        if own := links.get(Path(href).name):
            tag["href"] = own
        elif not re.match("https?://|mailto:|#", href):
            tag.unwrap()
    for tag in soup("img"):
        source, own = tag.get("src", ""), Path(tag.get("src", "")).name
        if (out / "figures" / own).is_file() and own:
            tag["src"] = f"figures/{own}"
        elif not source.startswith("data:image/"):
            tag.replace_with(tag.get("alt", ""))
    for text in soup.find_all(string=FORMULA):
        if not text.find_parent(["pre", "code"]):
            with_formulas = FORMULA.sub(_mathml, escape(text, quote=False))
            text.replace_with(BeautifulSoup(with_formulas, "html.parser"))
    for number, tag in enumerate(soup("table"), 1):
        heading = tag.find_previous(["h1", "h2", "h3"])
        about = f"Table {number}" + (f": {heading.get_text()}" if heading else "")
        frame = {"class": "table", "tabindex": 0, "role": "region", "aria-label": about}
        tag.wrap(soup.new_tag("div", attrs=frame))
        for head in tag("th"):
            if head.get_text(strip=True):
                head["scope"] = "col" if head.find_parent("thead") else "row"
            else:
                head.name = "td"
    return soup


def _mathml(formula: re.Match) -> str:
    """LaTeX as MathML, which browsers show without a script; as it is, if it is not LaTeX."""
    block, inline = formula.groups()
    try:
        made = convert(unescape(block or inline), display="block" if block else "inline")
    except Exception:  # the converter's errors have no base of their own
        return formula[0]
    return bleach.clean(made, MATHML, SHAPE)


def _plain(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder that are no links."""
    return sorted(p for p in folder.glob(pattern) if p.is_file() and not p.is_symlink())


def _table(path: Path) -> pd.DataFrame:
    """A table as it is, without the columns of nothing."""
    try:
        return files.read_table(path).dropna(axis="columns", how="all")
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"study: {path} is damaged ({error}); make it again") from None


def _figures_of(study: str, folder: Path) -> Path:
    """Where the figures of a study are: those of a published one are in the project's figures/."""
    published = data.ROOT / "figures" / study.removeprefix("published/")
    return published if study.startswith("published/") else folder / "figures"


def _figure(path: Path, folder: Path) -> dict:
    """What a figure's PNG says of itself; its name, where it says nothing."""
    try:
        with Image.open(path) as image:
            said = {name: str(text) for name, text in image.info.items()}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        said = {}
    source = re.match(r"([\w-]+)\.ipynb", said.get("Source", ""))
    svg = path.with_suffix(".svg")
    return {
        "name": path.stem,
        "path": path,
        "png": path.name,
        "svg": quote(os.path.relpath(svg, folder / "report")) if svg.is_file() else None,
        "title": said.get("Title") or path.stem,
        "alt": said.get("Description") or f"The figure {path.stem}, without a description",
        "notebook": source and source[1],
        "tables": [
            name
            for name in re.findall(r"[\w-]+\.csv", said.get("Source", ""))
            if (folder / name).is_file()
        ],
    }


def _networks(about: pd.DataFrame, history: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """A row a network: whether it failed, its primary score, and the layer before the bottleneck."""
    primary = runs.primary()
    last = runs.final(history, "test_r2").rename(columns={"test_r2": "final R²"})
    found = about[[*runs.KEYS, "epochs"]].merge(
        last[[*runs.KEYS, "final R²", "failed"]], on=runs.KEYS
    )
    found["failed"] = np.where(found["failed"], "yes", "no")
    measures = measures[measures["side"] == primary["side"]]
    score = (measures["measure"] == primary["measure"]) & (measures["layer"] == primary["layer"])
    columns = {"score": measures[score]}
    for name, measure in MEASURES.items():
        rows = measures[measures["measure"] == measure]
        columns[name] = rows[rows["layer"].shift(-1) == "bottleneck"]
    for name, rows in columns.items():
        found = found.join(rows.set_index(runs.KEYS)["value"].rename(name), on=runs.KEYS)
    return found


def _provenance(about: pd.DataFrame) -> dict[str, str]:
    """What the runs were made with and on, and how long it took; where they differ, how many have which."""

    def counted(values: pd.Series) -> str:
        counts = values.value_counts()
        few = [f"{value} ({n} networks)" for value, n in counts.items()]
        return str(counts.index[0]) if len(few) == 1 else "; ".join(few)

    named = {
        "commit": about.get("git.commit", pd.Series(dtype=str)).str[:12],
        "code": about.get("code", pd.Series(dtype=str)),
        "Python": about.get("python"),
        **{name[9:]: about[name] for name in about.filter(like="versions.")},
        "processor": about.get("cpu"),
        "GPU": about.get("gpu"),
        "threads": about.get("threads"),
        "finished": about.get("finished", pd.Series(dtype=str)).str[:10],
    }
    said = {k: counted(v) for k, v in named.items() if v is not None and v.notna().any()}
    if {"group_seconds", "group_size"} <= set(about):
        hours = (about["group_seconds"] / about["group_size"]).sum() / 3600
        said["training"] = f"{hours:.1f} hours, if lots that ran at once had taken turns"
    return said


def _answer(study: str) -> str:
    """The README's answer and claims, if it is this study that they are about."""
    readme = data.ROOT / "README.md"
    text = readme.read_text() if readme.is_file() else ""
    found = re.search(r"\*\*The answer\.\*\*.*?\n\| claim \|.*?\n(?!\|)", text, re.DOTALL)
    return found[0] if found and f"(results/{study}/" in found[0] else ""


def main(study: str) -> None:
    """Make the report of a study, and say where it is."""
    index = make(study, runs.study_folder(study))
    made = [path for path in index.parent.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in made) / 1e6
    pages = sum(path.suffix == ".html" for path in made)
    print(f"report: {os.path.relpath(index)} ({pages} pages, {size:.1f} MB); open it in a browser")


if __name__ == "__main__":
    command(lambda: main(*sys.argv[1:]))
