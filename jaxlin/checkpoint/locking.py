"""One writer a folder: a lock that the operating system releases, whatever ends the process."""

__all__ = ["LOCK", "lock"]

import errno
import importlib.util
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax

from jaxlin.core import DataError

LOCK = ".lock"
PATIENCE = 3.0
"""Seconds: the child of a run that was killed may need a moment to see that its parent is gone."""
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def lock(folder: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Hold `folder` for this process while the context lasts.

    Released by the operating system even after `kill -9`, so a file `.lock` that is left behind
    holds nothing. Where the file system or the system knows no such locks (Windows), none is held.
    In a job of many processes the first one, which writes, holds it.

    Args:
      folder: that is written.
      patience: seconds to wait for another holder's end.

    Raises:
      DataError: another process still writes this folder; the message says which.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with lock(folder), lock(folder, patience=0.1):
    ...     pass
    Traceback (most recent call last):
    jaxlin.core.DataError: ...: process ... writes this folder ...
    """
    if importlib.util.find_spec("fcntl") is None or jax.process_index() != 0:
        yield
        return
    import fcntl

    path, deadline = folder / LOCK, time.monotonic() + patience
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise DataError(
                f"{folder}: {holder} writes this folder at this moment. Wait for its end, or "
                "choose another --out."
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
        if _is_still(path, descriptor):
            break
        os.close(descriptor)  # its holder removed it between our opening and our locking it
    os.truncate(descriptor, 0)
    with suppress(OSError):  # only the message needs it, and the disk may be full
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
