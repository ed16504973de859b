"""Writes every page of measured numbers from the JSON that the benchmarks left.

    python experiments/benchmarks/report.py            # experiments/benchmarks/README.md
    python experiments/benchmarks/report.py --readme   # and what README.md marks, in place
    python experiments/benchmarks/report.py --check    # writes nothing; says what is out of date

A benchmark that is run with `--out experiments/tables` leaves its table there (`save_table`). In
README.md `<!-- table: NAME -->`, a line of its own, marks the Markdown table below it: its header
and first cells say which columns and rows are shown, all other cells are filled from
`experiments/tables/NAME.json`; where no table follows, the whole one is put there. In a sentence
`0.83<!-- NAME: ROW / COLUMN -->` marks the number before it in the same way.
"""

import argparse
import json
import os
import platform
import re
import shlex
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "experiments" / "tables"
PAGE = ROOT / "experiments" / "benchmarks" / "README.md"
README = ROOT / "README.md"
ORDER = (  # of the page; others follow
    *("accuracy", "minibatch", "gradient_check", "gradient_bug_zoo", "verdict_stress"),
    *("landscape", "landscape_generic", "full_batch_fashion-mnist", "full_batch_cifar10"),
    *("full_batch_features-uneven", "full_batch_features-apart", "small_problems"),
    *("small_others", "hinges_digits_0.0005", "hinges_fashion-mnist_0.0005"),
    *("hinges_fashion-mnist_5e-05", "hinges_cifar10_0.0005", "many_classes", "sparse_text"),
    *("sweep_clip", "sweep_heads", "few_shot", "streaming", "shuffle_in_blocks"),
    *("kill_and_resume", "kill_and_resume_certified", "checkpoints", "program_cache"),
)
KEPT = (
    *("jax", "numpy", "scikit-learn", "scipy", "optax", "torch", "jaxopt"),
    *("scikit-learn-intelex", "loss-landscapes"),
)
MARK = re.compile(r"^<!-- table: (\S+) -->\n(?:\n*((?:\|.*\n)+))?", re.M)
INLINE = re.compile(r"<!-- ([\w.-]+): (.+?) / (.+?) -->")
NUMBER = re.compile(r"\d[\d.,]*(?:e[-+]?\d+)?$")
INTRODUCTION = """\
# What was measured

Every table of this page, and every number of the front page that cites one, is written by
`python experiments/benchmarks/report.py` from the JSON in [`experiments/tables`](../tables). No
number is typed by hand: a benchmark that is run with `--out experiments/tables` leaves its table
there, with the command, the date, the machine and the versions. Seconds are of a warm run, without
compilation, where nothing else is said. A number that was worked out from a part of a run is called
extrapolated. Read ratios rather than seconds: those of one table ran side by side.

What the programs would need on accelerators that were not at hand, and what several devices
exchange, stands in tables of their own: [an NVIDIA H100](../tables/ahead_h100.md) and
[a TPU v5e](../tables/ahead_v5e.md) by their compilers, nothing measured; [this
CPU](../tables/accelerator_cpu.md) beside its roofline; [1 to 8 devices](../tables/scaling.md).
The questions and commands of all experiments are in [`experiments/README.md`](../README.md).
"""


def versions() -> dict[str, str]:
    """Of Python and of the installed packages that stand in the tables."""
    installed = {dist.name.lower(): dist.version for dist in metadata.distributions() if dist.name}
    return {"Python": platform.python_version()} | {
        name: installed[name] for name in KEPT if name in installed
    }


def save_table(
    folder: Path,
    name: str,
    *,
    title: str,
    columns: list[str],
    rows: list[list],
    notes: list[str],
    changes: str,
    measured: object = None,
) -> None:
    """Writes `NAME.json`: a table, what it took to measure it, and the raw measurements.

    Args:
        folder: created if it is missing.
        name: of the table, and of the file.
        title: what was measured, on what.
        columns: the header; the first is that of the rows' labels.
        rows: cells as they are to be read, numbers as text with their digits and units.
        notes: sentences on how it was measured, and what else was found.
        changes: what would make other numbers of these.
        measured: whatever the benchmark wants to keep beside the table.
    """
    rows = [[str(cell) for cell in row] for row in rows]
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"every row of {name} must have {len(columns)} cells")
    table = {
        "title": title,
        "command": shlex.join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": versions(),
        "columns": columns,
        "rows": rows,
        "notes": notes,
        "changes": changes,
        "measured": measured,
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(table, indent=1, ensure_ascii=False) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def load(folder: Path = TABLES) -> dict[str, dict]:
    """The tables of a folder by name; other JSON files in it are passed over."""
    files = {path.stem: path for path in sorted(folder.glob("*.json"))}
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items()}
    return {
        n: table for n, table in found.items() if isinstance(table, dict) and "columns" in table
    }


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def place(name: str) -> tuple[int, str]:
    return ORDER.index(name) if name in ORDER else len(ORDER), name


