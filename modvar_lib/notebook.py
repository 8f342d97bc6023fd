"""What every notebook starts with: its parameters checked, and versions printed."""

import ast
import importlib.util
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from modvar_lib import __version__, data
from modvar_lib.errors import InputError, lookup, one_line
from modvar_lib.settings import Settings


def settings(own: tuple[str, ...] = (), **parameters) -> Settings:
    """Settings from a notebook's parameters; `own`: names of others that it checks itself. A name
    that papermill injected but the notebook does not have is an error."""
    short_errors()
    own_code()
    for name in injected():
        lookup(parameters | dict.fromkeys(own), "unknown parameter", name)
    return Settings(**parameters)


def own_code() -> None:
    """Run the file that $MODVAR_OWN names, from the project's root, which registers regimes,
    architectures and measures of one's own: once a process."""
    name = os.environ.get("MODVAR_OWN")
    if not name or "modvar_own" in sys.modules:
        return
    path = data.ROOT / name
    if not path.is_file() or path.suffix != ".py":
        raise InputError(f"MODVAR_OWN: got {name!r}; allowed: a Python file, from {data.ROOT}")
    spec = importlib.util.spec_from_file_location("modvar_own", path)
    module = sys.modules["modvar_own"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def short_errors() -> None:
    """In this kernel, from here on: errors that a user can mend (a full disk, no permission, no
    memory) are one line."""
    from IPython import get_ipython

    def show(shell, kind, error, traceback, tb_offset=None):
        known = one_line(error)
        shell.showtraceback((InputError, known, None) if known else (kind, error, traceback))

    if shell := get_ipython():
        shell.set_custom_exc((OSError, MemoryError, RuntimeError), show)


def injected() -> list[str]:
    """The names set by the cell that papermill put in, in this kernel; none when the notebook is
    used by hand."""
    from IPython import get_ipython

    shell = get_ipython()
    cells = [s for s in (shell.user_ns["In"] if shell else ()) if s.startswith("# Parameters\n")]
    lines = ast.parse(cells[-1]).body if cells else ()
    targets = [target for line in lines if isinstance(line, ast.Assign) for target in line.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def versions() -> str:
    """One line: Python, torch and modvar."""
    return f"Python {platform.python_version()}, torch {version('torch')}, modvar {__version__}"


def done(following: str, *paths: Path) -> None:
    """The last words of a notebook: where its results are, from the project's root where they are
    in it, and what comes next."""
    for path in paths:
        print("results:", path.relative_to(data.ROOT) if path.is_relative_to(data.ROOT) else path)
    print("next:", following)
