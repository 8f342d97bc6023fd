"""modvar: do networks trained on modularly varying goals become more modular?

The rooms, ground floor first (a room imports only those above it in this list):
errors, streams, goals, data, models, settings, training, runs, metrics, statistics, figures, notebook.
"""
