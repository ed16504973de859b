"""The import direction: a module may import only modules of a lower layer, or of its own folder."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxlin"
WHOLE = PACKAGE / "__init__.py", PACKAGE / "__main__.py"  # the package itself: above all
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path not in WHOLE)
LAYERS = [  # lowest first; modules of one layer do not know each other
    "core cpu_threads _checks _dtypes prefetch transfer platforms",
    "precision blocks",
    "scores losses probability regularizers memory distributed",
    "objectives passes metrics",
    "gradients landscape data preprocess batches optimizers checkpoint hand_features",
    "stream",
    "steps",
    "train models solvers",
    "sweep",
    "plots",
    "report",
    "estimators testing programs runs",
    "lecture",
    "cli",
]
LAYER_OF = {name: level for level, row in enumerate(LAYERS) for name in row.split()}


def names(path):
    """All that is imported, deferred imports too, by whole names (all imports are absolute)."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom)]
    found = {n.module for n in froms} | {f"{n.module}.{a.name}" for n in froms for a in n.names}
    return found | {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}


def imports(path):
    """The first name under `jaxlin` in every import."""
    return {name.split(".")[1] for name in names(path) if name.startswith("jaxlin.")}


def home(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    level = LAYER_OF[home(path)]
    allowed = {m for m in LAYER_OF if LAYER_OF[m] < level} | {home(path), "__version__"}
    assert imports(path) <= allowed


def circle(knows):
    """A circle of modules that know each other, or nothing."""
    done = set()

    def walk(name, path):
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        done.add(name)
        return next(filter(None, (walk(known, [*path, name]) for known in knows[name])), [])

    return next(filter(None, (walk(name, []) for name in sorted(knows))), [])


def test_no_modules_know_each_other_in_a_circle():
    within = [path for path in MODULES if path.name != "__init__.py"]
    name_of = {
        path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in within
    }
    knows = {name_of[path]: sorted(names(path) & set(name_of.values())) for path in within}
    assert circle(knows) == []
    assert circle({"a": ["b"], "b": ["c", "d"], "c": [], "d": ["b"]}) == ["b", "d"]


def test_every_module_has_a_layer():
    assert {home(path) for path in MODULES} <= LAYER_OF.keys()


def test_an_upward_import_is_seen(tmp_path):
    sinner = tmp_path / "sinner.py"
    sinner.write_text(
        "def f():\n    from jaxlin import cli\n    import jaxlin.train\n", encoding="utf-8"
    )
    assert imports(sinner) == {"cli", "train"}
