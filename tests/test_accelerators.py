"""What accelerators need of every compiled program, told from its trace on a CPU.

Rules on jaxprs and on what is lowered for NVIDIA GPUs and TPUs; no device and no plugin is needed,
and nothing is compiled.
"""

import ast
import re
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export

from jaxlin import losses, models, preprocess, scores
from jaxlin.core import Batch, LinearParams
from jaxlin.gradients import linear_objective
from jaxlin.objectives import compose
from jaxlin.programs import SMALL, D, K, programs

PACKAGE = Path(__file__).parents[1] / "jaxlin"
PROGRAMS = list(programs())
MOST_ITERATIONS = 256
"""Of blocks, one after another: at some 50 us of launches each they take 13 ms, less than what a
device computes meanwhile on data of this size."""


def inner(equation):
    """The jaxprs inside an equation."""
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item


def equations(jaxpr, looped=False):
    """Every equation, and whether it is inside a loop."""
    for equation in jaxpr.eqns:
        yield equation, looped
        for each in inner(equation):
            yield from equations(each, looped or equation.primitive.name in ("scan", "while"))


def iterations(jaxpr):
    """Of all scans, one after another; of the branches of a condition the longest counts."""
    count = 0
    for equation in jaxpr.eqns:
        within = [iterations(each) for each in inner(equation)]
        if equation.primitive.name == "scan":
            count += equation.params["length"] * (1 + sum(within))
        else:
            count += max(within, default=0) if equation.primitive.name == "cond" else sum(within)
    return count


def products(jaxpr):
    """(dtypes of the operands, dtype of the sums, precision, of two matrices) of every product."""
    for equation, _ in equations(jaxpr):
        if equation.primitive.name == "dot_general":
            operands = {str(each.aval.dtype) for each in equation.invars[:2]}
            sums, precision = str(equation.outvars[0].aval.dtype), equation.params["precision"]
            yield operands, sums, precision, min(each.aval.ndim for each in equation.invars) > 1


def lacking_on_a_tpu(text):
    """What XLA for TPU cannot compile, of a lowered program: float64 is a pair of float32 there."""
    for line in text.splitlines():
        if "LuDecomposition" in line and "f64" in line:
            yield "LU in float64"
        if re.search(r"bitcast_convert.*f64", line):
            yield "bits of float64"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_suits_accelerators(program):
    with jax.enable_x64(program.wide):
        jaxpr = jax.make_jaxpr(program.function)(*program.arguments).jaxpr
        assert iterations(jaxpr) <= MOST_ITERATIONS + program.steps
        for operands, sums, precision, large in products(jaxpr):
            assert precision is not None, f"an unstated product of {operands}"
            if program.narrow and large:
                assert (operands, sums) == ({program.narrow}, "float32")
            elif sums == "float32":
                assert "DEFAULT" not in str(precision)
        jitted = jax.jit(program.function)
        for platform in ("cuda", "tpu"):
            text = export.export(jitted, platforms=[platform])(*program.arguments).mlir_module()
            if platform == "tpu":
                assert set(lacking_on_a_tpu(text)) == set()


def test_both_products_of_a_coarse_pass_are_tf32_where_there_are_units_and_else_exact():
    """Of operands that are rounded already. For a GPU both ways are lowered, and its compiler keeps
    one: the table of `experiments/ahead_of_time.py` counts TF32 alone."""
    (program,) = (each for each in PROGRAMS if each.name == "passes.chunks.fused tf32")
    jitted = jax.jit(program.function)
    for platform, units in (("cuda", 2), ("tpu", 0), ("cpu", 0)):
        text = export.export(jitted, platforms=[platform])(*program.arguments).mlir_module()
        made = [line for line in text.splitlines() if "= stablehlo.dot_general" in line]
        assert sum("lhs_precision_type = tf32" in line for line in made) == units
        assert sum("[HIGHEST, HIGHEST]" in line for line in made) == len(made) - units >= 2
        assert text.count("= stablehlo.reduce_precision") == 4


def test_most_steps_of_descent_are_taken_without_asking_the_host():
    """Before an iteration of a loop whose length it does not know, a GPU waits for its host."""
    descents = [program for program in PROGRAMS if program.name.startswith("steps.run_chunk")]
    assert descents
    for program in descents:
        jaxpr = jax.make_jaxpr(program.function)(*program.arguments).jaxpr
        fixed = [e.params["length"] for e, _ in equations(jaxpr) if e.primitive.name == "scan"]
        assert max(fixed, default=0) >= 16


