"""The playground: three classes in the plane, nine parameters, four losses, every number live."""

__all__ = ["playground_page"]

from importlib.resources import files

_SCRIPTS = ("formulas.js", "drawing.js", "controls.js")


def playground_page() -> str:
    """One self-contained page that computes for itself, in plain JavaScript."""
    folder = files("jaxlin.lecture.playground")
    page, *scripts = (folder.joinpath(name).read_text("utf-8") for name in ("page.html", *_SCRIPTS))
    return page.replace("<!-- scripts -->", "\n".join(f"<script>\n{s}</script>" for s in scripts))
