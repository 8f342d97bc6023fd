"""The experiment as a graph of papermill runs: data; train (groups of seeds); metric; analysis; report.

A config file says which (config/original.yaml unless --configfile names another). Runs, tables, executed notebooks and
their report go to results/<study>/. A run that is complete is never trained again, whatever the graph thinks.
"""

import os

from snakemake.persistence import FileBackupMixin

from modvar_lib import notebook
from modvar_lib.errors import InputError
from modvar_lib.runs import run_folder, study_folder
from modvar_lib.settings import analyses_of, experiments_of


if not config:
    configfile: "config/original.yaml"


try:
    notebook.own()
    size, experiments = experiments_of(config)
    ANALYSES = analyses_of(config)
except InputError as error:
    raise WorkflowError(str(error))



# A run is whole or absent by itself. Snakemake copies those that a job may update, cannot start again where a kill left half a
# copy, and after a failure puts copies in the place of runs: here it does not.
FileBackupMixin.backup_output = FileBackupMixin.cleanup_backup = lambda self, path: None
FileBackupMixin.restore_output = lambda self, path: True


def folders(experiment, seeds):
    """Of the runs of some seeds."""
    return [os.path.relpath(run_folder(base.study, experiment.of_run(seed))) for seed in seeds]


base = experiments[0]
STUDY = os.path.relpath(study_folder(base.study))
EVERY = [folder for experiment in experiments for folder in folders(experiment, experiment.seeds)]
PASSED_ON = [name for name in type(base).model_fields if name not in ("seeds", "test_pairs", "max_coefficient")]


def execute(notebook, log, parameters):
    """A shell command: run a notebook, with a bar on the terminal that started all this or lines in its log."""
    log_output = "" if os.environ.get("MODVAR_TTY") else "--log-output"
    return (
        f"papermill --no-progress-bar {log_output} notebooks/{notebook}.ipynb {log} {parameters}"
        " 2> >(grep --line-buffered -E '(epoch|network) [0-9]+/|Error:' >&2 || true)"
    )


rule all:
    input:
        EVERY,
        f"{STUDY}/report/index.html",


rule data:
    input:
        "notebooks/01_data.ipynb",
    output:
        touch(f"{STUDY}/done/01_data"),
    log:
        f"{STUDY}/notebooks/01_data.ipynb",
    params:
        command=execute("01_data", f"{STUDY}/notebooks/01_data.ipynb", f"-p dataset {base.dataset}"),
    shell:
        "{params.command}"


for experiment in experiments:
    for first in range(0, len(experiment.seeds), size):
        members = experiment.seeds[first : first + size]
        group = f"{experiment.architecture}-{experiment.regime}-{experiment.variant}-{members[0]:03d}-{members[-1]:03d}".replace(
            "-default-", "-"
        )
        executed = f"{STUDY}/notebooks/02_train-{group}.ipynb"
        values = {name: getattr(experiment, name) for name in PASSED_ON} | {"seeds": ",".join(map(str, members))}

        rule:
            name:
                "train_" + group.replace("-", "_")
            output:
                [update(directory(folder)) for folder in folders(experiment, members)],
            log:
                executed,
            params:  # evaluated here and now; a shell string would be evaluated after the loop
                command=execute("02_train", executed, " ".join(f"-p {k} {v}" for k, v in values.items())),
            threads: workflow.cores
            shell:
                "{params.command}"

        # Snakemake keeps a function for each rule here, never reads it, and copies all of them three times for each job
        globals().pop("__train_" + group.replace("-", "_"), None)


rule metric:
    input:
        EVERY,
        "notebooks/03_metric.ipynb",
    output:
        [f"{STUDY}/{name}.csv" for name in ("measures", "copies", "runs", "history")],
    log:
        f"{STUDY}/notebooks/03_metric.ipynb",
    params:
        command=execute("03_metric", f"{STUDY}/notebooks/03_metric.ipynb", f"-p study {base.study}"),
    threads: workflow.cores
    shell:
        "{params.command}"


rule costly:
    input:
        EVERY,
    output:
        f"{STUDY}/costly.csv",
    threads: workflow.cores
    run:
        import torch

        from modvar_lib import metrics, runs

        torch.set_num_threads(threads)
        runs.write(metrics.measure_costly(base.study), base.study, "costly.csv", float_format="%.6g")


for analysis in ANALYSES:

    rule:
        name:
            analysis
        input:
            rules.metric.output,
            rules.costly.output if analysis == "06_ruler" else [],
            f"{STUDY}/done/06_ruler" if analysis == "09_explore" and "06_ruler" in ANALYSES else [],
            f"notebooks/{analysis}.ipynb",
            "config/primary.yaml",
        output:
            [f"{STUDY}/headline.md"] if analysis == "04_analysis" else [],
            touch(f"{STUDY}/done/{analysis}"),
        log:
            f"{STUDY}/notebooks/{analysis}.ipynb",
        params:
            command=execute(analysis, f"{STUDY}/notebooks/{analysis}.ipynb", f"-p study {base.study}"),
        shell:
            "{params.command}"


rule report:
    input:
        [f"{STUDY}/done/{name}" for name in ["01_data", *ANALYSES]],
    output:
        f"{STUDY}/report/index.html",
    shell:
        "python -m modvar_lib.report {base.study}"
