"""modvar: do networks trained on modularly varying goals become more modular?

The rooms, ground floor first (a room imports only those above it in this list): errors, streams,
goals, data, models, settings, training, runs, metrics, config, notebook; then the second shelf,
analysis: statistics, study, figures.
"""

import os

# Large tensors in huge pages, or fresh memory takes a third of a convolutional training step. Read
# once, by torch.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
