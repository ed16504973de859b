"""Words for people: sentences about options, and results as a few lines."""

__all__ = [
    "check_seed",
    "evaluation_lines",
    "flags_of",
    "in_options",
    "training_lines",
]

import dataclasses
import re
from collections.abc import Iterator, Mapping


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


def training_lines(results: Mapping) -> Iterator[str]:
    """What `results.json` of a training run says: a line for each part of the data, and the end."""
    for split in ("train", "validation", "test"):
        part = results[split]
        if part is not None:
            low, high = part["accuracy_interval"]
            yield (
                f"{split:<11} accuracy {part['accuracy']:.4f}  "
                f"(95 % interval {low:.4f} to {high:.4f}, {part['n']:,} examples)  "
                f"loss {part['loss']:.4f}"
            )
    if results["test"] is None:
        yield "test        none was given (--test FILE gives one)"
    seconds = results["seconds"]
    if "gap" in results:
        yield (
            f"objective   {results['objective']:.7g}  optimum at least "
            f"{results['lower_bound']:.7g}, relative gap {results['relative_gap']:.1e}, "
            f"{results['evaluations']:.4g} passes in {seconds['train']:.1f} s"
        )
        yield f"status      {results['status']}"
    else:
        yield (
            f"objective   {results['objective']:.7g}  after {results['steps']:,} steps in "
            f"{seconds['train']:.1f} s (and {seconds['compile']:.1f} s to compile)"
        )


def evaluation_lines(measured: Mapping) -> Iterator[str]:
    """What an evaluation found: which rows, accuracy, loss."""
    low, high = measured["accuracy_interval"]
    rows = "all" if measured["split"] == "all" else f"the {measured['split']} split,"
    yield f"{measured['data']}: {rows} {measured['n']:,} examples"
    yield f"accuracy    {measured['accuracy']:.4f}  (95 % interval {low:.4f} to {high:.4f})"
    yield f"loss        {measured['loss']:.4f}  ({measured['loss_name']})"
    if measured["n_without_score"]:
        yield (
            f"no score    {measured['n_without_score']:,} examples, which count as wrong: their "
            "scores are no numbers"
        )
