"""The experiment as a graph of papermill runs: data; train (groups of seeds); metric; analysis.

A config file says which (config/original.yaml unless --configfile names another). Runs, tables, executed notebooks and pages
go to results/<study>/. A run that is complete is never trained again, whatever the graph thinks.
"""

import os

from modvar_lib.errors import InputError
from modvar_lib.runs import run_folder, study_folder
from modvar_lib.settings import Settings


if not config:
    configfile: "config/original.yaml"


GRAPH = {"architectures", "regimes", "group_size"}  # what a config has beside the settings of an experiment
try:
    options = {name: value for name, value in config.items() if name not in GRAPH}
    size = config.get("group_size")
    if not isinstance(size, int) or size < 1:
        raise InputError(f"group_size: got {size!r}; allowed: a whole number from 1")
    experiments = [
        Settings(**options, architecture=architecture, regime=regime)
        for architecture in config.get("architectures") or [None]
        for regime in config.get("regimes") or [None]
    ]
except InputError as error:
    raise WorkflowError(str(error))

base = experiments[0]
seeds = [base.seeds[i : i + size] for i in range(0, len(base.seeds), size)]
GROUPS = {f"{s[0]:03d}-{s[-1]:03d}": s for s in seeds}
STUDY = os.path.relpath(study_folder(base.study))
PASSED_ON = [name for name in options if name not in ("study", "dataset", "seeds")]
PARAMETERS = " ".join(f"-p {name} {options[name]}" for name in PASSED_ON)


def folders(experiment, seeds):
    return [os.path.relpath(run_folder(experiment.study, experiment.of_run(seed))) for seed in seeds]


def execute(notebook, log, parameters):
    """A shell command: run a notebook, with a bar on the terminal that started all this or lines in its log, then make its page."""
    log_output = "" if os.environ.get("MODVAR_TTY") else "--log-output"
    return (
        f"papermill --no-progress-bar {log_output} notebooks/{notebook}.ipynb {log} {parameters}"
        " 2> >(grep --line-buffered -E 'epoch [0-9]+/|Error:' >&2 || true)"
        f" && jupyter nbconvert --log-level ERROR --to html {log} --output-dir {STUDY}/pages"
    )


rule all:
    input:
        [folders(experiment, base.seeds) for experiment in experiments],
        f"{STUDY}/headline.md",
        f"{STUDY}/pages/01_data.html",


rule data:
    input:
        "notebooks/01_data.ipynb",
    output:
        f"{STUDY}/pages/01_data.html",
    log:
        f"{STUDY}/notebooks/01_data.ipynb",
    params:
        command=execute("01_data", f"{STUDY}/notebooks/01_data.ipynb", f"-p dataset {base.dataset}"),
    shell:
        "{params.command}"


for experiment in experiments:
    for group, members in GROUPS.items():
        executed = f"{STUDY}/notebooks/02_train-{experiment.architecture}-{experiment.regime}-{group}.ipynb"

        rule:
            name:
                f"train_{experiment.architecture}_{experiment.regime}_{group}"
            output:
                [update(directory(folder)) for folder in folders(experiment, members)],
            log:
                executed,
            params:  # evaluated here and now; a shell string would be evaluated after the loop
                command=execute(
                    "02_train",
                    executed,
                    f"-p study {base.study} -p dataset {base.dataset} -p architecture {experiment.architecture}"
                    f" -p regime {experiment.regime} -p seeds {','.join(map(str, members))} {PARAMETERS}",
                ),
            threads: workflow.cores
            shell:
                "{params.command}"


rule metric:
    input:
        [folders(experiment, base.seeds) for experiment in experiments],
        "notebooks/03_metric.ipynb",
    output:
        [f"{STUDY}/{name}.csv" for name in ("measures", "runs", "history")],
        f"{STUDY}/pages/03_metric.html",
    log:
        f"{STUDY}/notebooks/03_metric.ipynb",
    params:
        command=execute("03_metric", f"{STUDY}/notebooks/03_metric.ipynb", f"-p study {base.study}"),
    threads: workflow.cores
    shell:
        "{params.command}"


rule analysis:
    input:
        rules.metric.output,
        "notebooks/04_analysis.ipynb",
        "config/primary.yaml",
    output:
        f"{STUDY}/headline.md",
        f"{STUDY}/pages/04_analysis.html",
    log:
        f"{STUDY}/notebooks/04_analysis.ipynb",
    params:
        command=execute("04_analysis", f"{STUDY}/notebooks/04_analysis.ipynb", f"-p study {base.study}"),
    shell:
        "{params.command}"
