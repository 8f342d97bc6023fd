"""What every notebook starts with, its parameters checked and versions printed; and what of an executed one is kept."""

import ast
import importlib.util
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from modvar_lib import data
from modvar_lib.errors import InputError, one_line
from modvar_lib.settings import Settings, unknown_parameter


def settings(**parameters) -> Settings:
    """Settings from a notebook's parameters. A name that papermill injected but the notebook does not have is an error."""
    short_errors()
    own()
    for name in injected():
        if name not in parameters:
            raise InputError(unknown_parameter(name, parameters))
    return Settings(**parameters)


def own() -> None:
    """Run the file that $MODVAR_OWN names, from the project's root, which registers regimes, architectures and measures of
    one's own: once a process."""
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
    """In this kernel, from here on: errors that a user can mend (a full disk, no permission, no memory) are one line."""
    from IPython import get_ipython

    def show(shell, kind, error, traceback, tb_offset=None):
        if known := one_line(error):
            shell._showtraceback(InputError, known, known._render_traceback_())
        else:
            shell.showtraceback((kind, error, traceback), tb_offset)

    if shell := get_ipython():
        shell.set_custom_exc((OSError, MemoryError, RuntimeError), show)


def injected() -> list[str]:
    """The names set by the cell that papermill put in, in this kernel; none when the notebook is used by hand."""
    from IPython import get_ipython

    shell = get_ipython()
    cells = [
        source
        for source in (shell.user_ns.get("In", []) if shell else [])
        if source.startswith("# Parameters\n")
    ]
    body = ast.parse(cells[-1]).body if cells else []
    return [
        target.id
        for line in body
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name)
    ]


def versions() -> str:
    """One line: Python, torch and modvar."""
    return (
        f"Python {platform.python_version()}, torch {version('torch')}, modvar {version('modvar')}"
    )


def clean(executed: Path) -> dict:
    """An executed notebook (nbformat's) fit to commit: outputs without timing and papermill's metadata. Errors are refused."""
    import nbformat  # takes more than a second, and kernels of notebooks have no use for it

    found = nbformat.read(executed, as_version=4)
    for cell in found.cells:
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            raise InputError(
                f"notebook: {executed} ends in an error; allowed: one that ran to its end"
            )
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected"  # papermill's is new every time
    found.metadata = {
        "kernelspec": found.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    return found
