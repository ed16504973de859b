"""Options of the commands that fit models: on which devices, over how many processes, how exact."""

__all__ = ["NOT_ABOUT_THE_RUN", "DeviceOptions", "check_devices", "remarks", "set_flags", "start"]

import os
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

NOT_ABOUT_THE_RUN = (
    *("devices", "class_devices", "coordinator", "num_processes", "process_id", "heartbeat"),
)
"""Options that change where a run is computed, not what it is: they stay out of `config.json`."""
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Devices: where the numbers are computed, and how exactly."""

    devices: int | None = None
    """Devices to use (without it: all of this machine's; of each machine's among several)."""
    class_devices: int = 1
    """Over how many of them the classes (the heads of a sweep) are split, where one cannot hold all
    of them."""
    precision: Literal["highest", "tf32", "bf16"] = "highest"
    """How operands of matrix products are rounded; sums are float32 always. highest does not."""
    dtype: Literal["float32", "float64"] = "float32"
    """Of parameters and sums."""
    deterministic: bool = False
    """The same bits in every run on the same devices, on a GPU too (slower there)."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """Address of process 0, for a run of many processes; `auto` asks the cluster for everything.
    Under Slurm, on TPU pods and in a Kubernetes JobSet it is found without being asked."""
    num_processes: int | None = None
    """How many processes the run has."""
    process_id: int | None = None
    """Which of them this is, from 0."""
    heartbeat: int = 30
    """Seconds of silence after which a process counts as dead and the others end."""


def check_devices(options: DeviceOptions) -> None:
    """Refuse numbers that cannot be meant."""
    for name in ("devices", "class_devices", "num_processes"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {value}.")
    if options.heartbeat < 3:
        raise ValueError(
            f"--heartbeat must be at least 3 seconds, got {options.heartbeat}: shorter silences "
            "are normal."
        )
    count, number = options.num_processes, options.process_id
    if options.coordinator in (None, "auto"):
        given = [
            name for name in ("num_processes", "process_id") if getattr(options, name) is not None
        ]
        if given:
            raise ValueError(
                f"--{given[0].replace('_', '-')} needs --coordinator HOST:PORT, the address of "
                "process 0."
            )
        return
    host, _, port = options.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(
            f"--coordinator must be HOST:PORT or auto, got {options.coordinator!r}. Give the "
            "address of process 0 and a free port there, the same to all processes."
        )
    if count is None or number is None:
        raise ValueError(
            "--coordinator needs --num-processes and --process-id too. Or give --coordinator auto "
            "on a cluster that knows them."
        )
    if not 0 <= number < count:
        raise ValueError(f"--process-id must be in [0, {count}), got {number}.")


def set_flags(options: DeviceOptions) -> None:
    """What must be set before JAX starts.

    Raises:
      ValueError: it has started already, and on a GPU the flag would come too late.
    """
    if not options.deterministic or DETERMINISTIC in os.environ.get("XLA_FLAGS", ""):
        return
    if "jax" in sys.modules:
        import jax

        if jax.default_backend() == "gpu":
            raise ValueError(
                f"--deterministic comes too late: JAX runs already. Set XLA_FLAGS={DETERMINISTIC}."
            )
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()


def start(options: Any, *, proves: bool) -> Any:
    """Join the other processes, set the precision of products, and return the mesh.

    Args:
      options: of the command, with its `OutputOptions`.
      proves: the run certifies its fits; where the devices cannot, a line says so.

    Returns:
      A `jaxlin.distributed.sharding.mesh`, or `None` where one device does everything.
    """
    set_flags(options)
    import jax

    from jaxlin.distributed.cluster import connect
    from jaxlin.distributed.sharding import mesh
    from jaxlin.runs.output import say

    connect(options)
    # The package states the precision of its products; this is for those of others.
    jax.config.update("jax_default_matmul_precision", "highest")
    count = jax.local_device_count() if options.devices is None else options.devices
    try:
        over = mesh(count, class_axis=options.class_devices)
    except ValueError as error:
        text = (
            str(error).replace("`devices`", "--devices").replace("`class_axis`", "--class-devices")
        )
        raise ValueError(text) from None
    if jax.process_index() == 0:
        for sentence in remarks(over.devices.flat[0], options.precision, proves=proves):
            say(f"jaxlin: {sentence}", quiet=options.quiet)
    return over if over.size > 1 else None


def remarks(device: Any, precision: str, *, proves: bool) -> list[str]:
    """What a user should know of the arithmetic that a device lacks, and that a run asks for.

    Args:
      device: of `jax.devices()`, or alike.
      precision: of products, as `--precision`.
      proves: the run certifies its fits.
    """
    import jax

    from jaxlin.platforms import lacking, proof

    said = proof(device, jax.process_count()) if proves else None
    found = [lacking(device, precision), said]
    return [sentence for sentence in found if sentence]
