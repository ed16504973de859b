"""The gradient check of a user's own function, named MODULE:NAME, at a point in a file."""

__all__ = ["own_function"]

from collections.abc import Callable
from pathlib import Path
from typing import Any


def own_function(options: Any) -> tuple[str, dict[str, Any], Callable[[], Any]]:
    """The check of a user's function at a user's point."""
    import jax
    import numpy as np

    from jaxlin.gradients import check_gradient
    from jaxlin.gradients.complex_parts import has_complex, in_real_parts

    if options.input is None:
        raise ValueError("`--function` needs a point: --input x.npz (or x.npy).")
    asked = options.function or ""
    f = _imported(asked)
    claim = None if options.gradient is None else _imported(options.gradient)
    x = _archive(options.input)
    try:
        report = check_gradient(
            f, x, claim, mode=options.mode, key=options.seed, method=options.method
        )
    except (ValueError, TypeError):
        raise
    except Exception as error:
        raise ValueError(f"{asked} raised {type(error).__name__}: {error}") from error
    if has_complex(x):  # for the picture
        f, x, claim = in_real_parts(f, x, claim)
    name = options.gradient or f"autodiff of {asked}"

    def figure() -> Any:
        from jaxlin.gradients import finite_differences
        from jaxlin.gradients.claim import claimed
        from jaxlin.gradients.curves import step_curve, taylor_curve
        from jaxlin.gradients.evaluate import Function
        from jaxlin.gradients.lines import scales_of
        from jaxlin.plots.gradients import gradcheck

        function = Function(f, x)
        function.prepare()
        values = claimed(function, claim, scales_of(function)).values
        values = np.where(np.isfinite(values), values, 0.0)
        tree = function.tree(values)
        numeric = finite_differences.gradient(f, x, method="richardson").value
        numeric = np.concatenate([np.ravel(a) for a in jax.tree.leaves(numeric)])
        error = np.abs(values - numeric) / (np.abs(values).max() or 1.0)
        return gradcheck(
            step_curve(f, x, tree), taylor_curve(f, x, tree), values, numeric,
            tiles=error[None, None], title=asked,
        )  # fmt: skip

    return asked, {name: report}, figure


def _imported(spec: str) -> Callable[..., Any]:
    """The object that MODULE:NAME names."""
    import importlib
    import os
    import sys

    module_name, colon, name = spec.partition(":")
    if not colon or not module_name or not name:
        raise ValueError(f"`{spec}` must be MODULE:NAME, such as my_module:my_loss.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = f"`{error.name}`" if error.name != module_name else "it"
        raise ValueError(
            f"{spec}: cannot import `{module_name}`: {missing} was not found here or among the "
            "installed packages."
        ) from None
    except Exception as error:
        raise ValueError(f"{spec}: importing raised {type(error).__name__}: {error}") from None
    try:
        result = getattr(module, name)
    except AttributeError:
        raise ValueError(f"{spec}: the module has no `{name}`.") from None
    if not callable(result):
        raise ValueError(f"{spec}: is not a function.")
    return result


def _archive(path: Path) -> Any:
    """The array of a .npy or of a one-array .npz; a dict by name of a larger one."""
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file.") from None
    except Exception as error:
        raise ValueError(f"{path}: not a NumPy archive of plain arrays ({error}).") from None
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    if not arrays:
        raise ValueError(f"{path}: the archive is empty.")
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays
