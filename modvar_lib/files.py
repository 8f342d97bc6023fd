"""Files that are whole or absent, tables with checksums, and locks that end with the process that holds them."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pandas as pd

from modvar_lib.errors import InputError

SUMS = "SHA256SUMS"  # of the tables beside it, as `sha256sum -c` reads it


def digest(content: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(content).hexdigest()


def write(path: Path, content: bytes) -> None:
    """Write a file aside, to the disk, and rename it into place: after a kill or a full disk it is the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def read(path: Path, limit: int) -> bytes:
    """The content of a file that may come from a stranger: a plain file, no link, of at most `limit` bytes; else ValueError."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("it is not a plain file")
    if path.stat().st_size > limit:
        raise ValueError(f"it has {path.stat().st_size} bytes, more than {limit}")
    return path.read_bytes()


def write_table(table: pd.DataFrame, path: Path, index: bool = False, **options) -> None:
    """Write a CSV file, and its checksum beside it. Options are those of `to_csv`."""
    content = table.to_csv(index=index, **options).encode()
    with locked(path.with_name(f".{SUMS}.lock")):
        for killed in path.parent.glob(f".{path.name}-*"):
            killed.unlink()
        sums = checksums(path.parent)
        if sums.pop(
            path.name, None
        ):  # a kill between the two leaves a whole table without a checksum
            write_checksums(path.parent, sums)
        write(path, content)
        write_checksums(path.parent, sums | {path.name: digest(content)})


def digests(folder: Path) -> dict[str, str]:
    """{name: SHA-256} of every file under a folder, but for hidden ones, SHA256SUMS, and figures/ and report/, which are made
    from the others."""
    names = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    usual = {
        n: p
        for n, p in names.items()
        if not n.startswith((".", "figures/", "report/")) and n != SUMS
    }
    return {name: digest(path.read_bytes()) for name, path in usual.items()}


def write_checksums(folder: Path, sums: dict[str, str]) -> None:
    """Write SHA256SUMS into a folder."""
    lines = [f"{sums[name]}  {name}\n" for name in sorted(sums)]
    write(folder / SUMS, "".join(lines).encode())


def checksums(folder: Path) -> dict[str, str]:
    """{name: SHA-256} of what was written into a folder, as its SHA256SUMS says; empty without one."""
    path = folder / SUMS
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return {line[66:]: line[:64] for line in lines}


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file; ValueError when it is cut short, damaged, or not what was written."""
    content = path.read_bytes()
    if digest(content) != checksums(path.parent).get(path.name, digest(content)):
        raise ValueError(f"its SHA-256 is not the one in {SUMS}")
    if not content.endswith(b"\n"):
        raise ValueError("its last line is cut short")
    return pd.read_csv(BytesIO(content), low_memory=False)


@contextmanager
def locked(path: Path, numbers: Iterable[int] = (0,), waiting: str = "") -> Iterator[None]:
    """Hold some numbers (bytes of a lock file) for this process alone, also against other machines on the same file system; says
    `waiting` when it must wait. The system lets go of them when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        for number in sorted(numbers):  # in one order everywhere: nobody waits in a circle
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except BlockingIOError:
                if waiting:
                    print(waiting, flush=True)
                    waiting = ""
                fcntl.lockf(file, fcntl.LOCK_EX, 1, number)
            except OSError as error:
                raise InputError(
                    f"MODVAR_RESULTS: {path.parent} does not support locks ({error.strerror}); "
                    "allowed: a folder on a file system that does"
                ) from None
        yield
