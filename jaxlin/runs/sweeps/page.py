"""What a finished sweep shows: its pictures and page, and the table it prints."""

__all__ = ["say_results", "sweep_lines", "write_sweep_pictures"]

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlin.runs.folder import read_json
from jaxlin.runs.output import say, write_text
from jaxlin.runs.sweeps.results import counted
from jaxlin.sweep.mcnemar import p_value_in_words

_ROWS = 12


def write_sweep_pictures(out: Path, results: dict, config: dict) -> None:
    """`curves.png`, `pareto.png`, `few_shot.png` and `report.html`, from `sweep.json`."""
    from jaxlin.plots import sweep as plots
    from jaxlin.plots.style import save
    from jaxlin.report.sweep import sweep_page
    from jaxlin.sweep.selection import pareto

    heads, best, metric = results["heads"], results["best"], results["metric"]
    figures: dict[str, Any] = {"curves": None, "pareto": None, "few_shot": None}
    if results["few_shot"] is not None:  # chosen by the mean of the draws, so mark that
        mean = results["few_shot"][-1]["validation_accuracy"]
        best = best | {"validation_accuracy": mean, "validation_interval": None}
    if best["validation_accuracy"] is not None and len(heads) > 1:
        figures["curves"] = plots.validation_curves(heads, best, metric=metric)
        if results["few_shot"] is None:
            known = [i for i, head in enumerate(heads) if head["validation_accuracy"] is not None]
            accuracies = [heads[i]["validation_accuracy"] for i in known]
            front = pareto(accuracies, [heads[i]["weight_norm"] for i in known])
            figures["pareto"] = plots.pareto(heads, [known[i] for i in front], best, metric=metric)
    if results["few_shot"] is not None and "test_accuracies" in results["few_shot"][0]:
        figures["few_shot"] = plots.few_shot(results["few_shot"], metric=metric)
    for name, figure in figures.items():
        if figure is not None:
            save(figure, out / f"{name}.png")
    page = sweep_page(
        results=results, config=config, environment=read_json(out / "env.json"), **figures
    )
    write_text(out / "report.html", page)


def say_results(results: dict, out: Path, *, quiet: bool) -> None:
    """The best heads as a table, then the test, once."""
    for line in sweep_lines(results):
        say(line, quiet=quiet)
    say(f"Look at     {out / 'report.html'}", quiet=quiet)


def sweep_lines(results: dict) -> Iterator[str]:
    """What `sweep.json` says, in lines: the best heads, the choice, the test, notes."""
    yield from _table(results)
    yield from map(_few_shot_line, results["few_shot"] or [])
    best, test = results["best"], results["test"]
    chosen = f"strength {best['strength']:.4g}"
    chosen += "" if best["step_size"] is None else f", step size {best['step_size']:.4g}"
    chosen += "" if best["subset"] == "all" else f", features {best['subset']}"
    if best["validation_accuracy"] is not None:
        chosen += f": validation accuracy {best['validation_accuracy']:.4f}"
    yield f"chosen      {chosen}"
    if results["refit"] is not None:
        yield f"refitted    on training and validation, {results['refit']['n']:,} examples"
    if test is None:
        yield "test        none was given (--test FILE gives one)"
    elif results["few_shot"] is None:
        low, high = test["accuracy_interval"]
        yield (
            f"test        accuracy {test['accuracy']:.4f}  (95 % interval {low:.4f} to {high:.4f}, "
            f"{test['n']:,} examples)"
        )
        if "mean_per_class_accuracy" in test:
            low, high = test["mean_per_class_interval"]
            mean = test["mean_per_class_accuracy"]
            yield f"            mean per class {mean:.4f}  (95 % interval {low:.4f} to {high:.4f})"
    if results["comparison"] is not None:
        found = results["comparison"]
        low, high = (100 * end for end in found["interval"])
        yield (
            f"compared    {100 * found['difference']:+.2f} points to {found['with']} "
            f"(95 % interval {low:+.2f} to {high:+.2f}, {p_value_in_words(found['p_value'])}; "
            f"right where the other is wrong {found['only_first']:,}, the reverse "
            f"{found['only_second']:,})"
        )
    for note in results["notes"]:
        yield f"note        {note}"
    yield f"{counted(len(results['heads']))} in {results['seconds']['heads']:.1f} s"


def _table(results: dict) -> Iterator[str]:
    """Lines of the best heads."""
    heads = sorted(results["heads"], key=lambda head: -(head["validation_accuracy"] or 0))
    varying = [n for n in ("step_size", "loss", "subset", "shots", "seed")
               if len({head[n] for head in heads}) > 1]  # fmt: skip
    proved = any(head["relative_gap"] is not None for head in heads)
    names = ["strength", *(name.replace("_", " ") for name in varying), "validation", "norm"]
    names += ["gap"] if proved else ["epochs"]
    rows = [names]
    for head in heads[:_ROWS]:
        accuracy = head["validation_accuracy"]
        row = [f"{head['strength']:.3g}"]
        row += [f"{head[n]:.3g}" if n == "step_size" else str(head[n]) for n in varying]
        row += ["" if accuracy is None else f"{accuracy:.4f}", f"{head['weight_norm']:.3g}"]
        row += [f"{head['relative_gap']:.0e}" if proved else f"{head['epochs']:g}"]
        rows.append([*row, "" if head["status"] == "done" else head["status"].split(":")[0]])
    rows[0] = [*names, ""]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if len(heads) > _ROWS:
        yield f"... and {len(heads) - _ROWS} more heads"


def _few_shot_line(row: dict) -> str:
    text = f"{row['shots']:>3} examples a class  strength {row['strength']:.3g}"
    if row.get("test_accuracy") is not None:
        text += f"  test accuracy {row['test_accuracy']:.4f}"
        if row["test_interval"] is not None:
            low, high = row["test_interval"]
            text += f"  (95 % interval of {row['draws']} draws' mean {low:.4f} to {high:.4f})"
    return text
