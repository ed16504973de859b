"""Check a gradient: autodiff's, the hand-derived one, or one's own."""

__all__ = ["Options", "run"]

from typing import Any

from jaxlin.runs.gradient_check import Options


def run(options: Options) -> int:
    """Check, print the reports, and write them where asked."""
    from jaxlin.runs.gradient_check import check
    from jaxlin.runs.output import emit, say

    def tell(name: str, report: Any) -> None:
        if options.json or options.quiet:
            say(f"{name}: {report}\n", quiet=options.quiet)
        else:
            print(f"{name}: {report}\n")

    found = check(options, tell)
    if found.out is not None:
        say(f"wrote {found.out}/gradcheck.json, .png and .html", quiet=options.quiet)
    if options.json:
        emit(found.results)
    return 0 if found.results["verdict"] in ("pass", "kink") else 1
