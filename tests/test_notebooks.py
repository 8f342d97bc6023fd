"""Notebooks, by reading them: their parameters, in one form; and that those which nbval compares
have not drifted."""

import ast
import functools
import re
from pathlib import Path

import nbformat
import pytest
from reference.make import REFERENCES

from modvar_lib import data, goals, models, notebook, runs
from modvar_lib.config import read_config
from modvar_lib.settings import Settings

SOURCES = sorted((data.ROOT / "notebooks").glob("*.ipynb"))
HERE = Path(__file__).parent
ALL_PARAMETERS = set(Settings.model_fields)
# What a notebook checks itself: parameters that are no settings, or that may be empty
OWN = {
    "14_transfer": {"networks"},
    "12_two_arms": {"architecture", "first", "second", "measure", "layer", "margin"},
}
every_notebook = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)


@functools.cache
def read(path):
    return nbformat.read(path, as_version=4)


def tagged(path, tag) -> list[str]:
    return [c.source for c in read(path).cells if tag in c.metadata.get("tags", [])]


def code(path) -> list[str]:
    """The sources of the code cells, without the one that papermill put in."""
    skipped = tagged(path, "injected-parameters")
    cells = [c.source for c in read(path).cells if c.cell_type == "code"]
    return [source for source in cells if source not in skipped]


def parameters_cell(path) -> str:
    (cell,) = tagged(path, "parameters")
    return cell


def values_of(source) -> dict:
    """The names that a cell sets."""
    values = {}
    exec(source, values)
    return {name: value for name, value in values.items() if not name.startswith("__")}


@every_notebook
def test_sources_are_stripped_and_plain(path):
    nbformat.validate(read(path))
    assert read(path).metadata["kernelspec"]["name"] == "python3"
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert set(cell.metadata) <= {"tags"} and not cell.source.rstrip().endswith(";")
            is_long = len(cell.source.splitlines()) > 24
            assert not is_long or {"parameters", "hide-input"} & {*cell.metadata.get("tags", [])}


TYPES = {"str": str | tuple, "int": int, "float": float, "bool": bool}


@every_notebook
def test_parameters_are_settings_typed_explained_and_valid(path):
    body = ast.parse(parameters_cell(path)).body
    assert body and all(isinstance(line, ast.AnnAssign) for line in body)
    assert parameters_cell(path).count("# ") == len(body)  # papermill --help-notebook shows them
    values, own = values_of(parameters_cell(path)), OWN.get(path.stem, set())
    assert values.keys() - own <= ALL_PARAMETERS
    settings = notebook.settings(**{name: values[name] for name in values.keys() - own})
    values |= {name: getattr(settings, name) for name in values.keys() - own}
    for line in body:
        assert isinstance(values[line.target.id], TYPES[line.annotation.id])


@every_notebook
def test_every_parameter_goes_through_settings_under_its_own_name(path):
    """So that what test_bad_input.py says of Settings holds for the notebook."""
    nodes = [node for source in code(path) for node in ast.walk(ast.parse(source))]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    (call, *_) = [node for node in calls if ast.unparse(node.func) == "notebook.settings"]
    given = {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg != "own"}
    given |= {name: name for name in OWN.get(path.stem, ())}
    if given == {None: "{name: globals()[name] for name in names}"}:
        (source,) = [source for source in code(path) if source.startswith("names = ")]
        values = {"Settings": Settings}
        exec(source.split("\nsettings")[0], values)
        given = {name: name for name in values["names"]}
    if None in given:  # **SIZE, a dict of them
        assigned = [node for node in nodes if isinstance(node, ast.Assign)]
        (size,) = [n.value for n in assigned if ast.unparse(n.targets[0]) == given[None]]
        given = {key.value: ast.unparse(value) for key, value in zip(size.keys, size.values)}
    assert given == {name: name for name in values_of(parameters_cell(path))}
    first = next(i for i, source in enumerate(code(path)) if "notebook.settings" in source)
    assert first <= 2 or path.stem == "10_your_own"  # before anything is computed


@every_notebook
def test_names_are_not_listed_but_printed_from_the_registries(path):
    """A new regime or architecture is registered in one place."""
    told = [set(re.findall(r"\w+", line)) for line in re.findall("#(.*)", parameters_cell(path))]
    assert all(
        len(words & {*names}) <= 2
        for words in told
        for names in (goals.REGIMES, models.ARCHITECTURES)
    )


