"""The page of a sweep: what was chosen, from what, by how much, and what the test says."""

__all__ = ["sweep_page"]

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from jaxlin.report.page import Section, chart, figure_tag, page, table
from jaxlin.report.training import _flat
from jaxlin.sweep.mcnemar import p_value_in_words

_ROWS = 60
_DRAWN = 14


def sweep_page(
    *,
    results: Mapping,
    config: Mapping,
    environment: Mapping,
    curves: Figure | None,
    pareto: Figure | None,
    few_shot: Figure | None,
) -> str:
    """One self-contained HTML page of a finished sweep (the contents of its `sweep.json`)."""
    sections = [Section("", _numbers(results))]
    if results["notes"]:
        sections.append(Section("Before you trust it", _list(results["notes"])))
    if few_shot is not None:
        tag = figure_tag(few_shot, alt="Accuracy against the number of examples of each class")
        sections.append(Section("Few-shot", tag + _few_shot(results["few_shot"])))
    if curves is not None:
        note = (
            "The ring marks the chosen head, the grey band is the 95 % interval of its accuracy: "
            "so far can luck on this many validation examples carry."
            if results["few_shot"] is None and results["metric"] == "accuracy"
            else "The ring marks what was chosen."
        )
        tag = figure_tag(curves, alt="Validation accuracy of the heads", caption=note)
        sections.append(Section("Validation", tag))
    if any(len(head["history"]) > 1 for head in results["heads"]):
        sections.append(Section("On the way", _histories(results["heads"])))
    if pareto is not None:
        note = (
            "Smaller weights change less from one sample of the data to the next. Heads on the "
            "line are beaten by no other in both accuracy and size."
        )
        tag = figure_tag(pareto, alt="Accuracy against weight norm", caption=note)
        sections.append(Section("Accuracy and size", tag))
    if results["comparison"] is not None:
        sections.append(Section("Against another run", _comparison(results["comparison"])))
    sections.append(Section("Heads", _heads(results["heads"])))
    if results["preset"]:
        text = f"{results['preset']['title']}. Source: {results['preset']['source']}."
        sections.append(Section("Protocol", Markup("<p>{}</p>").format(text)))
    sections.append(Section("Configuration", table(list(config.items()))))
    sections.append(Section("Environment", table([(k, _flat(v)) for k, v in environment.items()])))
    how = "certified" if results["solver"] == "full-batch" else "trained side by side"
    lead = (
        f"{len(results['heads'])} linear classifiers, {how} on {results['n_train']:,} examples in "
        f"{results['seconds']['heads']:.1f} s; one chosen on {results['n_validation']:,} others."
    )
    title = f"{results['data']['name']}: sweep"
    return page(title + _preset_name(results), sections, lead=lead)


def _preset_name(results: Mapping) -> str:
    return f" ({results['preset']['name']})" if results["preset"] else ""


