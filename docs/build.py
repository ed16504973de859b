"""Writes the reference: every public name, from its docstring, as pages that need no network.

    pip install -e '.[docs]' && python docs/build.py --out site

pdoc finds the names (`__all__`, of modules too); formulas between `$$` and `$$` become MathML, that
browsers draw by themselves, and examples become code. The front page is `docs/architecture.md`.
"""

import argparse
import contextlib
import inspect
import re
import shutil
import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.doc
import pdoc.docstrings
import pdoc.render
from jax.typing import ArrayLike

import jaxlin
from jaxlin.report.mathml import mathml

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "experiments" / "pictures"
ARRAY_LIKE = inspect.formatannotation(ArrayLike)
OF_TUPLES = ("Alias for field number", "Create new instance of")
"""What Python says of the fields of a `NamedTuple` that have no words of their own."""
FORMULA = re.compile(r"\$\$(.+?)\$\$", re.S)
EXAMPLE = re.compile(r"^( *)>>> .*\n(?:\1.*\S.*\n)*", re.M)


def drawn(text: str) -> str:
    """The formulas of a docstring as MathML, on lines of their own."""
    return FORMULA.sub(lambda found: str(mathml(found[1], display=True)), text)


def fenced(text: str) -> str:
    """The examples of a docstring as blocks of code."""

    def block(found):
        indent, lines = found[1], found[0].rstrip("\n").split("\n")
        body = "\n".join(line.removeprefix(indent) for line in lines)
        return (
            f"{indent}```pycon\n"
            + "".join(f"{indent}{x}\n" for x in body.split("\n"))
            + (f"{indent}```\n")
        )

    return EXAMPLE.sub(block, text.rstrip("\n") + "\n")


def shortened(annotation: str) -> str:
    """An annotation as the source has it: JAX's own aliases are long when they are resolved."""
    return annotation.replace(ARRAY_LIKE, "ArrayLike").replace("jax.jaxlib._jax.Array", "Array")


def front_page() -> str:
    """What `jaxlin` says of itself, and how it is built."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return text.replace("../experiments/pictures/", "")


@contextlib.contextmanager
def our_way():
    """pdoc with formulas, examples and annotations as they are written here."""
    convert, annotated = pdoc.docstrings.convert, inspect.formatannotation
    package = inspect.cleandoc(jaxlin.__doc__)

    def converted(docstring, docformat, source_file):
        if docstring.startswith(OF_TUPLES):
            return ""
        if inspect.cleandoc(docstring) == package:
            return fenced(docstring) + "\n" + front_page()
        return convert(fenced(drawn(docstring)), docformat, source_file)

    def short(*arguments, **options):
        return shortened(annotated(*arguments, **options))

    pdoc.docstrings.convert = converted
    inspect.formatannotation = pdoc.doc.formatannotation = short
    try:
        with warnings.catch_warnings():
            # annotations of other packages that only a type checker resolves
            warnings.filterwarnings("ignore", message="Error parsing type annotation")
            yield
    finally:
        pdoc.docstrings.convert = convert
        inspect.formatannotation = pdoc.doc.formatannotation = annotated


def build(out: Path) -> None:
    """Writes the pages and the picture into the folder `out`."""
    # pdoc asks a module for what it has, and not for what it would give
    vars(jaxlin).update({name: getattr(jaxlin, name) for name in jaxlin.__all__})
    pdoc.render.configure(
        docformat="google",
        footer_text=f"jaxlin {jaxlin.__version__}",
        template_directory=ROOT / "docs",
    )
    with our_way():
        pdoc.pdoc("jaxlin", output_directory=out)
    shutil.copy(PICTURES / "rooms.png", out)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    options = parser.parse_args(arguments)
    build(options.out)
    print(f"Look at     {options.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
