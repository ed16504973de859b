"""Show versions and devices."""

__all__ = ["Options", "run"]

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show the versions and devices that a run here would use."""

    json: bool = False
    """Print one JSON object on stdout."""


def run(options: Options) -> int:
    """Print the environment of this machine."""
    from jaxlin.cli.environment import environment
    from jaxlin.cli.output import emit

    found = environment()
    if options.json:
        emit(found)
        return 0
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        print(f"{name:<14} {value}")
    return 0
