"""What a compiled text costs a device, counted by hand on texts small enough for that."""

import importlib.util
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def experiment(name, monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def of_time(monkeypatch):
    for name in ("compiled_text", "ahead_targets"):
        experiment(name, monkeypatch)
    return experiment("ahead_of_time", monkeypatch)


@pytest.fixture
def reader(monkeypatch):
    return experiment("compiled_text", monkeypatch)


@pytest.fixture
def device(reader):
    """A thousand bytes, products or instructions a second; a function is ten instructions."""
    return reader.Device(
        "a slow one",
        memory=1 << 20,
        bandwidth=1e3,
        products=dict.fromkeys(("f64", "f32", "tf32", "bf16"), 1e3),
        elements=dict.fromkeys(("f64", "f32"), 1e3),
        function=dict.fromkeys(("f64", "f32"), 10),
        unset="tf32",
        launch=1e-3,
        iteration=1e-2,
    )


LOOP = """HloModule jit_f, is_scheduled=true

%block (p0: f32[100,8], p1: s32[]) -> f32[10,8] {
  %p0 = f32[100,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[10,8]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={10,8}
  ROOT %exp = f32[10,8]{1,0} exponential(%slice)
}

%put (p0: f32[100,4], p1: f32[10,4], p2: s32[]) -> f32[100,4] {
  %p0 = f32[100,4]{1,0} parameter(0)
  %p1 = f32[10,4]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %update = f32[100,4]{1,0} dynamic-update-slice(%p0, %p1, %p2, %zero)
}

%body (state: SHAPES) -> SHAPES {
  %state = STATE parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %rows = f32[100,8]{1,0} get-tuple-element(%state), index=1
  %weights = f32[8,4]{1,0} get-tuple-element(%state), index=2
  %made = f32[100,4]{1,0} get-tuple-element(%state), index=3
  %blocked = f32[10,8]{1,0} fusion(%rows, %i), kind=kLoop, calls=%block
  %product = f32[10,4]{1,0} dot(%blocked, %weights), lhs_contracting_dims={1}, PRECISION
  %whole = f32[100,4]{1,0} fusion(%made, %product, %i), kind=kLoop, calls=%put
  ROOT %next = STATE tuple(%i, %rows, %weights, %whole)
}

%condition (state: SHAPES) -> pred[] {
  %state = STATE parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %ten = s32[] constant(10)
  ROOT %less = pred[] compare(%i, %ten), direction=LT
}

ENTRY %main (rows: f32[100,8], weights: f32[8,4]) -> f32[100,4] {
  %rows = f32[100,8]{1,0} parameter(0)
  %weights = f32[8,4]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %number = f32[] constant(0)
  %empty = f32[100,4]{1,0} broadcast(%number), dimensions={}
  %start = STATE tuple(%zero, %rows, %weights, %empty)
  %loop = STATE while(%start), condition=%condition, body=%body
  ROOT %found = f32[100,4]{1,0} get-tuple-element(%loop), index=3
}
"""
for short, whole in {
    "SHAPES": "(s32[], f32[100,8], f32[8,4], f32[100,4])",
    "STATE": "(s32[], f32[100,8]{1,0}, f32[8,4]{1,0}, /*index=3*/f32[100,4]{1,0})",
    "PRECISION": "rhs_contracting_dims={0}, operand_precision={highest,highest}",
}.items():
    LOOP = LOOP.replace(short, whole)


def test_a_loop_over_blocks_is_counted_as_by_hand(reader, device):
    found = reader.cost(LOOP, device)
    assert (found.kernels, found.iterations, found.endless) == (1 + 10 * 3, 10, 0)
    assert found.products == {"f32": 10 * 2 * 10 * 4 * 8}
    # Ten times: a block of rows in, itself out, each with the 4-byte number where it begins; its
    # product in and out with the weights; the result into its place. The empty result before.
    block, result, weights = 320, 160, 128
    assert found.bytes == 1600 + 4 + 10 * (
        (block + 4 + block) + (block + weights + result) + (result + 4 + result)
    )
    # The exponentials take 80 x 10 instructions, longer than 644 bytes; products 640, longer than
    # 608; the result is moved.
    assert found.seconds == pytest.approx((1604 + 10 * (800 + 640 + 324)) / 1e3)


def test_the_length_of_a_loop_is_told_known_or_assumed(reader, device):
    told = LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert reader.cost(told, device).iterations == 7
    open_ended = LOOP.replace("constant(10)", "get-tuple-element(%state), index=0")
    found = reader.cost(open_ended, device, 3)
    assert (found.iterations, found.endless) == (3, 1)


def product(operands, attributes, kind="f32", result="f32"):
    return (
        f"ENTRY %main (a: {kind}[6,5], b: {kind}[5,2]) -> {result}[6,2] {{\n"
        f"  %a = {kind}[6,5]{{1,0}} parameter(0)\n  %b = {kind}[5,2]{{1,0}} parameter(1)\n"
        f"  ROOT %c = {result}[6,2]{{1,0}} {operands}, {attributes}\n}}\n"
    )


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        (product("dot(%a, %b)", "lhs_contracting_dims={1}, rhs_contracting_dims={0}"), "tf32"),
        (
            product(
                "dot(%a, %b)",
                "lhs_contracting_dims={1}, rhs_contracting_dims={0}, algorithm=dot_tf32_tf32_f32",
            ),
            "tf32",
        ),
        (product("dot(%a, %b)", "lhs_contracting_dims={1}", "bf16"), "bf16"),
        (product("dot(%a, %b)", "lhs_contracting_dims={1}", "f64", "f64"), "f64"),
        (
            product(
                "convolution(%a, %b)", "dim_labels=bf_io->bf, operand_precision={highest,highest}"
            ),
            "f32",
        ),
        (
            product(
                "custom-call(%a, %b)",
                'custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":'
                '{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]},'
                '"precision_config":{"operand_precision":["HIGHEST","HIGHEST"]}}}',
            ),
            "f32",
        ),
    ],
)
def test_products_are_rated_at_the_precision_they_run_in(reader, device, text, precision):
    assert reader.cost(text, device).products == {precision: 2 * 6 * 2 * 5}


