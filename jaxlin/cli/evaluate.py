"""Measure a trained classifier on data with labels."""

__all__ = ["Options", "run"]

from jaxlin.runs.evaluation import Options


def run(options: Options) -> int:
    """Print accuracy and loss of a run on a data set."""
    from jaxlin.models import load
    from jaxlin.runs.evaluation import evaluate
    from jaxlin.runs.output import emit

    measured = evaluate(options)
    if options.json:
        emit(measured)
        return 0
    low, high = measured["accuracy_interval"]
    rows = "all" if measured["split"] == "all" else f"the {measured['split']} split,"
    print(f"{measured['data']}: {rows} {measured['n']:,} examples")
    print(f"accuracy    {measured['accuracy']:.4f}  (95 % interval {low:.4f} to {high:.4f})")
    print(f"loss        {measured['loss']:.4f}  ({load(options.run / 'model.safetensors').loss})")
    if measured["n_without_score"]:
        print(
            f"no score    {measured['n_without_score']:,} examples, which count as wrong: their "
            "scores are no numbers"
        )
    for name, share in measured["per_class"].items():
        print(f"  {name:<18} {'no examples' if share is None else f'{share:.4f}'}")
    return 0
