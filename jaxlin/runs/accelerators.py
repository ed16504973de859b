"""GPUs and TPUs that are in the machine, what JAX has for them, and what it says when that fails.

All of it is looked at before JAX starts, which takes seconds on a GPU, and without it.
"""

__all__ = ["Machine", "block", "detect", "driver", "note", "plugins", "refusal", "sentences"]

import ctypes
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_PLUGIN = re.compile(r"jax-(cuda|rocm)\d*-(plugin|pjrt)|libtpu|jax-metal")
_NVIDIA = ("proc/driver/nvidia", "dev/nvidia[0-9]*", "dev/nvidiactl")
# TPUs on the PCI bus; other cards of the same vendor are not meant. Source: jax, hardware_utils.py.
_GOOGLE = "0x1ae0"
_TPUS = ("0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")
_EXTRAS = {
    "GPU": "`pip install 'jaxlin[cuda12]'` (or cuda13)",
    "TPU": "`pip install 'jaxlin[tpu]'`",
}
_QUIET = "or set JAX_PLATFORMS=cpu to stay on the CPU without this line."


class Machine(NamedTuple):
    """What is in a machine, and what is installed for it."""

    gpu: bool
    """An NVIDIA GPU."""
    tpu: bool
    driver: str | None
    """The version of NVIDIA's driver, if it tells."""
    library: bool
    """The driver's library, which programs for CUDA need, can be loaded."""
    plugins: dict[str, str]
    """Versions by the names of the packages that JAX reaches accelerators with."""

    def plugin(self, kind: str) -> str | None:
        """Name and version of the package for "cuda", "rocm" or "tpu"."""
        named = (n for n in self.plugins if kind in n and not n.endswith("pjrt"))
        return next((f"{name} {self.plugins[name]}" for name in named), None)


def detect(root: Path = Path("/"), load: Callable = ctypes.CDLL) -> Machine:
    """Look for accelerators.

    Args:
      root: of the file system.
      load: loads a shared library by its name, or raises `OSError`.
    """
    found = plugins()
    library = _loads(load, "libcuda.so.1")
    gpu = any(any(root.glob(pattern)) for pattern in _NVIDIA)
    gpu = gpu or (library and (root / "dev/dxg").exists())  # Linux in Windows: any maker's
    return Machine(gpu, _has_tpu(root), driver(root), library, found)


def plugins() -> dict[str, str]:
    """Versions by the names of the installed packages that JAX reaches accelerators with."""
    from importlib.metadata import distributions  # not for `--help`

    found = {}
    for distribution in distributions():
        # To parse what hundreds of packages tell takes a while.
        told = distribution.read_text("METADATA") or ""
        named = re.search(r"^Name: *(\S+)", told, re.MULTILINE)
        name = named[1].lower().replace("_", "-") if named else ""
        if _PLUGIN.match(name):
            found[name] = distribution.version
    return dict(sorted(found.items()))


def _has_tpu(root: Path) -> bool:
    # /dev/accel itself is a folder of other makers' chips.
    if any(root.glob("dev/accel[0-9]*")):
        return True
    vendors = root.glob("sys/bus/pci/devices/*/vendor")
    return any(
        _text(path) == _GOOGLE and _text(path.with_name("device")) in _TPUS for path in vendors
    )


def driver(root: Path = Path("/")) -> str | None:
    """The version of NVIDIA's driver, if it tells."""
    named = re.search(
        r"NVRM version:.*?\s(\d+\.[\d.]+)", _text(root / "proc/driver/nvidia/version")
    )
    return named[1] if named else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _loads(load: Callable, name: str) -> bool:
    try:
        load(name)
    except OSError:
        return False
    return True


def note(machine: Machine, platforms: str = "") -> str | None:
    """The sentence for an accelerator that is in the machine, or was prepared for, and not used.

    Args:
      machine: from `look`.
      platforms: the variable JAX_PLATFORMS; who sets it has chosen.

    Raises:
      ValueError: it asks for what is not there.

    >>> print(note(Machine(True, False, "550.54.15", True, {})))  # doctest: +ELLIPSIS
    an NVIDIA GPU is in this machine, but JAX runs on the CPU, for want of a plugin: ...
    """
    _check_asked(machine, [name.strip() for name in platforms.lower().split(",")])
    cuda = machine.plugin("cuda")
    if platforms:
        return None
    if cuda and not machine.library:
        return (
            f"{cuda} is installed, but NVIDIA's driver (libcuda.so.1) is not found, and JAX runs "
            f"on the CPU: install the driver, uninstall the plugin, {_QUIET}"
        )
    for there, kind, what, plugin in (
        (machine.gpu, "GPU", "an NVIDIA GPU", cuda),
        (machine.tpu, "TPU", "a TPU", machine.plugin("tpu")),
    ):
        if there and not plugin:
            return (
                f"{what} is in this machine, but JAX runs on the CPU, for want of a plugin: "
                f"{_EXTRAS[kind]}, {_QUIET}"
            )
    return None


