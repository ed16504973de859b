"""The lecture's page: its chapters as one self-contained HTML document."""

__all__ = ["lecture_page"]

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from jaxlin.lecture.nouns import VERDICTS, Chapter, Claim, Formula, Picture, Table
from jaxlin.report.mathml import mathml, prose
from jaxlin.report.page import Section, figure_tag, page, table


def lecture_page(chapters: Sequence[Chapter], *, data: str, seconds: float) -> str:
    """The whole page as one self-contained HTML document.

    Args:
      chapters: in reading order.
      data: the name of the data set, for the lead sentence.
      seconds: how long it took to measure everything.
    """
    counts = Counter(claim.verdict for chapter in chapters for claim in chapter.claims)
    tally = ", ".join(f"{counts[v]} {v}" for v in VERDICTS if counts[v])
    lead = (
        f"Every number, table and figure of an introductory lecture on linear classification, "
        f"computed from {data} in {seconds:.0f} s. {sum(counts.values())} claims: {tally}."
    )
    return page(
        "The lecture, reproduced", [_contents(chapters), *map(_section, chapters)], lead=lead
    )


def _contents(chapters: Sequence[Chapter]) -> Section:
    items = Markup("").join(
        Markup(f'<li><a href="#{escape(c.name)}">{escape(c.title)}</a>{_badges(c)}</li>')
        for c in chapters
    )
    play = Markup(
        '<p class="play"><a href="playground.html"><b>Open the playground</b></a>: three classes '
        "in the plane, nine parameters, four losses, every number live.</p>"
    )
    return Section("", Markup(f"<style>{_STYLE}</style>") + play + Markup(f"<ol>{items}</ol>"))


def _badges(chapter: Chapter) -> Markup:
    return Markup("").join(
        Markup(f'<i class="dot {_css(claim.verdict)}" title="{escape(claim.verdict)}"></i>')
        for claim in chapter.claims
    )


def _section(chapter: Chapter) -> Section:
    body: list[Markup] = [Markup(f'<a id="{escape(chapter.name)}"></a>')]
    claims: list[Claim] = []
    for part in chapter.parts:
        if isinstance(part, Claim):
            claims.append(part)
            continue
        body += [_claims(claims), _part(part)]
        claims = []
    body += [_claims(claims), Markup(f'<p class="script">{escape(chapter.name)}.py</p>')]
    return Section(chapter.title, Markup("").join(body))


def _part(part: Any) -> Markup:
    if isinstance(part, Formula):
        return Markup(f'<div class="formula">{mathml(part.tex, display=True)}</div>')
    if isinstance(part, Picture):
        return figure_tag(
            part.figure, alt=part.caption.replace("$", ""), caption=_prose(part.caption)
        )
    if isinstance(part, Table):
        note = Markup(f'<p class="note">{_prose(part.caption)}</p>') if part.caption else ""
        rows = [[_prose(cell) for cell in row] for row in part.rows]
        head = [_prose(cell) for cell in part.head]
        return Markup(f'<div class="wide">{table(rows, head=head)}</div>{note}')
    return Markup(f"<p>{_prose(part)}</p>")


def _claims(claims: Sequence[Claim]) -> Markup:
    """Consecutive claims as one table, "the lecture prints | we measure"."""
    if not claims:
        return Markup("")
    rows = [
        (
            Markup(f'{_prose(claim.text)} <span class="where">{escape(claim.lines)}</span>'),
            _prose(claim.lecture),
            _prose(claim.measured),
            Markup(f'<b class="{_css(claim.verdict)}">{escape(claim.verdict)}</b>')
            + (Markup(f'<br><span class="why">{_prose(claim.why)}</span>') if claim.why else ""),
        )
        for claim in claims
    ]
    head = ("claim", "the lecture prints", "we measure", "verdict")
    return Markup(f'<div class="wide claims">{table(rows, head=head)}</div>')


def _prose(text: str) -> Markup:
    return prose(_typeset(text))


def _typeset(text: str) -> str:
    """Numbers as in print, outside formulas and code: 4e-05 as a power of ten, a true minus."""
    pieces = re.split(r"(\$[^$]+\$|`[^`]+`)", text)
    return "".join(p if p[:1] in ("$", "`") else _numbers(p) for p in pieces)


def _numbers(text: str) -> str:
    text = re.sub(r"(?<![\w.])-(?=\d)", "−", text)
    return re.sub(r"(−?)\b(\d+(?:\.\d+)?)e([+-]?)(\d+)\b", _power, text)


def _power(found: re.Match) -> str:
    sign, digits, direction, exponent = found.groups()
    if float(digits) == 0:
        return "0"
    power = rf"10^{{{'-' if direction == '-' else ''}{int(exponent)}}}"
    return f"{sign}${power}$" if digits == "1" else rf"{sign}${digits} \times {power}$"


def _css(verdict: str) -> str:
    classes = "yes", "shape", "erratum", "other", "no", "other"
    return dict(zip(VERDICTS, classes, strict=True))[verdict]


_STYLE = """
math { font-family: "STIX Two Math", "Latin Modern Math", "Cambria Math", math;
  font-size: 1.12em; } .formula { margin: .6rem 0; padding: .3rem 0; overflow: auto hidden; }
.wide { overflow-x: auto; margin: .9rem 0; } .claims table { width: 100%; }
.claims table { table-layout: fixed; min-width: 44rem; } .claims th:nth-child(1) { width: 31%; }
.claims th:nth-child(2) { width: 16%; } .claims th:nth-child(3) { width: 27%; }
.where { color: #8a93a1; font-size: .8em; white-space: nowrap; } .why, .note { color: var(--soft);
  font-size: .9rem; } .note { margin-top: .2rem; }
b.yes { color: #1c7a55; } b.shape { color: #2c5fa8; } b.erratum { color: #b3441e; }
b.other { color: #6b7280; } b.no { color: #b00020; }
.dot { display: inline-block; width: .55em; height: .55em; border-radius: 50%; margin-left: .3em; }
.dot.yes { background: #1c7a55; } .dot.shape { background: #2c5fa8; }
.dot.erratum { background: #b3441e; } .dot.other { background: #b4bac4; }
.dot.no { background: #b00020; }
.script { color: #8a93a1; font: .78em ui-monospace, monospace; text-align: right; margin: 0; }
.play { background: #f2f6fc; border-left: 4px solid var(--accent); padding: .6rem .9rem; }
a { color: var(--accent); } ol li { margin: .1rem 0; }
"""
