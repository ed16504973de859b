"""Linear image classification, written as pure functions of JAX arrays.

`import jaxlin` imports nothing heavy: every name below is looked up when it is first used.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("jaxlin")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_HOME_OF = {
    "Batch": "core",
    "DataError": "core",
    "LinearParams": "core",
    "Solution": "core",
    "compose": "objectives",
}
_MODULES = {
    *("batches", "checkpoint", "core", "data", "distributed", "estimators", "gradients"),
    *("hand_features", "landscape", "losses", "metrics", "models", "objectives", "optimizers"),
    *("passes", "plots", "precision", "preprocess", "probability", "regularizers", "report"),
    *("runs", "scores", "solvers", "steps", "stream", "sweep", "testing", "train"),
}

__all__ = ["__version__", *_HOME_OF, *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"jaxlin.{_HOME_OF[name]}"), name)
    if name in _MODULES:
        return import_module(f"jaxlin.{name}")
    raise AttributeError(f"module 'jaxlin' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
