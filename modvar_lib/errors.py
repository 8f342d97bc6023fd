"""One kind of error for everything a user can get wrong: one line, shown without a traceback."""

import difflib
import errno
import sys

TROUBLE = {  # of the file system
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ENAMETOOLONG, errno.ELOOP),
}


class InputError(ValueError):
    """A parameter, file or folder is not usable; the message says which, what was got and what is allowed."""

    def _render_traceback_(self) -> list[str]:  # what IPython, and so papermill, prints
        return [f"InputError: {self}"]


def one_line(error: BaseException) -> InputError | None:
    """What a user can do something about, said in one line; None for any other error."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, OSError) and error.errno in TROUBLE:
        return InputError(
            f"files: {error.filename or 'a file'}: {error.strerror}; allowed: folders of this user's, with free space; "
            "MODVAR_RESULTS says where results go, MODVAR_DATA where the data is"
        )
    if out_of_memory(error):
        return InputError(
            "memory: it ran out; allowed: fewer processes at a time, or OMP_NUM_THREADS=1 to measure one network at a time"
        )
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a GPU."""
    said = "can't allocate memory", "CUDA out of memory"
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def command(function) -> None:
    """Run a command-line program: errors that a user can do something about end it with one line."""
    try:
        function()
    except Exception as error:
        if known := one_line(error):
            sys.exit(f"InputError: {known}")
        raise


def lookup(registry: dict, parameter: str, name):
    """The entry called `name`, or one line that lists what is allowed."""
    if isinstance(name, str) and name in registry:
        return registry[name]
    near = difflib.get_close_matches(str(name), registry, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(f"{parameter}: got {name!r}; allowed: {', '.join(registry)}{hint}")
