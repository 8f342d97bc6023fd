"""Execute the notebooks at toy size and keep them as what the tests compare with: make reference."""

import os
import tempfile
from pathlib import Path

import nbformat
import papermill

from modvar_lib import data, notebook

HERE = Path(__file__).parent
STUDY = {"study": "reference"}
TOY = {
    "seeds": "0-1",
    "epochs": 4,
    "period": 1,
    "final_epochs": 2,
    "pairs_per_epoch": 6000,
    "batch_size": 64,
    "device": "cpu",
}
SCHEDULE = {name: TOY[name] for name in ("seeds", "epochs", "period", "final_epochs")}
REFERENCES = {  # in the order in which they need each other
    "01_data": SCHEDULE,
    "02_train-cnn": {**STUDY, **TOY, "architecture": "cnn", "regime": "varying"},
    "02_train-fixed": {**STUDY, **TOY, "regime": "fixed"},
    "02_train-varying": {**STUDY, **TOY, "regime": "varying", "frames": 2},
    "03_metric": STUDY,
    "04_analysis": STUDY,
    "09_explore": STUDY,
    "10_your_own": {**STUDY, "seeds": "0-2", "epochs": 4, "period": 1, "device": "cpu"},
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODVAR_RESULTS"] = folder
        for name, parameters in REFERENCES.items():
            executed = Path(folder, f"{name}.ipynb")
            source = data.ROOT / "notebooks" / f"{name.split('-')[0]}.ipynb"
            papermill.execute_notebook(source, executed, parameters, progress_bar=False)
            nbformat.write(notebook.clean(executed), HERE / f"{name}.ipynb")
            print(name, flush=True)
    print("made tests/reference/; read git diff tests/reference, then commit it with the notebooks")
