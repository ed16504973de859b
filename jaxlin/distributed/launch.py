"""A supervisor around each process of a run, which ends in one sentence when one of them dies.

JAX's coordination service ends a process that lost another one from C++ (SIGABRT, with pages of
log), where no Python code can say what happened. So the process that a user starts does not
compute: it supervises a child that does, passes signals on to it and its output through, and
turns such an end into a sentence and exit code 75, which means: start all processes again with
`--resume auto`.
"""

__all__ = ["ABANDONED", "LOST", "supervise", "wanted"]

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

from jaxlin.distributed.cluster import ALONE, JOINED, SUPERVISED, cluster

LOST = 75
"""Exit code (EX_TEMPFAIL) of a run that ended early and can go on: start it again."""
ABANDONED = 128 + signal.SIGABRT
"""How a child ends when another process has gone: its supervisor says so."""
_PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
_LOG = re.compile(
    rb"[WEF]\d{4} [\d:.]+ +\d+ (coordination|preemption|distributed|client)\w*\.\w+:\d+\]"
)
_CHATTER = re.compile(rb"\[Gloo\] Rank \d+ is connected")


def wanted(options: Any) -> bool:
    """Whether `options`, or the cluster around, ask for a run of many processes to be started."""
    if not hasattr(options, "coordinator") or SUPERVISED in os.environ:
        return False
    return options.coordinator is not None or cluster() is not None


def supervise(command: Sequence[str]) -> int:
    """Run a command in a child and return the exit code.

    The child's output passes through, but for what the coordination service logs about its end.
    """
    watched, held_open = os.pipe()
    joined, joining = os.pipe()
    environment = os.environ | {SUPERVISED: str(watched), JOINED: str(joining)}
    child = subprocess.Popen(
        command,
        env=environment,
        pass_fds=[watched, joining],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # the terminal's Ctrl-C reaches it through us, once
    )
    os.close(watched)
    os.close(joining)
    before = _pass_signals_on(child)
    logged: list[bytes] = []
    relays = [
        threading.Thread(target=_relay, args=(child.stdout, sys.stdout, None)),
        threading.Thread(target=_relay, args=(child.stderr, sys.stderr, logged)),
    ]
    for relay in relays:
        relay.start()
    code = child.wait()
    for relay in relays:
        relay.join()
    os.close(held_open)
    with os.fdopen(joined, "rb") as said:
        alone = not said.read()
    for number, handler in before.items():
        signal.signal(number, handler)
    return _verdict(code, b"".join(logged), alone)


def _verdict(code: int, logged: bytes, alone: bool) -> int:
    """The exit code, after a sentence if the child could not say one itself."""
    if code in (0, 1, 3) or os.environ.get("JAXLIN_TRACEBACK"):
        sys.stderr.write(logged.decode(errors="replace"))
    if code in (-signal.SIGABRT, ABANDONED) and alone:
        print(f"jaxlin: {ALONE.format(where='')}", file=sys.stderr)
        return 2
    if code in (-signal.SIGABRT, ABANDONED):
        print(
            "jaxlin: another process of this run died or could not be reached, so this one ended "
            "too. Start all of them again, with --resume auto to go on from the last checkpoint.",
            file=sys.stderr,
        )
        return LOST
    if code < 0:
        name = signal.Signals(-code).name
        print(f"jaxlin: the process was ended by {name}.", file=sys.stderr)
        return 128 - code
    return code


def _pass_signals_on(child: subprocess.Popen) -> dict:
    if threading.current_thread() is not threading.main_thread():
        return {}

    def pass_on(number: int, frame: FrameType | None) -> None:
        if child.poll() is None:
            child.send_signal(number)

    numbers = [getattr(signal, name) for name in _PASSED_ON if hasattr(signal, name)]
    return {number: signal.signal(number, pass_on) for number in numbers}


def _relay(source: Any, sink: Any, logged: list | None) -> None:
    """Pass lines on; from the first that the coordination service logs on, keep them instead.

    What the command itself says is passed on even then: the service may notice first that another
    process has ended, for the same reason.
    """
    for line in source:
        if _CHATTER.match(line):
            continue
        ours = line.startswith(b"jaxlin: ")
        if logged is not None and not ours and (logged or _LOG.search(line)):
            logged.append(line)
            continue
        sink.write(line.decode(sink.encoding, errors="replace"))
        sink.flush()
