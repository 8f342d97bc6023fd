"""modvar: do networks trained on modularly varying goals become more modular?

The rooms, ground floor first (a room imports only those above it in this list): errors, data,
goals, models, architectures, settings, training, runs, config, metrics; analysis;
notebook.
"""

import os
from pathlib import Path

__version__ = "0.1.0"

# Large tensors in huge pages, or fresh memory takes a third of a convolutional training step. Read
# once, by torch.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if not (checkout := Path(__file__).parents[1]).joinpath("config", "primary.yaml").is_file():
    raise ImportError(
        f"modvar_lib: config/, data/, book/ and notebooks/ are not in {checkout}; it works from a "
        "checkout of the project: there, run make setup, or pip install --editable ."
    )
