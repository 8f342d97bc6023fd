import hashlib
import re
import subprocess
import sys
import tomllib

import nbformat
import pandas as pd
import papermill
import pytest
import yaml
from packaging.requirements import Requirement

from modvar_lib import data, runs, verify
from modvar_lib.settings import Settings, experiments_of

PROJECT = tomllib.loads((data.ROOT / "pyproject.toml").read_text())["project"]
PINS = [Requirement(line) for line in (data.ROOT / "requirements.lock").read_text().splitlines()]
PUBLISHED = verify.studies()


def tracked() -> list[str]:
    """The files of the project: what git tracks, or everything but products when there is no git."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=data.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [name for name in done.stdout.split("\0") if name and (data.ROOT / name).is_file()]


def test_the_lock_pins_everything_exactly_within_the_projects_ranges():
    for pin in PINS:
        assert pin.url is None and re.fullmatch(r"==[^*]+", str(pin.specifier)), pin
    for wanted in map(Requirement, PROJECT["dependencies"]):
        pinned = [pin for pin in PINS if pin.name == wanted.name]
        assert pinned, f"{wanted.name} is not in requirements.lock: make lock"
        for pin in pinned:
            assert wanted.specifier.contains(str(pin.specifier)[2:]), f"{pin} is outside {wanted}"


def test_what_is_installed_is_what_is_pinned():
    from importlib.metadata import version

    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate():
            assert version(pin.name).split("+")[0] == str(pin.specifier)[2:].split("+")[0], pin.name


def test_condas_environment_takes_its_versions_from_the_lock():
    environment = yaml.safe_load((data.ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert pip == "pip" and packages == {"pip": ["--requirement requirements.lock", "--editable ."]}
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        python.split("=")[1]
    )


def test_no_registry_and_no_path_of_a_machine_is_named():
    hosts = re.compile(
        "|".join(["pypi" + r"\.org", "python" + "hosted", "[/]simple[/]", r"[.]whl\b"])
    )
    home = re.compile(re.escape(str(data.ROOT)) + "|" + r"(?<![\w.])/(home|root|Users|work)/\w")
    for name in tracked():
        if not name.endswith((".gz", ".png", ".gif", ".safetensors")):
            text = (data.ROOT / name).read_text()
            assert not hosts.search(text) and not home.search(text), name


def test_the_digits_are_the_published_ones():
    raw = data.ROOT / "data" / "MNIST" / "raw"
    for line in (raw / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((raw / name).read_bytes()).hexdigest() == digest
        assert digest in (raw / "README.md").read_text()


@pytest.mark.parametrize(
    "config", sorted((data.ROOT / "config").glob("*.yaml")), ids=lambda p: p.stem
)
def test_configs_are_valid_experiments(config):
    content = yaml.safe_load(config.read_text())
    if config.stem == "primary":
        assert runs.primary() == content and 0 < content["failed_below"] < 1
        return
    size, experiments = experiments_of(content)
    assert size >= 1
    for found in experiments:
        if config.stem != "smoke" and found.variant == "default":
            plain = Settings(architecture=found.architecture, regime=found.regime)
            assert found.of_run(0) == plain.of_run(0)


def test_importing_is_light():
    """No plotting, tables, statistics or notebooks are pulled in by the package itself."""
    ask = "import sys, modvar_lib; print([m for m in ('torch', 'pandas', 'scipy', 'matplotlib', 'IPython') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout.strip()
        == "[]"
    )


def test_code_and_notebooks_are_linted_and_formatted():
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--no-cache", "."],
            cwd=data.ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_something_is_published():
    assert PUBLISHED


@pytest.mark.parametrize("study", PUBLISHED)
def test_published_tables_regenerate_and_are_what_the_readme_shows(study, derived):
    """Every analysis notebook that was published, over the committed tables alone."""
    for check in (verify.tables, verify.figures, verify.texts):
        check(study, derived)
    assert len(list((derived / study).glob("*.csv"))) >= len(verify.MEASURED) + 4
    assert all(path.stat().st_size > 5000 for path in (derived / study).glob("figures/*.svg"))
    headline = (verify.tables_of(study) / "headline.md").read_text()
    assert headline.strip() in (data.ROOT / "README.md").read_text()


def test_the_readmes_claims_are_in_the_tables_they_name():
    """Each `n = 16: -0.11 (-0.13 to -0.10)` of the claims is a row of a table that its line links to."""
    number = r"(-?\d+\.(\d+))"
    said = re.compile(rf"n = (\d+): {number} \({number} to {number}\)")
    lines = (data.ROOT / "README.md").read_text().split("| claim |")[1].split("\n\n")[0]
    rows = [line for line in lines.splitlines() if said.search(line)]
    assert len(rows) >= 5
    for line in rows:
        linked = re.findall(r"\((results/published/[^)]+\.csv)\)", line)
        tables = [
            pd.read_csv(data.ROOT / name)[["n", "difference", "low", "high"]] for name in linked
        ]
        made = {
            (int(row.n), *(f"{value:.{places}f}" for value in row[1:]))
            for table in tables
            for row in table.dropna().itertuples(index=False)
            for places in (2, 3)
        }
        for found in said.finditer(line):
            n, *values = found.group(1, 2, 4, 6)
            assert (int(n), *values) in made, found.group()


def test_a_network_that_ends_in_nan_is_counted_as_failed_and_kept(results):
    """On the published tables, with one network's last R² made NaN and another's low."""
    study = results / "spoilt"
    study.mkdir(parents=True)
    for name in ("measures", "history", "runs"):
        table = pd.read_csv(data.ROOT / "results" / "published" / "paper" / f"{name}.csv")
        usual = (table["architecture"] == "mlp") & (table["variant"] == "default")
        table = table[usual & table["regime"].isin(["fixed", "varying"])].copy()
        if name == "history":
            last = (table["regime"] == "varying") & (table["epoch"] == 99)
            table.loc[last & (table["seed"] == 3), "sum_r2"] = float("nan")
            table.loc[last & (table["seed"] == 5), "sum_r2"] = 0.49
        table.to_csv(study / f"{name}.csv", index=False)
    source = data.ROOT / "notebooks" / "04_analysis.ipynb"
    papermill.execute_notebook(source, study / "out.ipynb", {"study": "spoilt"}, progress_bar=False)
    summary = pd.read_csv(study / "summary.csv").set_index("regime")
    found = summary.loc["varying", ["networks", "failed", "n", "n_working"]]
    assert found.tolist() == [16, 2, 16, 14] and summary.loc["fixed", "failed"] == 0
    assert pd.read_csv(study / "difference.csv")["n"].tolist() == [16, 14]


@pytest.mark.parametrize("study", PUBLISHED)
def test_published_studies_are_whole(study):
    """The arms that its config says, 16 networks or more in each, the same seeds in all, by clean commits with one torch;
    executed notebooks without errors or warnings."""
    committed = data.ROOT / "results" / "published" / study
    about, measures, history = (
        pd.read_csv(committed / f"{name}.csv") for name in ("runs", "measures", "history")
    )
    arms = about.groupby(["dataset", "architecture", "regime", "variant"])["seed"].apply(
        lambda seeds: tuple(sorted(seeds))
    )
    assert arms.nunique() == 1 and len(arms.iloc[0]) >= 16
    assert len(history) == about["epochs"].sum() and len(measures.groupby(runs.KEYS)) == len(about)
    _, wanted = experiments_of(yaml.safe_load((data.ROOT / "config" / f"{study}.yaml").read_text()))
    settings = list(wanted[0].of_run(0))
    made = about[settings].set_index(runs.KEYS).sort_index()
    said = pd.DataFrame([one.of_run(seed) for one in wanted for seed in one.seeds])
    said = said[settings].set_index(runs.KEYS).sort_index()
    pd.testing.assert_frame_equal(made, said[said.index.droplevel("seed").isin(arms.index)])
    text = (data.ROOT / "README.md").read_text()
    to_come = re.search(r"Not trained yet: (.*?)\n\n", text, re.DOTALL)
    named = set(re.findall(r"`(\w[\w.]*)`", to_come[1])) if to_come else set()
    absent = {
        one.architecture if one.variant == "default" else one.variant
        for one in wanted
        if tuple(one.of_run(0)[key] for key in runs.KEYS[:-1]) not in arms.index
    }
    assert named - {"mlp"} == absent
    assert about["versions.torch"].nunique() == 1 and not about["git.dirty"].any()
    assert about.groupby(runs.KEYS[:-1])["git.commit"].nunique().eq(1).all()
    for path in (committed / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        outputs = [o for c in cells for o in c.get("outputs", [])]
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
