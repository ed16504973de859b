"""Every public name says what it does, and shows it: an example that the suite runs."""

import importlib
import inspect
from types import SimpleNamespace

import pytest

MODULES = (
    *("losses", "scores", "metrics", "probability", "regularizers", "objectives", "optimizers"),
    *("preprocess", "train", "gradients", "landscape", "solvers", "sweep", "estimators", "data"),
    *("models", "testing", "core"),
)


def lacking(module) -> list[str]:
    """The functions and classes of a module whose own docstring has no example."""
    values = {name: getattr(module, name) for name in module.__all__}
    return [
        name
        for name, value in values.items()
        if inspect.isclass(value) or inspect.isfunction(value)
        if ">>> " not in (value.__dict__.get("__doc__", value.__doc__) or "")
    ]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_an_example(name):
    assert lacking(importlib.import_module(f"jaxlin.{name}")) == []


def test_a_name_without_one_is_seen():
    class Bare:
        """Nothing is shown."""

    class Inherits(ValueError):
        pass

    def shown():
        """>>> 1 + 1
        2
        """

    module = SimpleNamespace(__all__=["Bare", "Inherits", "shown"])
    vars(module).update(Bare=Bare, Inherits=Inherits, shown=shown)
    assert lacking(module) == ["Bare", "Inherits"]
