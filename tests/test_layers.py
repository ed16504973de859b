"""The import direction: a module may import only modules of a lower layer, or of its own folder."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxlin"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
LAYERS = [  # lowest first; modules of one layer do not know each other
    "core _checks prefetch",
    "scores losses probability regularizers memory precision sharding",
    "objectives passes metrics",
    "gradients landscape data preprocess batches optimizers checkpoint hand_features",
    "stream",
    "steps",
    "train models solvers",
    "sweep",
    "plots",
    "report",
    "estimators testing cli",
]
LAYER_OF = {name: level for level, row in enumerate(LAYERS) for name in row.split()}


def imports(path):
    """The first name under `jaxlin` in every import, deferred ones too (all are absolute)."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom)]
    dotted = [f"{n.module}.{a.name}" for n in froms for a in n.names]
    dotted += [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    return {name.split(".")[1] for name in dotted if name.startswith("jaxlin.")}


def home(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    level = LAYER_OF[home(path)]
    allowed = {m for m in LAYER_OF if LAYER_OF[m] < level} | {home(path), "__version__"}
    assert imports(path) <= allowed


def test_every_module_has_a_layer():
    assert {home(path) for path in MODULES} <= LAYER_OF.keys()


def test_an_upward_import_is_seen(tmp_path):
    sinner = tmp_path / "sinner.py"
    sinner.write_text("def f():\n    from jaxlin import cli\n    import jaxlin.train\n")
    assert imports(sinner) == {"cli", "train"}