@pytest.mark.parametrize(
    ("target", "operands", "operations"),
    [
        ("cusolver_potrf_ffi", "%a", 2 * 6**3 // 3),
        ("cublas_trsm_ffi", "%a, %b", 2 * 6 * 6 * 3),
        ("InvertDiagBlocksUpperTriangular", "%a", 2 * 6**3),
        ("Sharding", "%a", 0),
    ],
)
def test_factorizations_of_a_library_are_counted(reader, device, target, operands, operations):
    text = (
        "ENTRY %main (a: f32[2,6,6], b: f32[2,6,3]) -> f32[2,6,6] {\n"
        "  %a = f32[2,6,6]{2,1,0} parameter(0)\n  %b = f32[2,6,3]{2,1,0} parameter(1)\n"
        f'  ROOT %c = f32[2,6,6]{{2,1,0}} custom-call({operands}), custom_call_target="{target}"\n'
        "}\n"
    )
    assert sum(reader.cost(text, device).products.values()) == operations


def test_what_stays_on_the_chip_costs_no_memory(reader, device):
    text = (
        "ENTRY %main (a: f32[8,128]) -> f32[8,128] {\n"
        "  %a = f32[8,128]{1,0:T(8,128)} parameter(0)\n"
        "  %near = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) "
        "copy-start(%a)\n"
        "  %done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%near)\n"
        "  ROOT %out = f32[8,128]{1,0:T(8,128)S(1)} add(%done, %done)\n}\n"
    )
    assert reader.cost(text, device).bytes == 4 * 8 * 128


def test_a_text_without_a_program_is_refused(reader, device):
    with pytest.raises(ValueError, match="ENTRY"):
        reader.cost("HloModule nothing\n", device)


def test_the_table_says_what_did_not_compile(monkeypatch, tmp_path):
    ahead = of_time(monkeypatch)
    rows = {
        "good": {
            "compiles": True,
            "seconds_to_compile": 2.0,
            "processor_seconds_to_compile": 1.0,
            **dict.fromkeys(("argument_bytes", "result_bytes", "temporary_bytes"), 10**9),
            "kernels": 100,
            "iterations": 20,
            "loops_of_unknown_length": 0,
            "moved_bytes": 10**9,
            "products": {"f32": 10**12},
            "roofline_seconds": 1e-3,
            "launch_seconds": 4e-4,
        },
        "bad": {"compiles": False, "sentence": "no: out of memory | 20 GB"},
        "new": {"compiles": None, "sentence": "not tried yet"},
    }
    ahead.written(tmp_path / "ahead_h100.json", rows, ahead.TARGETS["h100"])
    text = (tmp_path / "ahead_h100.md").read_text(encoding="utf-8")
    assert "1 of 3 programs" in text
    assert "; these do not: bad; not tried yet: new." in text
    assert "| `good` | 2.0 (1.0) | 3.00 | 100 | 20 | 1 | 1 f32 | 0.4 | 1 | 0.4 |\n" in text
    assert "| `bad` | no: out of memory / 20 GB |" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1


def test_a_compiler_that_is_not_there_is_named(monkeypatch, capsys):
    ahead = of_time(monkeypatch)
    target = ahead.TARGETS["h100"]._replace(plugins=("a_package.that_is_not", "nor_this"))
    monkeypatch.setitem(ahead.TARGETS, "h100", target)
    assert ahead.main(["--target", "h100"]) == 2
    assert "'.[ahead-cuda]'" in capsys.readouterr().err
