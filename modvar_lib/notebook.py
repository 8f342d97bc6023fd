"""What every notebook starts with: its parameters checked, and versions printed."""

import os
import platform
import re
import sys
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from modvar_lib import __version__, data
from modvar_lib.errors import InputError, lookup, one_line
from modvar_lib.settings import Settings


def settings(own: tuple[str, ...] = (), **parameters) -> Settings:
    """Settings from a notebook's parameters; `own`: names of others that it checks itself. A name
    that papermill injected but the notebook does not have is an error. From here on, errors that a
    user can mend (a full disk, no permission, no memory) are one line."""
    from IPython import get_ipython

    def show(shell, kind, error, traceback, tb_offset=None):
        known = one_line(error)
        shell.showtraceback((InputError, known, None) if known else (kind, error, traceback))

    own_code()
    if shell := get_ipython():
        shell.set_custom_exc((OSError, MemoryError, RuntimeError), show)
        cells = [cell for cell in shell.user_ns["In"] if cell.startswith("# Parameters\n")]
        for name in re.findall(r"^(\w+) = ", "".join(cells[-1:]), re.MULTILINE):
            lookup(parameters | dict.fromkeys(own), "unknown parameter", name)
    return Settings(**parameters)


def own_code() -> None:
    """Run the file that $MODVAR_OWN names, from the project's root, which registers regimes,
    architectures and measures of one's own: once a process."""
    name = os.environ.get("MODVAR_OWN")
    if not name or "modvar_own" in sys.modules:
        return
    path = data.ROOT / name
    spec = spec_from_file_location("modvar_own", path)  # none, but of a Python file
    if not path.is_file() or not spec or not spec.loader:
        raise InputError(f"MODVAR_OWN: got {name!r}; allowed: a Python file, from {data.ROOT}")
    module = sys.modules["modvar_own"] = module_from_spec(spec)
    spec.loader.exec_module(module)


def versions() -> str:
    """One line: Python, torch and modvar."""
    return f"Python {platform.python_version()}, torch {version('torch')}, modvar {__version__}"


def done(following: str, *paths: Path) -> None:
    """The last words of a notebook: where its results are, from the project's root where they are
    in it, and what comes next."""
    for path in paths:
        print("results:", path.relative_to(data.ROOT) if path.is_relative_to(data.ROOT) else path)
    print("next:", following)