def test_a_parameter_has_one_default_and_meaning_everywhere():
    """But for 10_your_own, a toy; the regime of 01_data, so that there is something to see; and the
    study of 04 to 09: some need more arms than one trains oneself."""
    lines = {}
    for path in SOURCES:
        skipped = {
            "study",
            *OWN.get(path.stem, ()),
            *(["regime"] if path.stem == "01_data" else []),
        }
        for line in ast.parse(parameters_cell(path)).body if path.stem != "10_your_own" else ():
            text, name = ast.get_source_segment(parameters_cell(path), line), line.target.id
            assert name in skipped or lines.setdefault(name, text) == text, path.name
    assert {*lines, "study"} == ALL_PARAMETERS


def test_training_and_measuring_have_every_parameter_and_the_librarys_defaults():
    """Training those of training, measuring the names of what it measures, and what besides."""
    names = "02_train", "03_metric"
    cells = [parameters_cell(data.ROOT / "notebooks" / f"{name}.ipynb") for name in names]
    train, measure = map(values_of, cells)
    assert set(train) == ALL_PARAMETERS - {"extras"}
    assert set(measure) == {"study", *runs.KEYS[:-1], "seeds", "extras"}
    assert notebook.settings(**train, **{"extras": measure["extras"]}) == Settings()


@pytest.mark.parametrize("name", REFERENCES)
def test_references_have_not_drifted(name):
    """What nbval executes is what the notebooks hold, with the parameters that
    tests/reference/make.py says."""
    reference = HERE / "reference" / f"{name}.ipynb"
    assert code(reference) == code(data.ROOT / "notebooks" / f"{name}.ipynb"), "run: make reference"
    (injected,) = tagged(reference, "injected-parameters")
    assert values_of(injected) == REFERENCES[name]
    cells = [c for c in read(reference).cells if c.cell_type == "code" and c.source.strip()]
    assert all(c.execution_count for c in cells)  # nbval compares no others
    assert sum(bool(c.outputs) for c in cells) >= 5


CONFIG = data.ROOT / "config"


def test_every_notebook_is_executed_by_some_test():
    """As a reference, in the toy graph, over the published tables, or in test_shapes.py."""
    published = [read_config(CONFIG / f"{study}.yaml").notebooks for study in ("paper", "third")]
    assert {path.stem for path in SOURCES} == {*REFERENCES, *OWN}.union(*published)
    assert {path.stem for path in (HERE / "reference").glob("*.ipynb")} == set(REFERENCES)


def test_no_notebook_shows_a_figure_without_words_for_it():
    for path in SOURCES:
        assert not re.search(r"plt\.show|figures\.save|\.savefig", "\n".join(code(path))), path.name


ANALYSES = [path for path in SOURCES if path.stem[:2] in ("04", "05", "06", "07", "08", "12")]
# Words of a notebook that are names as well: ends of the scale, the control of size, a side, a measure
KINDS = {"towers", "summed", "scaled", "both", "interaction"}


@pytest.mark.parametrize("path", ANALYSES, ids=lambda path: path.stem)
def test_arms_and_architectures_come_from_the_study_and_from_what_was_declared(path):
    """So a new one is shown without an edit. And nothing is said of the published study."""
    names = {*goals.REGIMES, *models.ARCHITECTURES} - KINDS
    for source in code(path):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words = node.value.split()
                assert len(words) > 2 or not names & {*words}, (path.stem, node.value)
    prose = [c.source for c in read(path).cells if c.cell_type == "markdown"]
    assert not re.search(r"(?i)in the published (study|run)|(?!0\.05)\d\.\d\d", "".join(prose[1:]))


@pytest.mark.parametrize("path", ANALYSES, ids=lambda path: path.stem)
def test_an_analysis_begins_with_a_question_an_answer_and_a_figure(path):
    first = read(path).cells[0].source
    (answer,) = re.findall(r"(?s)\*\*Short answer\.\*\*(.*?)\n\n", first)
    assert "**Question.**" in first and len(answer.split()) <= 60
    cells = code(path)[2:]  # behind parameters and imports
    at = next(i for i, source in enumerate(cells) if "figures.show" in source)
    assert path.stem == "04_analysis" or sum(len(s.splitlines()) for s in cells[:at]) <= 30
    assert path.stem not in ("06_ruler", "07_controls") or len(code(path)) <= 20