def page(tables: dict[str, dict]) -> str:
    """`experiments/benchmarks/README.md`."""
    parts = [INTRODUCTION]
    for name, table in sorted(tables.items(), key=lambda item: place(item[0])):
        known = ", ".join(f"{what} {number}" for what, number in table["versions"].items())
        parts.append(f'<a id="{name}"></a>\n## {table["title"]}\n')
        parts.append(markdown(table["columns"], table["rows"]))
        parts += [f"{note}\n" for note in table["notes"]]
        parts.append(f"What would change it: {table['changes']}\n")
        parts.append(
            f"`{table['command']}`, {table['date']}, {table['machine']}; {known}"
            f" ([{name}.json](../tables/{name}.json){origin(table)}).\n"
        )
    return "\n".join(parts)


def origin(table: dict) -> str:
    return f", {table['origin']}" if table.get("origin") else ""


def plain(cell: str) -> str:
    """A label without its emphasis."""
    return cell.strip().replace("*", "").replace("`", "")


def table_of(tables: dict[str, dict], name: str) -> dict:
    if name not in tables:
        raise KeyError(f"there is no table {name!r}, but {', '.join(tables)}")
    return tables[name]


def cell_of(tables: dict[str, dict], name: str, row: str, column: str) -> str:
    """One cell by its labels; raises `KeyError` with a sentence where there is none."""
    table = table_of(tables, name)
    columns, rows = map(plain, table["columns"]), {plain(row[0]): row for row in table["rows"]}
    place = {label: index for index, label in enumerate(columns)}
    for label, known in ((row, rows), (column, place)):
        if plain(label) not in known:
            raise KeyError(f"{name} has no {label.strip()!r}, but {', '.join(known)}")
    return rows[plain(row)][place[plain(column)]]


def filled(text: str, tables: dict[str, dict]) -> str:
    """The text with every marked table and number as the JSON has it."""

    def table(match):
        name, lines = match[1], (match[2] or "").splitlines()
        if not lines:
            whole = table_of(tables, name)
            return f"<!-- table: {name} -->\n\n" + markdown(whole["columns"], whole["rows"])
        header, *rows = ([c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines)
        shown = []
        for row in rows[1:]:
            cells = [cell_of(tables, name, row[0], column) for column in header[1:]]
            bold = row[0].startswith("**")
            shown.append([row[0], *(f"**{plain(c)}**" if bold and c else c for c in cells)])
        return f"<!-- table: {name} -->\n\n" + markdown(header, shown)

    return numbered(MARK.sub(table, text), tables)


def numbered(text: str, tables: dict[str, dict]) -> str:
    """The text with the number right before every mark in a sentence as the JSON has it."""
    done, at = "", 0
    for mark in INLINE.finditer(text):
        before, cell = text[at : mark.start()], cell_of(tables, *mark.groups())
        bare = before.rstrip("*")
        stars = before[len(bare) :]
        if not re.search(rf"(?<![\d.,]){re.escape(cell)}$", bare):
            number = NUMBER.search(bare)
            if number is None:
                raise ValueError(f"no number stands right before {mark[0]}. Write {cell!r} there.")
            bare = bare[: number.start()] + cell
        done, at = done + bare + stars + mark[0], mark.end()
    return done + text[at:]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readme", action="store_true", help="fill README.md, too")
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    options = parser.parse_args(arguments)
    tables = load()
    wanted = {PAGE: page(tables)}
    if options.readme or options.check:
        try:
            wanted[README] = filled(README.read_text(encoding="utf-8"), tables)
        except (KeyError, ValueError) as error:
            sys.exit(f"README.md: {error.args[0]}")
    stale = [
        path
        for path, text in wanted.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if not options.check:
            path.write_text(wanted[path], encoding="utf-8")
        print(f"{path.relative_to(ROOT)} {'is out of date' if options.check else 'written'}")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
