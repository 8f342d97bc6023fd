"""The report: complete, the same every time, safe, and usable by everybody who opens it."""

import filecmp
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from modvar_lib import data, files, report, verify
from modvar_lib.errors import InputError

STUDY = "paper"
COMMITTED = verify.tables_of(STUDY)
PAGES = sorted(path.stem for path in (COMMITTED / "report").glob("*.html"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The published study's report, made again."""
    folder = tmp_path_factory.mktemp("report") / "published" / STUDY
    shutil.copytree(COMMITTED, folder, ignore=shutil.ignore_patterns("report", "runs"))
    report.make(f"published/{STUDY}", folder)
    return folder / "report"


@pytest.fixture
def copy(tmp_path):
    """A published study to spoil, without a report."""
    folder = tmp_path / "spoiled"
    shutil.copytree(COMMITTED, folder, ignore=shutil.ignore_patterns("report", "runs"))
    return folder


def test_the_committed_report_is_what_the_committed_study_makes(made):
    ours = {p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()}
    theirs = COMMITTED / "report"
    assert ours == {p.relative_to(theirs).as_posix() for p in theirs.rglob("*") if p.is_file()}
    skip = {
        name for name in ours if name.endswith(".html")
    }  # links to figures/ differ with the place
    assert filecmp.cmpfiles(made, theirs, ours - skip, shallow=False)[1:] == ([], [])
    for name in skip:
        a, b = ((folder / name).read_text() for folder in (made, theirs))
        assert re.sub(r'href="[./]+[^"]*\.svg"', "", a) == re.sub(
            r'href="[./]+[^"]*\.svg"', "", b
        ), name
    assert sum(path.stat().st_size for path in theirs.rglob("*")) < 8e6


def test_everything_of_the_study_is_in_it(made):
    read = {path.stem: path.read_text() for path in made.glob("*.html")}
    notebooks = {path.stem for path in (COMMITTED / "notebooks").glob("*.ipynb")}
    figures = {path.stem for path in verify.figures_of(STUDY).glob("*.png")}
    assert set(read) == {"index", "figures", "networks", *notebooks}
    assert all(f'id="{name}"' in read["figures"] for name in figures)
    assert (
        "papermill notebooks/06_ruler.ipynb out.ipynb -p study published/paper" in read["figures"]
    )
    assert read["networks"].count("<tr>") == 1 + len(pd.read_csv(COMMITTED / "runs.csv"))
    answer = (data.ROOT / "README.md").read_text().split("**The answer.**")[1][:60].split("\n")[0]
    assert answer.strip() in re.sub("<[^>]*>", "", read["index"])
    assert all(f"{name}.html" in read["index"] for name in notebooks)


@pytest.mark.parametrize("missing", ["runs.csv", "measures.csv"])
def test_a_study_that_is_not_measured_is_one_line(copy, missing):
    (copy / missing).unlink()
    with pytest.raises(InputError, match=rf"study: 'spoiled' has no .*{missing}; measure its runs"):
        report.make("spoiled", copy)
    assert not (copy / "report").exists() and not list(copy.glob(".report-*"))


def test_a_report_that_fails_leaves_the_one_before(copy):
    (copy / "report").mkdir()
    (copy / "report" / "index.html").write_text("before")
    (copy / "history.csv").write_text("cut")
    with pytest.raises(InputError, match=r"study: .*history.csv is damaged"):
        report.make("spoiled", copy)
    assert (copy / "report" / "index.html").read_text() == "before"


@pytest.mark.parametrize("content", ["", "{}", "not JSON"])
def test_a_notebook_that_a_kill_cut_is_left_out_and_named(copy, capsys, content):
    name = "02_train-mlp-fixed-000-007"
    (copy / "notebooks" / f"{name}.ipynb").write_text(content)
    index = report.make("spoiled", copy)
    assert (
        f"left out: notebook: {copy}/notebooks/{name}.ipynb is damaged" in capsys.readouterr().out
    )
    assert f"{name}.ipynb is damaged" in index.read_text()
    assert not (index.parent / f"{name}.html").exists() and f"{name}.html" not in index.read_text()


HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
FORMULAS = rf"$\href{{javascript:document.title='taken'}}{{x}}$ $\text{{{HOSTILE}}}$ and $\frac{{$ is no formula"


def test_what_strangers_wrote_cannot_run(copy, browser):
    """HTML in tables, in the texts, formulas and outputs of notebooks, in links, in names of figures."""
    for name in ("runs.csv", "history.csv", "measures.csv"):
        table = pd.read_csv(copy / name)
        table["regime"] = table["regime"].replace("fixed", HOSTILE)
        files.write_table(table, copy / name)
    (copy / "headline.md").write_text(f"{HOSTILE}\n\n[x](javascript:document.title='taken')")
    path = copy / "notebooks" / "04_analysis.ipynb"
    found = nbformat.read(path, as_version=4)
    shown = nbformat.v4.new_output("display_data", {"text/html": HOSTILE, "text/plain": HOSTILE})
    script = nbformat.v4.new_output(
        "display_data", {"application/javascript": "document.title='taken'"}
    )
    found.cells += [
        nbformat.v4.new_markdown_cell(f"{HOSTILE}\n<iframe src='javascript:1'></iframe>"),
        nbformat.v4.new_markdown_cell(FORMULAS),
        nbformat.v4.new_code_cell(HOSTILE, outputs=[shown, script], execution_count=1),
    ]
    nbformat.write(found, path)
    index = report.make("spoiled", copy)
    page = browser.new_page()
    for one in index.parent.glob("*.html"):
        page.goto(one.as_uri())
        page.wait_for_timeout(100)
        assert "taken" not in page.title(), one.name
        assert page.locator("img[onerror], iframe, [href^=javascript]").count() == 0
    page.goto((index.parent / "04_analysis.html").as_uri())
    assert r"$\frac{$ is no formula" in page.locator("main").inner_text()
    page.close()


@pytest.fixture(scope="module")
def opened(made, browser):
    """A function that opens a page as a reader does, who has no network; what went wrong is in its list `troubles`."""
    contexts = []

    def visit(name: str, scheme: str = "light", width: int = 1280):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        contexts.append(context)
        page, troubles = context.new_page(), []
        page.on(
            "console", lambda said: troubles.append(said.text) if said.type == "error" else None
        )
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith(("file:", "data:")) else troubles.append(asked.url)
            ),
        )
        page.goto((made / f"{name}.html").as_uri())
        page.wait_for_timeout(200)
        return page, troubles

    yield visit
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_from_disk_and_is_for_everybody(opened, name):
    """No error, no request; figures are there, with words; no sideways scrolling on a phone; axe finds nothing serious."""
    for scheme, width in (("light", 1280), ("dark", 375)):
        page, troubles = opened(name, scheme, width)
        assert troubles == []
        assert (
            page.locator("html").get_attribute("lang") == "en" and page.locator("h1").count() == 1
        )
        bad = page.locator("img").evaluate_all(
            "all => all.filter(one => !one.naturalWidth || one.alt.length < 10).map(one => one.src)"
        )
        assert bad == []
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wide) <= 0, (name, width)
        found = Axe().run(page, options={"preload": False}).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
        page.close()