def _numbers(results: Mapping) -> Markup:
    best, test, cells = results["best"], results["test"], []
    if test is not None:
        low, high = test["accuracy_interval"]
        words = f"test accuracy, {test['n']:,} examples, 95 % interval {100 * low:.1f} to "
        words += f"{100 * high:.1f}"
        cells.append((f"{100 * test['accuracy']:.2f} %", words))
        if "mean_per_class_accuracy" in test:
            low, high = test["mean_per_class_interval"]
            words = f"test, mean over classes, 95 % interval {100 * low:.1f} to {100 * high:.1f}"
            cells.append((f"{100 * test['mean_per_class_accuracy']:.2f} %", words))
    else:
        cells.append(("none", "test accuracy: no test set was given"))
    if best["validation_accuracy"] is not None:
        cells.append((f"{100 * best['validation_accuracy']:.2f} %", "validation accuracy, chosen"))
    cells.append((f"{best['strength']:.3g}", "strength"))
    if best["step_size"] is not None:
        cells.append((f"{best['step_size']:.3g}", "step size"))
    if best["relative_gap"] is not None:
        worst = max(head["relative_gap"] for head in results["heads"])
        cells.append((f"{worst:.1e}", "largest certified relative gap of any head"))
    divs = "".join(f"<div><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in cells)
    return Markup(f'<div class="numbers">{divs}</div>')


def _list(notes: Sequence[str]) -> Markup:
    items = Markup("").join(Markup("<li>{}</li>").format(note) for note in notes)
    return Markup("<ul>{}</ul>").format(items)


def _comparison(found: Mapping) -> Markup:
    low, high = (100 * end for end in found["interval"])
    rows = [
        ("this run", f"{100 * found['first_accuracy']:.2f} %"),
        (found["with"], f"{100 * found['second_accuracy']:.2f} %"),
        ("only this run is right on", f"{found['only_first']:,} of {found['examples']:,}"),
        ("only the other is right on", f"{found['only_second']:,}"),
        ("difference", f"{100 * found['difference']:+.2f} points, 95 % interval "
                       f"{low:+.2f} to {high:+.2f}"),
        ("exact McNemar test", p_value_in_words(found["p_value"])),
    ]  # fmt: skip
    note = (
        "<p>The same test examples for both: only those on which they differ tell them apart.</p>"
    )
    return Markup(note) + table(rows)


def _few_shot(rows: Sequence[Mapping]) -> Markup:
    cells = []
    for row in rows:
        interval = row.get("test_interval")
        spread = "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
        test, chosen_at = row.get("test_accuracy"), row["validation_accuracy"]
        cells.append((row["shots"], f"{row['strength']:.3g}", row["draws"],
                      "" if chosen_at is None else f"{100 * chosen_at:.2f} %",
                      "" if test is None else f"{100 * test:.2f} %", spread))  # fmt: skip
    head = ("examples a class", "strength", "draws", "validation", "test, mean", "95 % interval")
    return table(cells, head=head)


def _histories(heads: Sequence[Mapping]) -> Markup:
    """Validation accuracy (or the objective) over the epochs, one line a head."""
    from plotly.graph_objects import Figure, Scatter

    validated = any(row[1] is not None for head in heads for row in head["history"])
    shown = sorted(heads, key=lambda head: -(head["validation_accuracy"] or 0))[:_DRAWN]
    several = [n for n in ("loss", "subset", "seed") if len({head[n] for head in heads}) > 1]
    figure = Figure()
    for i, head in enumerate(shown):
        rows = [row for row in head["history"] if row[1] is not None or not validated]
        name = f"strength {head['strength']:.3g}"
        if head["step_size"] is not None:
            name += f", step size {head['step_size']:.3g}"
        name += "".join(f", {'seed ' if n == 'seed' else ''}{head[n]}" for n in several)
        figure.add_trace(
            Scatter(x=[row[0] for row in rows], y=[row[1 if validated else 2] for row in rows],
                    name=name, mode="lines", line={"width": 1.4},
                    visible=True if i < 6 else "legendonly",
                    hovertemplate="epoch %{x:g}<br>%{y:.4f}")
        )  # fmt: skip
    figure.update_xaxes(title_text="epoch")
    figure.update_yaxes(title_text="validation accuracy" if validated else "objective")
    figure.update_layout(showlegend=True)
    note = Markup("<p>The best {} of {} heads; a click on a name shows or hides it.</p>")
    return note.format(len(shown), len(heads)) + chart(figure, height=430)


def _heads(heads: Sequence[Mapping]) -> Markup:
    """The heads by falling validation accuracy."""
    order = sorted(heads, key=lambda head: -(head["validation_accuracy"] or 0))
    several = [n for n in ("loss", "subset", "seed", "shots") if len({h[n] for h in heads}) > 1]
    steps = any(head["step_size"] is not None for head in heads)
    proved = any(head["relative_gap"] is not None for head in heads)
    head_row = ["strength"] + ["step size"] * steps + several
    head_row += ["validation", "95 % interval", "objective", "norm"]
    head_row += ["passes", "certified gap", "status"] if proved else ["epochs", "status"]
    rows = []
    for head in order[:_ROWS]:
        accuracy, interval = head["validation_accuracy"], head["validation_interval"]
        row = [f"{head['strength']:.4g}"]
        row += [f"{head['step_size']:.4g}"] if steps else []
        row += [head[name] for name in several]
        row += ["" if accuracy is None else f"{accuracy:.4f}"]
        row += ["" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"]
        row += ["" if head["objective"] is None else f"{head['objective']:.5g}"]
        row += [f"{head['weight_norm']:.3g}", f"{head['epochs']:g}"]
        row += [f"{head['relative_gap']:.1e}"] if proved else []
        rows.append([*row, head["status"].split(":")[0]])
    if len(order) > _ROWS:
        rows.append([f"and {len(order) - _ROWS} more, in sweep.json"])
    return table(rows, head=head_row)
