"""The page of a gradient check: the verdict, the entries, the picture."""

__all__ = ["gradcheck_page"]

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from jaxlin.report.page import Section, figure_tag, page, table

_VERDICTS = {
    "pass": "The gradient is right: every claimed value lies within its error bar.",
    "kink": "The function has a kink at the point; every claimed value is a valid subgradient.",
    "fail": "The gradient is wrong at the entries below.",
    "inconclusive": "The function is too noisy for a verdict.",
}


def gradcheck_page(title: str, checks: dict, figure: Figure | None = None) -> str:
    """One self-contained page.

    Args:
      title: what was checked.
      checks: reports of `jaxlin.gradients.check_gradient`, by the name of what was claimed.
      figure: the picture of `jaxlin.plots.gradients`.
    """
    rows = [
        (
            name,
            report.verdict,
            f"{report.max_relative_error:.2e}",
            "" if report.order is None else f"{report.order:.2f}",
            f"{report.evaluations:,}",
            f"{report.checked:,} of {report.parameters:,}",
        )
        for name, report in checks.items()
    ]
    head = ("claim", "verdict", "largest relative error", "Taylor rate", "evaluations", "entries")
    sections = [Section("Verdict", table(rows, head=head))]
    for name, report in checks.items():
        body = Markup(f"<p>{escape(_VERDICTS[report.verdict])}</p><pre>{escape(report)}</pre>")
        sections.append(Section(name, body))
    if figure is not None:
        caption = (
            "Error against step size for both formulas and both dtypes, with the slopes of "
            "truncation and round-off; every entry, claimed against measured; where the error "
            "lies; and the Taylor remainders, whose rate is 2 if the gradient is right."
        )
        body = figure_tag(figure, alt="Four views of the check", caption=caption)
        sections.insert(1, Section("Picture", body))
    return page(title, sections, lead="Does the gradient belong to the function?")
