"""Copy a finished study to what is committed: python -m modvar_lib.publish STUDY (or make publish STUDY=...).

Tables and executed notebooks go to results/published/<study>/, figures to figures/<study>/, each with the checksums of its files
in SHA256SUMS; what was there before is replaced. Of the runs, the first of each arm in SHOWN is copied too, for 09_explore.
"""

import json
import shutil
import sys
from pathlib import Path

import nbformat
from safetensors.torch import save

from modvar_lib import data, files, notebook, report, runs
from modvar_lib.errors import InputError, command

NEEDED = (
    "runs.csv",
    "history.csv",
    "measures.csv",
    "summary.csv",
    "difference.csv",
    "headline.md",
    "figures",
    "notebooks",
)
SHOWN = ("MNIST-mlp-fixed", "MNIST-mlp-varying", "MNIST-towers-fixed")
EVERY = 10  # epochs between those of its frames that are published


def publish(study: str) -> None:
    """Copy one study; nothing is touched when a part of it is missing or a notebook ended in an error."""
    source = runs.study_folder(study)
    for name in NEEDED:
        if not (source / name).exists():
            raise InputError(
                f"study: {source / name} is missing; allowed: a finished study; run make reproduce with its config"
            )
    for path in source.glob("*.csv"):
        try:
            files.read_table(path)
        except ValueError as error:
            raise InputError(
                f"study: {path} is damaged ({error}); delete it and run the notebook that writes it"
            ) from None
    notebooks = {
        path.name: notebook.clean(path) for path in sorted((source / "notebooks").glob("*.ipynb"))
    }
    tables, figures = data.ROOT / "results" / "published" / study, data.ROOT / "figures" / study
    new_tables, new_figures = (to.with_name(f".{to.name}-new") for to in (tables, figures))
    for folder in (new_tables, new_figures):
        shutil.rmtree(folder, ignore_errors=True)
    (new_tables / "notebooks").mkdir(parents=True)
    for path in [*source.glob("*.csv"), source / "headline.md"]:
        shutil.copyfile(path, new_tables / path.name)
    for name, cleaned in notebooks.items():
        nbformat.write(cleaned, new_tables / "notebooks" / name)
    for arm in SHOWN:
        for path in sorted((source / "runs" / arm).glob("seed-*"))[:1]:
            shown(path, new_tables / "runs" / arm / path.name)
    shutil.copytree(source / "figures", new_figures)
    for new, old in ((new_tables, tables), (new_figures, figures)):
        files.write_checksums(new, files.digests(new))
        shutil.rmtree(old, ignore_errors=True)
        new.rename(old)
    report.make(f"published/{study}", tables)
    print(
        f"published {study}: {tables.relative_to(data.ROOT)}/ and {figures.relative_to(data.ROOT)}/; look at them, then commit"
    )


def shown(path: Path, to: Path) -> None:
    """Copy a run, with fewer of its frames."""
    frames = runs.load(path).frames
    few = {f"{n}/{k}": v for n, frame in frames.items() if n % EVERY == 0 for k, v in frame.items()}
    shutil.copytree(path, to, ignore=shutil.ignore_patterns("frames.safetensors"))
    if few:
        files.write(to / "frames.safetensors", save(few))
        origin = json.loads((to / "provenance.json").read_text())
        origin.setdefault("files", {})["frames.safetensors"] = files.digests(to)[
            "frames.safetensors"
        ]
        files.write(to / "provenance.json", f"{json.dumps(origin, indent=2)}\n".encode())


if __name__ == "__main__":
    command(lambda: publish(*sys.argv[1:]))
