"""One kind of error for everything a user can get wrong: one line, shown without a traceback."""

import argparse
import difflib
import errno
import sys
from collections.abc import Generator
from contextlib import contextmanager
from itertools import chain

FILE_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ENAMETOOLONG, errno.ELOOP),
}
NO_MEMORY = "can't allocate memory", "CUDA out of memory"  # in torch's messages


class InputError(ValueError):
    """A parameter, file or folder is not usable; the message says which, what was got and what is
    allowed."""

    def _render_traceback_(self) -> list[str]:  # what IPython, and so papermill, prints
        return [f"InputError: {self}"]


@contextmanager
def reading(what: str, mend: str) -> Generator[None, None, None]:
    """Raise InputError, `what` (why); `mend`, for any error while something of a user's is read."""
    try:
        yield
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{what} ({why}); {mend}") from None


def one_line(error: BaseException) -> InputError | None:
    """What a user can do something about, said in one line; None for any other error."""
    if isinstance(error, OSError) and error.errno in FILE_SYSTEM:
        return InputError(
            f"files: {error.filename or 'a file'}: {error.strerror}; allowed: folders that you may "
            "write, with free space; MODVAR_RESULTS says where results go, MODVAR_DATA where data is"
        )
    of_torch = isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
    if of_torch or isinstance(error, MemoryError):
        return InputError("memory: it ran out; allowed: a smaller group_size or batch_size")
    return error if isinstance(error, InputError) else None


def command(function, *names: str, about: str = "") -> None:
    """Run a command-line program, which ends with `one_line` where there is one. names: of its
    arguments, the last one, if it ends in "...", one or more; about: what it does, for --help."""
    try:
        if names:
            parser = argparse.ArgumentParser(description=about)
            for name in names:
                parser.add_argument(name.rstrip("."), nargs="+" if name.endswith("...") else 1)
            function(*chain(*vars(parser.parse_args()).values()))
        else:
            function()
    except Exception as error:
        if known := one_line(error):
            sys.exit(f"InputError: {known}")
        raise


def lookup(registry: dict, parameter: str, name):
    """The entry called `name`. Errors: InputError, which lists what is allowed."""
    if isinstance(name, str) and name in registry:
        return registry[name]
    near = difflib.get_close_matches(name, registry, n=1) if isinstance(name, str) else ()
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(f"{parameter}: got {name!r:.200}; allowed: {', '.join(registry)}{hint}")
