"""Draw a run's pictures and page again."""

__all__ = ["Options", "run"]

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class Options:
    """Draw a run's pictures and page again, from its numbers and its data."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    data_dir: Path | None = None
    """Where the data lie now, if they moved."""


def run(options: Options) -> int:
    """Rewrite the pictures and `report.html` of a run folder."""
    from jaxlin import models
    from jaxlin.runs.folder import load_run, read_json, write_pictures
    from jaxlin.runs.output import say
    from jaxlin.runs.preparation import evaluation_split, split_data

    if (options.run / "sweep.json").is_file():
        from jaxlin.runs.sweeps.page import write_sweep_pictures

        found, config = (read_json(options.run / name) for name in ("sweep.json", "config.json"))
        write_sweep_pictures(options.run, found, config)
        say(f"Look at     {options.run / 'report.html'}")
        return 0
    model, config = load_run(options.run)
    results = read_json(options.run / "results.json")
    if options.data_dir is not None:
        config = config | {"data_dir": str(options.data_dir)}
    split, data = evaluation_split(*split_data(config))
    scores = models.scores(model, data.inputs)
    write_pictures(options.run, model, data, scores, split=split, results=results, config=config)
    say(f"Look at     {options.run / 'report.html'}")
    return 0
