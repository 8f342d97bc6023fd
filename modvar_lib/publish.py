"""Copy a finished study to what is committed: python -m modvar_lib.publish STUDY (or make publish STUDY=...).

Tables and executed notebooks go to results/published/<study>/, figures to figures/<study>/, each with the checksums of its files
in SHA256SUMS; what was there before is replaced. Runs stay where they are.
"""

import shutil
import sys
from pathlib import Path

import nbformat

from modvar_lib import data, files, notebook, runs
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
    for folder in (tables, figures):
        shutil.rmtree(folder, ignore_errors=True)
    (tables / "notebooks").mkdir(parents=True)
    for path in [*source.glob("*.csv"), source / "headline.md"]:
        shutil.copyfile(path, tables / path.name)
    for name, cleaned in notebooks.items():
        nbformat.write(cleaned, tables / "notebooks" / name)
    shutil.copytree(source / "figures", figures)
    for folder in (tables, figures):
        files.write_checksums(folder, digests(folder))
    print(
        f"published {study}: {tables.relative_to(data.ROOT)}/ and {figures.relative_to(data.ROOT)}/; look at them, then commit"
    )


def digests(folder: Path) -> dict[str, str]:
    """{file: SHA-256} of every file under a folder, as it is now, but for SHA256SUMS and hidden ones."""
    found = [path for path in folder.rglob("[!.]*") if path.is_file() and path.name != files.SUMS]
    return {
        path.relative_to(folder).as_posix(): files.digest(path.read_bytes())
        for path in sorted(found)
    }


if __name__ == "__main__":
    command(lambda: publish(*sys.argv[1:]))
