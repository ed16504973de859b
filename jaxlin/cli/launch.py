"""Runs of many processes: joining them, and ending in one sentence when one of them dies.

JAX's coordination service ends a process that lost another one from C++ (SIGABRT, with pages of
log), where no Python code can say what happened. So the process that a user starts does not
compute: it supervises a child that does, passes signals on to it and its output through, and
turns such an end into a sentence and exit code 75, which means: start all processes again with
`--resume auto`.
"""

__all__ = [
    "ABANDONED",
    "LOST",
    "child",
    "connect",
    "lost_peer",
    "processes",
    "reachable_names",
    "supervise",
]

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any

LOST = 75
"""Exit code (EX_TEMPFAIL) of a run that ended early and can go on: start it again."""
ABANDONED = 128 + signal.SIGABRT
"""How a child ends when another process has gone: its supervisor says so."""
_SUPERVISED = "JAXLIN_SUPERVISED"
_PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
_LOG = re.compile(
    rb"[WEF]\d{4} [\d:.]+ +\d+ (coordination|preemption|distributed|client)\w*\.\w+:\d+\]"
)
_CHATTER = re.compile(rb"\[Gloo\] Rank \d+ is connected")
_PEER = re.compile(
    r"gloo|nccl|heartbeat|coordination service|connection (reset|closed|refused)|socket closed"
    r"|deadline_exceeded|unavailable:",
    re.IGNORECASE,
)
_JOINED = "JAXLIN_JOINED"
"""Where a child says that it has joined the others: before that, an end means that it could not."""
_COORDINATOR = "JAXLIN_COORDINATOR"
"""Where a child keeps the address of process 0, if it is known."""
_ALONE = (
    "the processes of this run did not find each other{where}. Start all of them within a minute, "
    "with the same --coordinator and --num-processes, and --process-id 0, 1, ... once each."
)
_CHILD = "from jaxlin.cli.launch import child; child()"


def processes(options: Any) -> bool:
    """Whether `options`, or the cluster around, ask for a run of many processes to be started."""
    if not hasattr(options, "coordinator") or _SUPERVISED in os.environ:
        return False
    return options.coordinator is not None or cluster() is not None


def cluster(environment: Mapping[str, str] = os.environ) -> str | None:
    """The name of the cluster that started this process as one of several, or `None`.

    >>> cluster({"SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_LOCALID": "0",
    ...     "SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "n[1-4]", "SLURM_STEP_NUM_TASKS": "4"})
    'slurm'
    >>> cluster({"JOB_COMPLETION_INDEX": "0", "JAX_COORDINATOR_ADDRESS": "a:1",
    ...     "JAX_NUM_PROCESSES": "2"})
    'jobset'
    >>> cluster({"SLURM_JOB_ID": "7"})  # inside sbatch or salloc, but not under srun
    """
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    if all(name in environment for name in slurm):
        return "slurm" if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 else None
    jobset = ("JOB_COMPLETION_INDEX", "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES")
    if all(name in environment for name in jobset):
        return "jobset" if int(environment["JAX_NUM_PROCESSES"]) > 1 else None
    workers = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return "tpu" if len(workers) > 1 else None


def connect(options: Any) -> None:
    """Join the other processes of the run, in the child; nothing for a run of one process.

    Raises:
      ValueError: they could not be reached.
    """
    if _SUPERVISED not in os.environ:
        return
    import jax

    _end_with_parent(int(os.environ[_SUPERVISED]))
    address, count, number = options.coordinator, options.num_processes, options.process_id
    if address is None and cluster() == "jobset":
        address = os.environ["JAX_COORDINATOR_ADDRESS"]
        count = int(os.environ["JAX_NUM_PROCESSES"])
        number = int(os.environ["JOB_COMPLETION_INDEX"])
    known = address not in (None, "auto")
    if known:
        os.environ[_COORDINATOR] = address
    where = f" at {address}" if known else ""
    try:
        jax.distributed.initialize(
            coordinator_address=address if known else None,
            num_processes=count if known else None,
            process_id=number if known else None,
            cluster_detection_method="deactivate" if known else None,
            heartbeat_timeout_seconds=options.heartbeat,
            initialization_timeout=max(60, options.heartbeat),
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(_ALONE.format(where=f"{where} ({reason})")) from None
    os.write(int(os.environ[_JOINED]), b"1")


def reachable_names() -> list[str]:
    """Names under which other hosts may reach this one, best first.

    The first is the address from which it would call the coordinator, where that is known; the next
    the one from which it would call anybody.
    """
    called = [("192.0.2.1", 9)]  # in a network for documentation: nothing is sent there
    if _COORDINATOR in os.environ:
        host, _, port = os.environ[_COORDINATOR].rpartition(":")
        called.insert(0, (host, int(port)))
    names = []
    for address in called:
        with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            names.append(probe.getsockname()[0])
    return list(dict.fromkeys([*names, socket.gethostname()]))


def lost_peer(error: BaseException) -> bool:
    """Whether a collective operation failed because another process has gone."""
    return _SUPERVISED in os.environ and _PEER.search(str(error)) is not None


def child() -> None:
    """What a supervised process runs: the command of `sys.argv`.

    After an error it ends at once: an orderly end waits for all other processes, and they wait for
    this one.
    """
    from jaxlin.cli import main

    try:
        code, orderly = main(sys.argv[1:]), True
    except Exception:
        traceback.print_exc()
        code, orderly = 1, False
    sys.stdout.flush()
    sys.stderr.flush()
    if code in (2, 130, ABANDONED) or not orderly:
        os._exit(code)
    sys.exit(code)


def supervise(words: list[str]) -> int:
    """Run `jaxlin words` in a child and return the exit code.

    The child's output passes through, but for what the coordination service logs about its end.
    """
    watched, held_open = os.pipe()
    joined, joining = os.pipe()
    environment = os.environ | {_SUPERVISED: str(watched), _JOINED: str(joining)}
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, *words],
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
        print(f"jaxlin: {_ALONE.format(where='')}", file=sys.stderr)
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


def _end_with_parent(watched: int) -> None:
    """Whatever ends the supervisor, `kill -9` too, ends this process."""

    def watch() -> None:
        os.read(watched, 1)
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
