"""Architectures besides `mlp` and `cnn`; importing this package registers them. modern: residual,
transformer, mixer networks. calibration: networks whose modularity is known by construction."""

from modvar_lib.architectures import calibration  # noqa: F401 (it imports modern)
