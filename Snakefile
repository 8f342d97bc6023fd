"""A study as a graph of papermill runs: train and measure groups of networks, analyse them, build the book.

$MODVAR_CONFIG names the config file. A group whose tables are there is done; an analysis, when its stamp is there, named after groups
and notebook, and all that it lists, which the analysis wrote. No file's time counts: a fresh clone has nothing to do."""

import os
import shlex
from hashlib import sha256
from pathlib import Path

from modvar_lib import notebook, runs, study
from modvar_lib.errors import InputError

try:
    notebook.own_code()
    CONFIG = study.read_config(os.environ.get("MODVAR_CONFIG") or "config/original.yaml")
except InputError as error:
    raise WorkflowError(str(error))

STUDY = os.path.relpath(runs.study_folder(CONFIG.study))
EXECUTED = f"{STUDY}/notebooks"
CLEAN = "nbstripout --keep-output --keep-count --extra-keys 'metadata.widgets metadata.papermill cell.metadata.papermill metadata.language_info.version'"
GROUPS = {(group.arm, group.group): group for group in CONFIG.groups}
ALONE = {"01_data": CONFIG.groups[0].dataset, "11_positive_control": ""}  # what is read by those that read no groups
TABLES = [f"{STUDY}/groups/{arm}/{span}/{name}.csv" for arm, span in GROUPS for name in ("runs", "history", "measures")]


def execute(name, parameters, group=""):
    """A shell command: execute a notebook. Text stays text (-r), whatever it looks like; the rest is what it looks like (-p)."""
    given = [word for k, v in parameters.items() for word in ("-r" if isinstance(v, str) else "-p", k, str(v))]
    words = ["papermill", "--no-progress-bar", f"notebooks/{name}.ipynb", f"{EXECUTED}/{name}{group}.ipynb", *given]
    return f"{shlex.join(words)} --stderr-file >(cat >&2) 2> >(grep -E '^\w*Error: ' >&2)"


def train_and_measure(arm, span):
    """Likewise 02 and 03, with the same parameters."""
    values = GROUPS[arm, span].model_dump() | {"seeds": ",".join(map(str, GROUPS[arm, span].seeds))}
    return "; ".join(execute(name, values, f"-{arm}-{span}") for name in ("02_train", "03_metric"))


def analyse(name):
    """Likewise an analysis; what is kept of it has no times in it."""
    parameters = {"dataset": CONFIG.groups[0].dataset} if name == "01_data" else {"study": CONFIG.study}
    return f"{execute(name, parameters)}; {CLEAN} {shlex.quote(f'{EXECUTED}/{name}.ipynb')}"


def stamp(name):
    of = ALONE[name] if name in ALONE else (sorted(GROUPS), Path("config/primary.yaml").read_bytes())
    digest = sha256(str(of).encode() + Path(f"notebooks/{name}.ipynb").read_bytes()).hexdigest()
    return f"{STUDY}/done/{name}-{digest[:12]}"


STAMPS = {name: stamp(name) for name in ("01_data", *CONFIG.notebooks)}
for path in map(Path, STAMPS.values()):  # it says what the analysis wrote: where some of that was deleted, it is not done
    if path.is_file() and not all(map(os.path.exists, path.read_text().splitlines())):
        path.unlink()

rule all:
    input: TABLES, STAMPS.values(), f"{STUDY}/book/index.html"

rule group:
    output: [f"{STUDY}/groups/{{arm}}/{{span}}/{name}.csv" for name in ("runs", "history", "measures")]
    log: [f"{EXECUTED}/{name}-{{arm}}-{{span}}.ipynb" for name in ("02_train", "03_metric")]
    params: lambda w: train_and_measure(w.arm, w.span)
    threads: workflow.cores
    shell: "{params[0]}"

rule analysis:
    input: lambda w: [ancient(path) for path in ([] if w.name in ALONE else TABLES)]
    output: f"{STUDY}/done/{{name}}-{{digest}}"
    params: lambda w: analyse(w.name)
    shell:
        "rm -f {STUDY:q}/done/{wildcards.name}-*; mkdir -p {EXECUTED:q}; touch {output:q}-; "
        "export MODVAR_WRITTEN={output:q}-; {params[0]}; mv {output:q}- {output:q}"

rule book:
    input: STAMPS.values(), "book/build.py", "book/conf.py", "book/index.md"
    output: f"{STUDY}/book/index.html"
    shell: "python book/build.py {CONFIG.study:q}"
