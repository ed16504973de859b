r"""Formulas: the part of TeX's notation that a page needs, as MathML that browsers draw themselves.

Letters, digits, operators, `_`, `^`, `{...}`, `\left(...\right)`, `\frac`, `\sqrt`, `\text`,
`\mathbf`, `\matrix{a & b \\ c & d}`, Greek letters, relations and named operators; anything else
is refused, so a formula either is drawn as written or fails loudly.
"""

__all__ = ["mathml", "prose"]

import re

from markupsafe import Markup, escape

_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\d+(?:[.,]\d+)*|\s+|.", re.DOTALL)
_LETTERS = {
    **dict(
        zip(("alpha", "beta", "gamma", "delta", "lambda", "mu", "sigma"), "αβγδλμσ", strict=True)
    ),
    **{"eta": "η", "theta": "θ", "epsilon": "ε", "ell": "ℓ", "Delta": "Δ", "infty": "∞"},
    **{"nabla": "∇", "partial": "∂", "reals": "ℝ"},
}
_OPERATORS = {
    **{"le": "≤", "ge": "≥", "ne": "≠", "to": "→", "in": "∈", "times": "×", "cdot": "·"},
    **{"approx": "≈", "propto": "∝", "mid": "|", "parallel": "∥", "ldots": "…", "pm": "±"},
    **{"mapsto": "↦", "top": "⊤", "Vert": "‖"},
}
_NAMED = {"log", "exp", "ln", "cos"}
_LIMITS = {"sum": "∑", "max": "max", "min": "min", "lim": "lim"}
_SPACES = {",": "0.17em", ";": "0.28em", "quad": "1em"}


def mathml(tex: str, *, display: bool = False) -> Markup:
    r"""A formula as a <math> element.

    Args:
      tex: the formula, in the notation above.
      display: on a line of its own, with limits under and over their operators.

    Raises:
      ValueError: a command that is not known, or braces that do not match.

    >>> str(mathml("e^x"))
    '<math><mrow><msup><mi>e</mi><mi>x</mi></msup></mrow></math>'
    """
    tokens = [token for token in _TOKEN.findall(tex) if not token.isspace()]
    body, rest = _row(tokens, until=())
    if rest:
        raise ValueError(f"`{tex}`: `{rest[0]}` closes nothing.")
    form = ' display="block"' if display else ""
    return Markup(f"<math{form}>{body}</math>")


def prose(text: str) -> Markup:
    r"""A paragraph's text as HTML: `$formula$`, `` `code` `` and `*emphasis*`, all else escaped.

    >>> prose("*one* < `two`")
    Markup('<em>one</em> &lt; <code>two</code>')
    """
    pieces = re.split(r"(\$[^$]+\$|`[^`]+`|\*[^*\s][^*]*\*)", text)
    return Markup("").join(map(_piece, pieces))


def _piece(piece: str) -> Markup:
    if len(piece) > 2 and piece[0] == piece[-1] and piece[0] in "$`*":
        inside = piece[1:-1]
        if piece[0] == "$":
            return mathml(inside)
        tag = "code" if piece[0] == "`" else "em"
        return Markup(f"<{tag}>{escape(inside)}</{tag}>")
    return escape(piece)


def _row(tokens: list[str], *, until: tuple[str, ...]) -> tuple[str, list[str]]:
    """Everything up to a token of `until` (which stays), as one <mrow>; and the rest."""
    parts: list[str] = []
    while tokens and tokens[0] not in until:
        if tokens[0] == "}":
            break
        base, limits, tokens = _atom(tokens)
        below = above = None
        while tokens and tokens[0] in "_^":
            mark = tokens[0]
            script, _, tokens = _atom(tokens[1:])
            below, above = (script, above) if mark == "_" else (below, script)
        parts.append(_scripted(base, limits, below, above))
    return f"<mrow>{''.join(parts)}</mrow>", tokens


