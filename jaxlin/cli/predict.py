"""Classify pictures or arrays with a trained classifier."""

__all__ = ["Options", "run"]

from jaxlin.runs.prediction import Options


def run(options: Options) -> int:
    """Print the best classes of every input."""
    import csv
    import sys

    from jaxlin.runs.folder import safe_cell
    from jaxlin.runs.output import emit
    from jaxlin.runs.prediction import predict, value_name

    found = predict(options)
    if options.json:
        emit(found)
        return 0
    kind, writer = value_name(found["loss"]), csv.writer(sys.stdout)
    writer.writerow(["input", "rank", "class", kind])
    writer.writerows(
        [safe_cell(item["input"]), rank, safe_cell(best["class"]), _number(best[kind])]
        for item in found["predictions"]
        for rank, best in enumerate(item["classes"], start=1)
    )
    return 0


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
