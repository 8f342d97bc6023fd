"""One kind of error for everything a user can get wrong: one line, shown without a traceback."""

import difflib


class InputError(ValueError):
    """A parameter, file or folder is not usable; the message says which, what was got and what is allowed."""

    def _render_traceback_(self) -> list[str]:  # what IPython, and so papermill, prints
        return [f"InputError: {self}"]


def lookup(registry: dict, parameter: str, name):
    """The entry called `name`, or one line that lists what is allowed."""
    if isinstance(name, str) and name in registry:
        return registry[name]
    near = difflib.get_close_matches(str(name), registry, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(f"{parameter}: got {name!r}; allowed: {', '.join(registry)}{hint}")
