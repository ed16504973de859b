"""Compiled programs, kept from one run to the next in the user's cache folder.

JAX keeps them (its persistent compilation cache) in a folder that JAX_COMPILATION_CACHE_DIR names.
A command names one below the user's cache folder, unless that variable is set or JAXLIN_CACHE=off
is. Programs for a CPU hold its own instructions, and a home folder may be shared by machines with
different ones: each kind of processor has its own folder. What does not work here is left out; a
run then compiles as if there were no cache.
"""

__all__ = ["Programs", "keep", "programs"]

import hashlib
import os
import platform
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

LIMIT = 1 << 30
"""Bytes that the folder may hold; beyond them the oldest programs go."""
_FOLDER, _ENABLED = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"
# JAX would keep none that compiles in less than a second, and those of a fit take 0.1 each.
_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


class Programs(NamedTuple):
    """Where programs are kept."""

    folder: Path | None
    """`None`: nowhere."""
    why: str
    """What decided so."""
    variables: dict[str, str]
    """Of the environment, for JAX."""


def programs(environment: Mapping[str, str] = os.environ, machine: str | None = None) -> Programs:
    """Where the programs of a command are kept.

    Args:
      environment: its variables.
      machine: a text that says what kind of processor this is (default: of this one).

    Raises:
      ValueError: JAXLIN_CACHE is neither on nor off.

    >>> programs({"JAXLIN_CACHE": "off"})[:2]
    (None, 'JAXLIN_CACHE=off')
    >>> programs({"JAX_COMPILATION_CACHE_DIR": "/fast/programs"}).folder
    PosixPath('/fast/programs')
    """
    switch = environment.get("JAXLIN_CACHE", "on")
    if switch not in ("on", "off"):
        raise ValueError(
            f"JAXLIN_CACHE must be on or off, got {switch!r}. Another folder is named by {_FOLDER}."
        )
    if switch == "off":
        return Programs(None, "JAXLIN_CACHE=off", {_ENABLED: "0"})
    if environment.get(_ENABLED, "1").lower() in ("0", "false", "no", "n", "f", "off"):
        return Programs(None, f"{_ENABLED}={environment[_ENABLED]}", {})
    rest = {name: value for name, value in _ALL.items() if name not in environment}
    if _FOLDER in environment:
        named = environment[_FOLDER]
        return Programs(Path(named) if named else None, f"{_FOLDER}={named}", rest)
    kind = hashlib.sha256((machine or _processor()).encode()).hexdigest()[:12]
    try:
        folder = _user_cache(environment) / "programs" / kind
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        return Programs(None, f"{error.filename}: {error.strerror}", {})
    except RuntimeError as error:  # a user without a home
        return Programs(None, str(error).rstrip("."), {})
    if not writable:
        return Programs(None, f"{folder}: cannot be written", {})
    return Programs(folder, "the user's cache folder", rest | {_FOLDER: str(folder)})


def keep() -> None:
    """Have JAX keep its programs, if it has not started yet; a process that runs it has chosen."""
    found = programs()
    if "jax" in sys.modules:
        return
    os.environ.update(found.variables)
    if found.folder is not None and _FOLDER in found.variables:
        # A folder that nobody asked for is no reason for a word: full or damaged, it is not used.
        warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
        trim(found.folder, LIMIT)


def trim(folder: Path, limit: int) -> None:
    """Remove the oldest files of a folder until what stays is half of `limit`, if it is above."""
    files = []
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        except OSError:  # another process was quicker
            continue
    total = sum(size for _, size, _ in files)
    if total <= limit:
        return
    for _, size, path in sorted(files):
        if total <= limit // 2:
            break
        try:
            path.unlink()
        except OSError:
            continue
        total -= size


def _user_cache(environment: Mapping[str, str]) -> Path:
    """`pooch.os_cache("jaxlin")`, where fetched data lie too, without its 0.15 s."""
    if sys.platform in ("darwin", "win32"):
        import pooch

        return Path(pooch.os_cache("jaxlin"))
    home = environment.get("XDG_CACHE_HOME", "").strip()
    return (Path(home) if home else Path.home() / ".cache") / "jaxlin"


def _processor() -> str:
    """What a processor can do, as text; alike for alike ones."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        told = platform.processor()
    lines = re.findall(r"^(?:model name|flags|Features|CPU \w+)\s*:.*$", told, re.MULTILINE)
    return "\n".join([platform.machine(), *dict.fromkeys(lines or [told])])
