"""A run of many processes: the cluster around it, joining the others, and the loss of one."""

__all__ = ["ALONE", "JOINED", "SUPERVISED", "cluster", "connect", "lost_peer", "reachable_names"]

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Mapping
from typing import Any

SUPERVISED = "JAXLIN_SUPERVISED"
"""Where a supervisor tells its child that it is one: the file descriptor to watch it by."""
_PEER = re.compile(
    r"gloo|nccl|heartbeat|coordination service|connection (reset|closed|refused)|socket closed"
    r"|deadline_exceeded|unavailable:",
    re.IGNORECASE,
)
JOINED = "JAXLIN_JOINED"
"""Where a child says that it has joined the others: before that, an end means that it could not."""
_COORDINATOR = "JAXLIN_COORDINATOR"
"""Where a child keeps the address of process 0, if it is known."""
ALONE = (
    "the processes of this run did not find each other{where}. Start all of them within a minute, "
    "with the same --coordinator and --num-processes, and --process-id 0, 1, ... once each."
)


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
    if SUPERVISED not in os.environ:
        return
    import jax

    _end_with_parent(int(os.environ[SUPERVISED]))
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
        raise ValueError(ALONE.format(where=f"{where} ({reason})")) from None
    os.write(int(os.environ[JOINED]), b"1")


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
    return SUPERVISED in os.environ and _PEER.search(str(error)) is not None


def _end_with_parent(watched: int) -> None:
    """Whatever ends the supervisor, `kill -9` too, ends this process."""

    def watch() -> None:
        os.read(watched, 1)
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
