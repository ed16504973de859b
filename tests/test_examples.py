"""Every public name says what it does, and shows it: an example that the suite runs."""

import inspect
from types import SimpleNamespace

import jaxlin


def lacking(module) -> list[str]:
    """The functions and classes of a module whose own docstring has no example."""
    values = {name: getattr(module, name) for name in module.__all__}
    return [
        name
        for name, value in values.items()
        if inspect.isclass(value) or inspect.isfunction(value)
        if ">>> " not in (value.__dict__.get("__doc__", value.__doc__) or "")
    ]


def test_every_public_name_has_an_example():
    members = {name: getattr(jaxlin, name) for name in jaxlin.__all__}
    # pictures and pages are rooms without names of their own
    modules = [m for m in members.values() if inspect.ismodule(m) and hasattr(m, "__all__")]
    rooms = [getattr(m, name) for m in modules for name in m.__all__]  # modules shown by a room
    modules += [m for m in rooms if inspect.ismodule(m)]
    assert len(modules) > 20
    missing = {module.__name__: lacking(module) for module in [jaxlin, *modules]}
    assert {name: names for name, names in missing.items() if names} == {}


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
