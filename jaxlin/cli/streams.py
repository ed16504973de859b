"""The three standard streams, fit for whatever a shell, a pipe or a scheduler makes of them.

Text that the stream's encoding does not have is printed as `\\u72ac`. A reader that has gone, as
`| head` goes, is no failure: what is printed for it goes nowhere, and the command goes on to its
own end and exit code. A stream that was closed from the start (`2>&-`) is the null device, so that
no file that is opened later takes its number and gets what is printed.
"""

__all__ = ["prepare_streams"]

import contextlib
import errno
import io
import os
import sys
from typing import Any


def prepare_streams() -> None:
    """Make the standard streams of this process safe; one that somebody replaced stays."""
    for descriptor in range(3):  # in order: a new descriptor gets the lowest free number
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # its number may be another file's by now
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _safe(stream, descriptor))


def _safe(stream: io.TextIOWrapper, descriptor: int) -> io.TextIOWrapper:
    """A stream like the one that Python opened, over a file that bears its reader's absence."""
    with contextlib.suppress(OSError):
        stream.flush()
    raw, unbuffered = _Standard(descriptor, "w", closefd=False), stream.write_through
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=unbuffered,
    )


class _Standard(io.FileIO):
    """A standard output that becomes the null device once it cannot be written.

    What is said for people, on stderr, is never a reason to fail. On stdout is what was asked for:
    that nobody reads on is fine, and any other failure, say a full disk, is raised once.
    """

    def write(self, text: Any) -> int | None:  # type: ignore[override]  # None: it would block
        try:
            return super().write(text)
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            if self.fileno() == 1 and error.errno != errno.EPIPE:
                raise OSError(error.errno, error.strerror, "stdout") from None
            return len(text)