def test_functions_that_are_handed_out_state_the_precision_of_their_products():
    params, inputs = LinearParams(np.zeros((3, 4)), np.zeros(3)), np.ones((5, 4), np.float32)
    batch = Batch(inputs, np.zeros(5, np.int32), None)
    statistics = preprocess.fit(inputs, "center")
    score = models.score_function(statistics)
    for function in (
        partial(scores.linear, inputs=inputs),
        partial(preprocess.fold, statistics),
        jax.grad(partial(compose(score, losses.softmax_cross_entropy), batch=batch)),
        jax.grad(linear_objective(losses.softmax_cross_entropy, batch)),
    ):
        found = list(products(jax.make_jaxpr(function)(params).jaxpr))
        assert found
        assert all("HIGHEST" in str(precision) for _, _, precision, _ in found)


def test_devices_exchange_one_gradient():
    (program,) = (each for each in PROGRAMS if each.name == "passes.sharded._on_shards")
    with jax.enable_x64(False):
        jaxpr = jax.make_jaxpr(program.function)(*program.arguments).jaxpr
    exchanged = [
        (looped, sum(each.aval.size for each in equation.outvars))
        for equation, looped in equations(jaxpr)
        if equation.primitive.name.startswith(("psum", "all_", "ppermute"))
    ]
    assert not any(looped for looped, _ in exchanged)
    assert sum(size for _, size in exchanged) == K * (D + 1)


def compiled(path):
    """Where `jaxlin.precision.jit` is used: names of the functions, and `jax.jit` itself."""
    found, module = set(), ".".join(path.relative_to(PACKAGE).with_suffix("").parts)

    def visit(node, inside):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for decorator in node.decorator_list:
                if any(isinstance(n, ast.Name) and n.id == "jit" for n in ast.walk(decorator)):
                    found.add(".".join([module, *(inside or [node.name])]))
            inside = [*inside, node.name]
        elif isinstance(node, ast.Assign) and not inside and isinstance(node.targets[0], ast.Name):
            inside = [node.targets[0].id]
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "jit"
        ):
            found.add(".".join([module, *inside]))
        elif isinstance(node, ast.Attribute) and node.attr in ("jit", "pmap"):
            found.add(f"{module} jax.{node.attr}")
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    text = path.read_text(encoding="utf-8")
    for statement in ast.parse(text).body if re.search(r"\b(jit|pmap)\b", text) else ():
        visit(statement, [])
    return found


def as_room(name):
    """The room of what is compiled, where it is known as a whole; `jax.jit` itself never is."""
    room = name.split(".")[0]
    return room if room in SMALL and " " not in name else name


def test_all_that_is_compiled_is_known():
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "precision.py"]
    everything = {as_room(name) for name in set().union(*map(compiled, paths))}
    known = {program.name.split()[0] for program in PROGRAMS}
    assert everything == known | SMALL.keys()
    assert not known & SMALL.keys()


def test_what_is_not_known_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    path = tmp_path / "new.py"
    path.write_text(
        "import jax\nfrom jaxlin.precision import jit\n"
        "@jax.jit\ndef f(x): return x\n"
        "@partial(jit, static_argnums=0)\ndef g(x): return jit(lambda y: y)(x)\n"
        "class C:\n    def h(self, x): return jit(self.h)(x)\n"
        "k = jit(g)\n",
        encoding="utf-8",
    )
    assert compiled(path) == {"new jax.jit", "new.g", "new.C.h", "new.k"}


def test_broken_rules_are_seen():
    def looped(x):
        return jax.lax.scan(lambda s, _: (s @ x, None), x, None, length=1000)[0]

    square = jax.ShapeDtypeStruct((4, 4), np.float64)
    jaxpr = jax.make_jaxpr(looped)(square).jaxpr
    assert iterations(jaxpr) == 1000
    assert list(products(jaxpr)) == [({"float64"}, "float64", None, True)]
    for function, lacks in (
        (lambda x: jax.numpy.linalg.solve(x, x), "LU in float64"),
        (lambda x: jax.lax.bitcast_convert_type(x, np.int64), "bits of float64"),
    ):
        text = export.export(jax.jit(function), platforms=["tpu"])(square).mlir_module()
        assert set(lacking_on_a_tpu(text)) == {lacks}
