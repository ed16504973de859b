"""The formulas' notation: what it draws, and what it refuses."""

import xml.etree.ElementTree as ElementTree

import pytest

from jaxlin.report.mathml import mathml, prose


def spoken(tex):
    """The formula's symbols in reading order; parsing also proves the markup well-formed."""
    return "".join(ElementTree.fromstring(str(mathml(tex))).itertext())


@pytest.mark.parametrize(
    ("tex", "symbols"),
    [
        (r"L_i = -f_{y_i} + \log \sum_j e^{f_j}", "Li=−fyi+log∑jefj"),
        (r"\frac{f(x+h) - f(x-h)}{2h}", "f(x+h)−f(x−h)2h"),
        (r"\matrix{1 & 2 \\ 3 & 4} \mathbf{x} \in \reals^{3072}", "[1234]x∈ℝ3072"),
        (r"\max(0, s_j - s_y + \Delta) < 10^{-6}", "max(0,sj−sy+Δ)<10−6"),
        (r"\left(\frac{1}{2}\right) (x)", "(12)(x)"),
        (r"\text{mean~over}\;N", "mean overN"),
    ],
)
def test_every_symbol_is_drawn_in_order(tex, symbols):
    assert spoken(tex) == symbols


def test_scripts_and_limits_have_their_elements():
    assert "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>" in mathml("x_i^2")
    assert '<munder><mo movablelimits="true">∑</mo>' in mathml(r"\sum_j")
    assert 'display="block"' in mathml("x", display=True)


REFUSED = {
    r"\frac{1}": "ends where",
    "{x": "never closed",
    "x}": "closes nothing",
    r"\unheardof": "not a command",
    "x_": "ends where",
    r"\left( x": "no `.right`",
}


@pytest.mark.parametrize(("tex", "why"), REFUSED.items())
def test_what_it_does_not_know_is_refused(tex, why):
    with pytest.raises(ValueError, match=why):
        mathml(tex)


def test_prose_escapes_all_but_its_own_marks():
    assert prose("<b> & *so* `a<b` $x$") == (
        "&lt;b&gt; &amp; <em>so</em> <code>a&lt;b</code> <math><mrow><mi>x</mi></mrow></math>"
    )
