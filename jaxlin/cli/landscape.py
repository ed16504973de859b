"""Draw the loss along rays and planes in parameter space."""

__all__ = ["Options", "run"]

from jaxlin.runs.landscape_options import Options, check_options, shape_of


def run(options: Options) -> int:
    """Compute and draw what `options` say; return the exit code."""
    shape = shape_of(options)
    check_options(options)
    from jaxlin.runs.output import emit, say
    from jaxlin.runs.slices import draw

    _, found = draw(options, shape, lambda *words: say(*words, quiet=options.quiet))
    if options.json:
        emit(found)
    return 0
