"""What a run ran on: versions, devices, settings that change numbers."""

__all__ = ["environment"]

import os
import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("jaxlin", "jax", "jaxlib", "optax", "numpy", "scipy", "scikit-learn")


def environment() -> dict:
    """Versions, devices and settings, ready for `env.json`."""
    import jax

    from jaxlin.runs.accelerators import driver, plugins

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "plugins": plugins(),
        "driver": driver(),
        "backend": jax.default_backend(),
        "devices": [str(device) for device in jax.devices()],
        "device_kinds": sorted({device.device_kind for device in jax.devices()}),
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "x64": bool(jax.config.jax_enable_x64),
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
