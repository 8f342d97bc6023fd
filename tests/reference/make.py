"""Execute notebooks at toy size and keep them: the tests compare with them, cell by cell.

`make reference`. The others are executed by tests/test_graph.py and tests/test_published.py.
"""

import argparse
import os
import re
import tempfile
from pathlib import Path

import nbformat
import papermill

from modvar_lib import data

HERE = Path(__file__).parent
OF = {"study": "reference", "regime": "varying", "variant": "standardised"}
REFERENCES = {
    "01_data": {"seeds": "0-1", "epochs": 20, "period": 5},
    "02_train": OF
    | {
        "epochs": 40,
        "final_epochs": 10,
        "pairs_per_epoch": 8000,
        "standardise": True,
        "device": "cpu",
    },
    "03_metric": OF,
    "10_your_own": {
        "study": "reference",
        "seeds": "0-2",
        "epochs": 4,
        "period": 1,
        "device": "cpu",
    },
}


def clean(notebook, folder: str):
    """Fit to commit: progress bars as they end, without papermill's metadata, names of widgets and of
    the temporary folder."""
    for cell in notebook.cells:
        bars = [one for one in cell.get("outputs", []) if one.get("name") == "stderr"]
        if bars:
            bars[0].text = re.sub(r".*\r(?!\n)", "", "".join(one.text for one in bars))
            cell.outputs = [one for one in cell.outputs if one not in bars or one is bars[0]]
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = output.text.replace(folder, "results")
            else:
                output.data.pop("application/vnd.jupyter.widget-view+json", None)
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected"  # papermill's is new every time
    notebook.metadata = {
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    return notebook


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODVAR_RESULTS"] = folder
        for name, parameters in REFERENCES.items():
            source = data.ROOT / "notebooks" / f"{name}.ipynb"
            executed = papermill.execute_notebook(source, None, parameters, progress_bar=False)
            nbformat.write(clean(executed, folder), HERE / f"{name}.ipynb")
    print("made tests/reference/; read git diff tests/reference, then commit it with the notebooks")