def _scripted(base: str, limits: bool, below: str | None, above: str | None) -> str:
    under, over, both = ("munder", "mover", "munderover") if limits else ("msub", "msup", "msubsup")
    if below is not None and above is not None:
        return f"<{both}>{base}{below}{above}</{both}>"
    if below is not None:
        return f"<{under}>{base}{below}</{under}>"
    return base if above is None else f"<{over}>{base}{above}</{over}>"


def _atom(tokens: list[str]) -> tuple[str, bool, list[str]]:
    """The element that `tokens` begin with, whether its scripts are limits, and the rest."""
    if not tokens:
        raise ValueError("The formula ends where something was expected.")
    token, rest = tokens[0], tokens[1:]
    if token == "{":
        body, rest = _row(rest, until=())
        return body, False, _closed(rest)
    if token.startswith("\\"):
        return _command(token[1:], rest)
    if token[0].isdigit():
        return f"<mn>{token}</mn>", False, rest
    if token.isalpha():
        return f"<mi>{token}</mi>", False, rest
    if token in "()[]|":
        return f'<mo stretchy="false">{token}</mo>', False, rest
    return f"<mo>{escape('−' if token == '-' else token)}</mo>", False, rest


def _command(name: str, rest: list[str]) -> tuple[str, bool, list[str]]:
    if name == "frac":
        top, _, rest = _atom(rest)
        bottom, _, rest = _atom(rest)
        return f"<mfrac>{top}{bottom}</mfrac>", False, rest
    if name == "sqrt":
        inside, _, rest = _atom(rest)
        return f"<msqrt>{inside}</msqrt>", False, rest
    if name == "left":
        return _fenced(rest)
    if name in ("text", "mathbf"):
        end = rest.index("}")
        words = "".join(rest[1:end])
        if name == "text":
            return f"<mtext>{escape(words.replace('~', ' '))}</mtext>", False, rest[end + 1 :]
        return (
            f'<mi style="font-weight:bold;font-style:normal">{words}</mi>',
            False,
            rest[end + 1 :],
        )
    if name == "matrix":
        return _matrix(rest[1:])
    if name in _LIMITS:
        form = ' movablelimits="true"' if name != "lim" else ""
        return f"<mo{form}>{_LIMITS[name]}</mo>", True, rest
    if name in _NAMED:
        return f'<mi>{name}</mi><mspace width="0.17em"></mspace>', False, rest
    if name in _LETTERS:
        return f"<mi>{_LETTERS[name]}</mi>", False, rest
    if name in _OPERATORS:
        return f"<mo>{_OPERATORS[name]}</mo>", False, rest
    if name in _SPACES:
        return f'<mspace width="{_SPACES[name]}"></mspace>', False, rest
    if name in "{}":
        return f"<mo>{name}</mo>", False, rest
    raise ValueError(f"`\\{name}` is not a command that formulas here know.")


def _fenced(rest: list[str]) -> tuple[str, bool, list[str]]:
    r"""What follows `\left`: a fence, a row as tall as it needs to be, `\right` and a fence."""
    opening = rest[0] if rest else ""
    body, rest = _row(rest[1:], until=("\\right",))
    if len(rest) < 2:
        raise ValueError("A `\\left` of the formula has no `\\right`.")
    return f"<mrow><mo>{opening}</mo>{body}<mo>{rest[1]}</mo></mrow>", False, rest[2:]


def _matrix(rest: list[str]) -> tuple[str, bool, list[str]]:
    rows: list[str] = []
    cells: list[str] = []
    while True:
        cell, rest = _row(rest, until=("&", "\\\\"))
        cells.append(f"<mtd>{cell}</mtd>")
        end, after = (rest[0], rest[1:]) if rest else ("", [])
        if end != "&":
            rows.append(f"<mtr>{''.join(cells)}</mtr>")
            cells = []
        if end not in ("&", "\\\\"):
            table = f"<mo>[</mo><mtable>{''.join(rows)}</mtable><mo>]</mo>"
            return f"<mrow>{table}</mrow>", False, _closed(rest)
        rest = after


def _closed(rest: list[str]) -> list[str]:
    if not rest or rest[0] != "}":
        raise ValueError("A `{` of the formula is never closed.")
    return rest[1:]
