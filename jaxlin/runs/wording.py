"""Sentences about options: what a seed may be, and the command's words for Python's."""

__all__ = ["check_seed", "flags_of", "in_options"]

import dataclasses
import re


def check_seed(name: str, seed: int) -> None:
    """Refuse a seed that JAX would cut to 32 bits, and so take for another."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"{name} must be in [0, 2**32), got {seed}.")


def in_options(sentence: str, options_type: type) -> str:
    """A sentence of the Python interface with the command's options for the arguments it names.

    >>> from jaxlin.runs.train_options import Options
    >>> in_options("raise `tolerance` (`tol`), or raise `strength` (lower `C`)", Options)
    'raise --tolerance, or raise --strength'
    """
    sentence = re.sub(r" \((?:lower |a finite )?`(?:C|tol)`\)", "", sentence)
    flags = flags_of(options_type)

    def flag(named: re.Match) -> str:
        option = f"--{named[1].replace('_', '-')}"
        return option if option in flags else named[0]

    return re.sub(r"(?<!array )(?<!tensor )`([a-z_]+)`", flag, sentence)


def flags_of(options_type: type) -> set[str]:
    """The long options of a flat dataclass; empty for unions of subcommands."""
    if not dataclasses.is_dataclass(options_type):
        return set()
    return {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(options_type)} | {
        "--help"
    }
