"""Show versions, devices, their memory and their arithmetic."""

__all__ = ["Options", "details", "run"]

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

_GIB = 1 << 30
_UNSET = {
    "float32": "float32",
    "tf32": "TF32: operands rounded to 11 bits",
    "bf16": "bfloat16: operands rounded to 8 bits",
    "unknown": "not known here",
}
_FLOAT64 = {
    "native": "native",
    "emulated": "emulated by pairs of float32",
    "unknown": "not known to be native",
}
_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show versions, devices, and what they compute with: what a run here would use."""

    json: bool = False
    """Print one JSON object on stdout."""


def run(options: Options) -> int:
    """Print the environment of this machine."""
    import jax

    from jaxlin.runs import accelerators
    from jaxlin.runs.environment import environment
    from jaxlin.runs.output import emit

    found = environment() | {
        "memory": [details(device) for device in jax.local_devices()],
        "cards": _cards(),
        **_arithmetic(jax.local_devices()[0]),
        "programs": _programs(),
        "note": accelerators.note(accelerators.detect(), os.environ.get("JAX_PLATFORMS", "")),
    }
    if options.json:
        emit(found)
        return 0
    for name, value in _in_words(found).items():
        print(f"{name:<16} {value}")
    return 0


def details(device: Any) -> dict:
    """What a device is, and its memory in bytes; `None` where it does not tell.

    Args:
      device: of `jax.devices()`, or alike: `platform`, `device_kind`, `memory_stats()`.

    Returns:
      `total` is what JAX may take (on a GPU a share of the card: three quarters of it, unless
      XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise), `free` what of it is not in use, and
      `preallocated` what JAX has taken from the card already, in use or not.
    """
    from jaxlin.memory import available_bytes

    told = {"device": str(device), "kind": device.device_kind}
    if device.platform == "cpu":
        total = None
        with contextlib.suppress(OSError, ValueError, AttributeError):  # none of it on Windows
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return told | {"total": total, "free": available_bytes(device), "preallocated": None}
    statistics = device.memory_stats() or {}
    known = "bytes_limit" in statistics
    return told | {
        "total": statistics.get("bytes_limit"),
        "free": available_bytes(device) if known else None,
        "preallocated": statistics.get("pool_bytes"),
    }


def _arithmetic(device: Any) -> dict:
    from jaxlin.platforms import arithmetic_of, proof

    found = arithmetic_of(device)
    return {"float64": found.float64, "unset_precision": found.unset, "proof": proof(device)}


def _programs() -> dict:
    """Where JAX keeps compiled programs, or why nowhere."""
    import jax

    from jaxlin.cli.compilation_cache import programs

    if jax.config.jax_enable_compilation_cache and jax.config.jax_compilation_cache_dir:
        return {"folder": jax.config.jax_compilation_cache_dir}
    return {"folder": None, "why": programs().why}


def _cards() -> list[str]:
    """What NVIDIA's own tool says of each card: name, memory, driver."""
    if shutil.which(_QUERY[0]) is None:
        return []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(_QUERY, capture_output=True, text=True, timeout=20)
        if told.returncode == 0:
            return [line.strip() for line in told.stdout.splitlines() if line.strip()]
    return []


def _in_words(found: dict) -> dict[str, str]:
    """The same for people: a line each, and none for what is not there."""
    words = dict(found)
    words["memory"] = "; ".join(map(_memory, found["memory"]))
    words["float64"] = _FLOAT64[found["float64"]]
    words["unset_precision"] = (
        f"{_UNSET[found['unset_precision']]} (`jaxlin train` and `sweep` state --precision)"
    )
    kept = found["programs"]
    words["programs"] = (
        f"kept in {kept['folder']}; JAXLIN_CACHE=off keeps none"
        if kept["folder"]
        else f"not kept ({kept['why']})"
    )
    lines = {}
    for name, value in words.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        if value not in (None, ""):
            lines[name] = value
    return lines


def _memory(told: dict) -> str:
    known = [
        f"{told[name] / _GIB:.1f} GiB {name}"
        for name in ("total", "free", "preallocated")
        if told[name] is not None
    ]
    return f"{told['device']} {told['kind']}: {', '.join(known) or 'does not tell'}"
