"""The frame of every page: style, sections, pictures and charts inside one HTML file.

Text that came from outside (class names, paths) is escaped by Jinja's autoescape or by `escape`;
the only script is plotly.js, written into the file, so a page works without a network.
"""

__all__ = [
    "Section",
    "chart",
    "escape",
    "facts_lines",
    "facts_table",
    "figure_tag",
    "image_tag",
    "page",
    "table",
]

import base64
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from jaxlin.plots.style import png_bytes


class Section(NamedTuple):
    """A titled part of a page."""

    title: str
    body: Markup
    """Trusted HTML: build it with the helpers here, which escape what they are given."""


def page(title: str, sections: Iterable[Section], *, lead: str | Markup = "") -> str:
    """One self-contained HTML page: a title, a lead sentence, and the sections in order."""
    from jinja2 import Environment

    sections = list(sections)
    template = Environment(autoescape=True).from_string(_PAGE)
    charts = any("plotly-graph-div" in section.body for section in sections)
    plotly = Markup(f"<script>{_plotly_js()}</script>") if charts else ""
    return template.render(title=title, lead=lead, sections=sections, plotly=plotly)


def image_tag(png: bytes, *, alt: str, width: int | None = None, pixelated: bool = False) -> Markup:
    """An <img> that carries its bytes."""
    data = base64.b64encode(png).decode()
    size = f' width="{int(width)}"' if width else ""
    look = ' class="pixels"' if pixelated else ""
    return Markup(f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}"{size}{look}>')


def figure_tag(figure: Figure, *, alt: str, caption: str | Markup = "") -> Markup:
    """A matplotlib figure as <figure> with its caption."""
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Markup(f"<figure>{image_tag(png_bytes(figure), alt=alt)}{note}</figure>")


def chart(figure: Any, *, height: int = 380) -> Markup:
    """A plotly figure one can hover, as a <div>; `page` adds plotly.js once."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        font={"family": "system-ui, sans-serif", "color": "#1f2430"},
    )
    return Markup(
        figure.to_html(
            include_plotlyjs=False,
            full_html=False,
            config={"displaylogo": False, "responsive": True},
        )
    )


def _readable(value: Any) -> str:
    """A value for people: numbers with eight digits, and no brackets."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_readable(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_readable, value))
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _in_words(facts: Mapping) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _readable(value)) for name, value in facts.items()]


def facts_lines(facts: Mapping) -> list[str]:
    """What a run's results say, a line of a terminal for each.

    >>> facts_lines({"least_loss": {"step": 0.8277455619612099, "loss": [10.0, 3]}})
    ['least loss     step 0.82774556, loss 10, 3']
    """
    return [f"{name:<14} {value}" for name, value in _in_words(facts)]


def facts_table(facts: Mapping) -> Markup:
    """What a run's results say, a row for each.

    >>> facts_table({"least_loss": 0.25})
    Markup('<table><tbody><tr><td>least loss</td><td>0.25</td></tr></tbody></table>')
    """
    return table(_in_words(facts))


def table(rows: Sequence[Sequence], *, head: Sequence[str] = ()) -> Markup:
    """A table; every cell is escaped unless it is `Markup`."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return Markup(
        f"<table>{f'<thead><tr>{top}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"
    )


@cache
def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>
:root { --ink: #1f2430; --soft: #5d6675; --line: #e3e7ee; --accent: #2c5fa8; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink);
  background: #fff; margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.5rem 5rem; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .7rem; padding-top: .9rem;
  border-top: 1px solid var(--line); }
p.lead { color: var(--soft); margin: 0 0 1.4rem; font-size: 1.05rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: .28rem 1.1rem .28rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: .9rem; }
img { max-width: 100%; height: auto; } img.pixels { image-rendering: pixelated; }
code, pre { font: .88em ui-monospace, SFMono-Regular, Menlo, monospace; }
pre { background: #f6f8fb; padding: .8rem 1rem; white-space: pre-wrap; border-radius: 6px; }
.numbers { display: flex; flex-wrap: wrap; gap: .8rem 2.6rem; margin: 1.2rem 0; }
.numbers div { min-width: 7rem; } .numbers b { display: block; font-size: 1.7rem;
  font-variant-numeric: tabular-nums; } .numbers span { color: var(--soft); font-size: .88rem; }
.gallery { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(8.2rem, 1fr)); }
.gallery figure { margin: 0; } .gallery img { width: 100%; border-radius: 4px; }
.gallery figcaption { font-size: .8rem; line-height: 1.3; }
details summary { cursor: pointer; color: var(--accent); }
</style>
{{ plotly }}
</head>
<body>
<h1>{{ title }}</h1>
{% if lead %}<p class="lead">{{ lead }}</p>{% endif %}
{% for section in sections %}
{% if section.title %}<h2>{{ section.title }}</h2>{% endif %}
{{ section.body }}
{% endfor %}
</body>
</html>
"""
