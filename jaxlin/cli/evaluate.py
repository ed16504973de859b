"""Measure a trained classifier on data with labels."""

__all__ = ["Options", "run"]

from jaxlin.runs.evaluation import Options


def run(options: Options) -> int:
    """Print accuracy and loss of a run on a data set."""
    from jaxlin.runs.evaluation import evaluate
    from jaxlin.runs.output import emit
    from jaxlin.runs.wording import evaluation_lines

    measured = evaluate(options)
    if options.json:
        emit(measured)
        return 0
    for line in evaluation_lines(measured):
        print(line)
    for name, share in measured["per_class"].items():
        print(f"  {name:<18} {'no examples' if share is None else f'{share:.4f}'}")
    return 0
