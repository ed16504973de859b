"""How do the rooms of the package lie? Rows of modules, of which each imports only from below.

Drawn from the table that `tests/test_layers.py` enforces, so that the picture cannot say other
things than the code does.

    python experiments/rooms.py --out experiments/pictures
"""

import argparse
import ast
from pathlib import Path

from jaxlin.plots.style import INK, new_figure, save

ROOT = Path(__file__).parents[1]
WHAT = (  # lowest row first
    "nouns",
    "precision, blocks",
    "formulas, devices",
    "objective, passes",
    "tools",
    "reading ahead",
    "steps",
    "fitting",
    "banks of heads",
    "pictures",
    "pages",
    "jobs",
    "the lecture",
    "command line",
)
SHADES = ("#dbe7f3", "#eef3e6")


def layers() -> list[list[str]]:
    """The rows of `tests/test_layers.py`, lowest first."""
    tree = ast.parse((ROOT / "tests" / "test_layers.py").read_text(encoding="utf-8"))
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "LAYERS"
    )
    return [row.split() for row in ast.literal_eval(table)]


def draw(rows: list[list[str]], path: Path) -> None:
    """A band for each row, the lowest below, with its modules side by side."""
    figure, axes = new_figure(9.0, 0.42 * len(rows) + 0.3)
    axes = axes[0, 0]
    for level, (what, modules) in enumerate(zip(WHAT, rows, strict=True)):
        middle = level + 0.45
        axes.fill_between((0, 1), level, level + 0.9, color=SHADES[level % 2], linewidth=0)
        axes.text(0.01, middle, what, va="center", color=INK, fontweight="bold", fontsize=9)
        names = "  ".join(modules)
        axes.text(0.19, middle, names, va="center", color=INK, family="monospace", fontsize=8)
    arrow = {"arrowstyle": "->", "color": INK}
    axes.annotate("", xy=(1.03, 0), xytext=(1.03, len(rows) - 0.1), arrowprops=arrow)
    axes.text(1.045, len(rows) / 2, "imports", rotation=270, va="center", color=INK)
    axes.set(xlim=(0, 1.08), ylim=(0, len(rows)))
    axes.axis("off")
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "experiments" / "pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    draw(layers(), options.out / "rooms.png")
    print(f"Look at {options.out / 'rooms.png'}")


if __name__ == "__main__":
    main()
