"""Architectures besides `mlp` and `cnn`; importing this package registers them. modern: residual, transformer, mixer networks.
calibration: networks whose modularity is known by construction."""

from modvar_lib.architectures import modern  # noqa: F401, I001 (in the order in which names are listed)
from modvar_lib.architectures import calibration  # noqa: F401
