"""A study as a graph of papermill runs: train and measure groups of networks, analyse them, build
the book.

$MODVAR_CONFIG names the config file. A group whose tables are there is done, and no part of the graph:
what is published is never deleted to be made again. An analysis is done when its stamp holds the digest
of what it reads, and the checksums of all that it wrote. No file's time counts: a fresh clone has nothing
to do.
"""

import os
import shlex
import subprocess
from pathlib import Path

from modvar_lib import notebook, runs
from modvar_lib.config import read_config
from modvar_lib.errors import InputError

try:
    notebook.own_code()
    CONFIG = read_config(os.environ.get("MODVAR_CONFIG") or "config/original.yaml")
    STUDY = os.path.relpath(runs.study_folder(CONFIG.study))
    # a file for each group that is still to be trained or measured
    MEASURED = [f"{STUDY}/runs/{one.arm}/measured-{one.group}" for one in CONFIG.groups if runs.lacks(one)]
except InputError as error:
    raise WorkflowError(str(error))

EXECUTED = f"{STUDY}/notebooks"
CLEAN = "nbstripout --keep-output --keep-count --extra-keys 'metadata.widgets metadata.papermill cell.metadata.papermill metadata.language_info.version'"
GROUPS = {(group.arm, group.group): group for group in CONFIG.groups}


def execute(name, parameters, group=""):
    """A shell command: execute a notebook. Text stays text (-r), whatever it looks like; the rest is what it looks like (-p)."""
    given = [word for k, v in parameters.items() for word in ("-r" if isinstance(v, str) else "-p", k, str(v))]
    words = ["papermill", "--no-progress-bar", f"notebooks/{name}.ipynb", f"{EXECUTED}/{name}{group}.ipynb", *given]
    return f"{shlex.join(words)} --stderr-file >(cat >&2) 2> >(grep -E '^\w*Error: ' >&2)"


def train_and_measure(arm, span):
    """Likewise 02, and 03, which needs names alone."""
    values = GROUPS[arm, span].model_dump() | {"seeds": ",".join(map(str, GROUPS[arm, span].seeds))}
    named = {name: values[name] for name in ("study", *runs.KEYS[:-1], "seeds")} | {"extras": values.pop("extras")}
    given = {"02_train": values, "03_metric": named}
    return "; ".join(execute(name, given[name], f"-{arm}-{span}") for name in given)


def analyse(name):
    """Likewise an analysis; what is kept of it has no times in it."""
    parameters = {"dataset": CONFIG.groups[0].dataset} if name == "01_data" else {"study": CONFIG.study}
    return f"{execute(name, parameters)}; {CLEAN} {shlex.quote(f'{EXECUTED}/{name}.ipynb')}"


def is_done(name):
    """Whether an analysis' stamp, its digest and then checksums of its notebook and files, is still true."""
    path = Path(STUDY, "done", name)
    digest, _, written = path.read_text().partition("\n") if path.is_file() else ("", "", "")
    if (MEASURED and name not in runs.ALONE) or digest != runs.digest(CONFIG.study, name):
        return False
    words = ["sha256sum", "--check", "--status"]
    return not subprocess.run(words, input=written, text=True, stderr=subprocess.DEVNULL).returncode


STAMPS = {name: f"{STUDY}/done/{name}" for name in ("01_data", *CONFIG.notebooks)}
for path in (*MEASURED, *(path for name, path in STAMPS.items() if not is_done(name))):
    Path(path).unlink(missing_ok=True)

rule all:
    input: MEASURED, STAMPS.values(), f"{STUDY}/book/index.html"

rule group:
    output: touch(f"{STUDY}/runs/{{arm}}/measured-{{span}}")
    log: [f"{EXECUTED}/{name}-{{arm}}-{{span}}.ipynb" for name in ("02_train", "03_metric")]
    params: lambda w: train_and_measure(w.arm, w.span)
    threads: workflow.cores
    shell: "{params[0]}"

rule analysis:
    input: lambda w: [] if w.name in runs.ALONE else MEASURED
    output: f"{STUDY}/done/{{name}}"
    params: lambda w: analyse(w.name)
    priority: 1  # those whose inputs are there come before any training
    shell:
        "mkdir -p {EXECUTED:q}; echo {EXECUTED:q}/{wildcards.name}.ipynb > {output:q}-; "
        "export MODVAR_WRITTEN={output:q}-; {params[0]}; "
        "{{ python -m modvar_lib.runs {CONFIG.study:q} {wildcards.name}; "
        "sort -u {output:q}- | xargs -d '\\n' sha256sum; }} > {output:q}+; "
        "rm {output:q}-; mv {output:q}+ {output:q}"

rule book:
    input: STAMPS.values(), "book/build.py", "book/conf.py", "book/index.md"
    output: f"{STUDY}/book/index.html"
    shell: "python book/build.py {CONFIG.study:q}"