def _check_asked(machine: Machine, asked: list[str]) -> None:
    """Refuse platforms that cannot be had, where no other was named."""
    cuda = machine.plugin("cuda")
    named = f"JAX_PLATFORMS={','.join(asked)} asks for a"
    nvidia = asked == ["cuda"] or (asked == ["gpu"] and not machine.plugin("rocm"))
    if asked == ["tpu"] and not machine.plugin("tpu"):
        raise ValueError(f"{named} TPU, and JAX has no plugin for it: {_EXTRAS['TPU']}.")
    if nvidia and not cuda:
        raise ValueError(f"{named} GPU, and JAX has no plugin for it: {_EXTRAS['GPU']}.")
    if nvidia and not machine.library:
        raise ValueError(
            f"{named} GPU, but NVIDIA's driver (libcuda.so.1) is not found for {cuda}. Install "
            "the driver, or unset JAX_PLATFORMS."
        )
    if nvidia and not machine.gpu:
        raise ValueError(
            f"{named} GPU, and none is in this machine (or container). Unset JAX_PLATFORMS, or "
            "give the container its GPUs."
        )


def block(machine: Machine) -> None:
    """Keep JAX from a plugin for CUDA without a driver: it would print a page, and then give up."""
    if machine.library or "jax" in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    for name in machine.plugins:
        if found := re.fullmatch(r"jax-(cuda\d*)-plugin", name):
            # Python's way to say that there is no such module.
            modules[f"jax_plugins.xla_{found[1]}"] = None
            modules[f"jax_{found[1]}_plugin"] = None


@contextmanager
def sentences() -> Iterator[None]:
    """What JAX logs while it looks for devices becomes one line each, as long as this lasts."""
    logger = logging.getLogger("jax._src.xla_bridge")
    said: list[str] = []

    def one_line(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or os.environ.get("JAXLIN_TRACEBACK"):
            return True
        text = record.getMessage()
        plugin = re.search(r"jax_plugins\.\w+", text)
        if plugin and sys.modules.get(plugin[0], plugin) is None:  # `block` took it away
            return False
        if "may be present on this machine" in text:
            # `note` has spoken of one that no plugin is installed for.
            kind = "cuda" if "NVIDIA" in text else "tpu"
            if said or not any(kind in name for name in plugins()):
                return False
        if record.exc_info and record.exc_info[1] is not None:
            text = (
                f"{plugin[0] if plugin else 'a plugin of JAX'} cannot be used, and JAX goes on "
                f"without it: {record.exc_info[1]}"
            )
        text = " ".join(text.split())
        if text not in said:
            said.append(text)
            print(f"jaxlin: {text}", file=sys.stderr)
        return False

    logger.addFilter(one_line)
    try:
        yield
    finally:
        logger.removeFilter(one_line)


def refusal(error: BaseException) -> str | None:
    """The sentence for what JAX raises where a device cannot be had, or has no memory left.

    Returns:
      `None` for every other error, which is not the user's.
    """
    text = " ".join(str(error).split())
    exhausted = "RESOURCE_EXHAUSTED" in text and re.search("memory|allocat", text)
    if exhausted or isinstance(error, MemoryError):
        return _out_of_memory(text)
    if "Unable to initialize backend" in text or "Unknown backend" in text:
        return f"JAX cannot start: {text}"
    last = traceback.extract_tb(error.__traceback__)[-1:]
    if isinstance(error, AssertionError) and last and last[0].filename.endswith("xla_bridge.py"):
        asked = os.environ.get("JAX_PLATFORMS", "")
        return f"JAX found no device for JAX_PLATFORMS={asked}. Unset it, or see `jaxlin info`."
    return None


def _out_of_memory(text: str) -> str:
    """Both numbers: what was asked for, and what is free."""
    import jax

    from jaxlin.memory import available_bytes

    # JAX and NumPy: "allocating 123 bytes", "allocate 1.2 TiB", "allocate request for 1.20GiB".
    asked = re.search(r"allocat\w+(?: request for)? ([\d.]+) ?(bytes|[KMGTPE]iB)", text)
    device = jax.local_devices()[0]
    if "RESOURCE_EXHAUSTED" not in text:  # NumPy's
        device = jax.local_devices(backend="cpu")[0]
    where = "in this machine" if device.platform == "cpu" else f"on {device.device_kind}"
    free = f"{available_bytes(device) / 2**30:.2f} GiB are free {where}"
    if asked is None:
        known = text.removeprefix("RESOURCE_EXHAUSTED: ")[:200].rstrip(". ")
        what = f"{known or 'no more can be had'}; {free}"
    else:
        number, unit = float(asked[1]), asked[2]
        size = f"{number / 2**30:.2f} GiB" if unit == "bytes" else f"{number:g} {unit}"
        what = f"{size} were asked for, and {free}"
    return f"out of memory: {what}. Use fewer examples or features, or a device with more memory."