def test_links_lead_somewhere(opened, made):
    for name in PAGES:
        page, _ = opened(name)
        for link in page.locator("a[href]").evaluate_all(
            "all => all.map(one => one.getAttribute('href'))"
        ):
            target = urlsplit(link)
            if target.scheme:
                assert target.scheme in ("https", "mailto"), link
                continue
            path = (made / unquote(target.path)) if target.path else made / f"{name}.html"
            outside = path.suffix == ".svg" and not path.exists()  # beside the published one alone
            assert outside or path.resolve().is_file(), (name, link)
            if target.fragment and path.suffix == ".html":
                assert f'id="{unquote(target.fragment)}"' in path.read_text(), (name, link)
        page.close()


def test_the_table_of_networks_sorts_and_searches(opened):
    page, _ = opened("networks")
    rows = page.locator("#networks tbody tr")
    assert rows.count() == 25
    header = page.get_by_role("columnheader", name="score")
    column = header.evaluate("cell => cell.cellIndex")

    def scores():
        return [
            float(text) for text in rows.locator(f"td:nth-child({column + 1})").all_inner_texts()
        ]

    before = scores()
    header.click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert scores() == sorted(scores()) != before
    header.locator('[tabindex="0"]').press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    assert scores() == sorted(scores(), reverse=True)
    page.get_by_role("searchbox").fill("towers varying")
    expect(page.locator(".dt-info")).to_contain_text("of 16 entries")
    page.close()


def test_code_unfolds_by_keyboard(opened):
    page, _ = opened("06_ruler")
    code = page.locator("details.code pre").first
    assert not code.is_visible()
    page.locator("details.code summary").first.press("Enter")
    assert code.is_visible()
    page.get_by_role("button", name="Show all code").press("Enter")
    assert all(one.is_visible() for one in page.locator("details.code pre").all())
    page.close()


def test_formulas_are_formulas(opened):
    page, _ = opened("05_why_the_score_moves")
    formula = page.locator("math[display=block]")
    assert formula.locator("msqrt mfrac").count() == 1 and formula.bounding_box()["height"] > 30
    assert "score" in formula.text_content()
    assert not any("$" in text for text in page.locator("main > p").all_inner_texts())
    page.close()


def test_it_prints(opened):
    page, _ = opened("index")
    page.emulate_media(media="print")
    assert not page.locator("header nav").is_visible() and page.locator("h1").is_visible()
    assert Path(data.ROOT).is_dir() and len(page.pdf()) > 10_000
    page.close()
