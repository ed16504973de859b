"""What a program costs a device, read from the text that XLA compiled it to.

Counted are kernels and iterations of loops, the bytes that each kernel reads from the device's
memory and writes to it, and the operations of products and of element-wise work. A kernel's time
is that of its bytes, its products or its element-wise operations, whichever takes longest; kernels
follow one another. What a kernel reads of a slice, a gather or an update in place is the slice, and
what the compiler keeps on the chip costs no memory.
"""

import re
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
}
ARRAY = re.compile(r"\b([a-z]+\d+(?:e\dm\dfn|e\dm\d)?|pred)\[([\d,]*)\](\{[^}]*\})?")
SLICES = {"slice", "dynamic-slice", "gather"}
CHEAP = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all"}
CHEAP |= {"opt-barrier", "partition-id", "replica-id", "domain", "add-dependency"}
"""No kernel of its own."""
MOVES = CHEAP | SLICES | {"broadcast", "reshape", "dynamic-update-slice", "scatter", "transpose"}
MOVES |= {"copy", "concatenate", "pad", "reverse", "iota"}
"""No arithmetic of elements."""
FUNCTIONS = {"exponential": 1.0, "exponential-minus-one": 1.0, "log": 1.0, "log-plus-one": 1.0}
FUNCTIONS |= {"power": 1.0, "tanh": 1.0, "logistic": 1.0, "divide": 0.4, "sqrt": 0.5, "rsqrt": 0.5}
"""Costs of what is no single instruction, relative to `Device.function`."""


class Device(NamedTuple):
    """What a device can do at most."""

    name: str
    memory: int
    """Bytes."""
    bandwidth: float
    """Bytes a second."""
    products: dict[str, float]
    """Operations a second by the operands' precision, two for a multiplication and its addition."""
    elements: dict[str, float]
    """Element-wise instructions a second, "f64" and "f32"."""
    function: dict[str, float]
    """Instructions of an exponential or a logarithm, by dtype likewise."""
    unset: str
    """The precision of a float32 product that states none."""
    launch: float
    """Seconds that a kernel costs at least, whatever it does."""
    iteration: float
    """Seconds that an iteration of a loop, or a condition, costs beside its kernels."""


class Cost(NamedTuple):
    """Of a program or a part of it."""

    kernels: float = 0
    iterations: float = 0
    bytes: float = 0
    seconds: float = 0
    """The roofline, kernel by kernel."""
    endless: int = 0
    """Loops whose length the text does not tell."""
    products: Mapping[str, float] = MappingProxyType({})
    """Operations by precision."""

    def plus(self, other: "Cost", times: float = 1) -> "Cost":
        """This and `other`, so many times; a loop is one loop however often it is run."""
        products = Counter(self.products)
        products.update({kind: times * number for kind, number in other.products.items()})
        return Cost(
            self.kernels + times * other.kernels,
            self.iterations + times * other.iterations,
            self.bytes + times * other.bytes,
            self.seconds + times * other.seconds,
            self.endless + other.endless,
            products,
        )


class Instruction(NamedTuple):
    name: str
    type: str
    operation: str
    operands: tuple[str, ...]
    rest: str
    """Attributes, behind the operands."""
    argument: str
    """What stands between the parentheses."""
    root: bool


def cost(text: str, device: Device, length: int = 1) -> Cost:
    """What a program costs a device.

    Args:
      text: of `jax.stages.Compiled.as_text`.
      device: what it can do.
      length: of a loop for which the text does not tell it; of conditions the first branch counts.
    """
    computations, entry = _computations(text)
    return _sequence(entry, computations, device, length)


def _computations(text):
    """Name -> {name: instruction}, and the name of the one where the program begins."""
    found, entry, current = {}, None, None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*->.*\{\s*$", line)
        if head:
            current = found.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (instruction := _instruction(line)):
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text has no ENTRY computation. Pass what `Compiled.as_text` returns.")
    return found, entry


def _instruction(line):
    head = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        return None
    rest = line[head.end() :]
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    operation, _, _ = rest.partition("(")
    rest = rest[len(operation) :]
    end = _closing(rest)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[:end]))
    return Instruction(
        head[2], kind, operation, operands, rest[end:], rest[1 : end - 1], bool(head[1])
    )


def _closing(text):
    """Behind the parenthesis that closes the first."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i + 1
    return len(text)


def _called(rest, *names):
    """The computations that an instruction names."""
    found = []
    for name in names:
        for match in re.finditer(rf"\b{name}=(?:\{{([^}}]*)\}}|%?([\w.\-]+))", rest):
            found += [each.strip().lstrip("%") for each in (match[1] or match[2]).split(",")]
    return found


def _sequence(name, computations, device, length) -> Cost:
    """The instructions of a computation, one after another."""
    whole, here = Cost(), computations[name]
    for each in here.values():
        if each.operation == "while":
            times = _times(each, computations)
            (body,) = _called(each.rest, "body")
            inner = _sequence(body, computations, device, length)
            inner = inner._replace(iterations=inner.iterations + 1)
            whole = whole.plus(inner, length if times is None else times)
            whole = whole._replace(endless=whole.endless + (times is None))
        elif each.operation == "conditional":
            names = ("branch_computations", "true_computation", "false_computation")
            first = _called(each.rest, *names)[0]
            whole = whole.plus(_sequence(first, computations, device, length))
            whole = whole._replace(iterations=whole.iterations + 1)
        elif each.operation in ("call", "async-start"):
            for called in _called(each.rest, "to_apply", "calls"):
                whole = whole.plus(_sequence(called, computations, device, length))
        elif each.operation not in CHEAP and not each.operation.endswith(("-done", "-update")):
            whole = whole.plus(_kernel(each, here, computations, device))
    return whole


def _times(loop, computations):
    """How often: as the compiler says, or as a counter that begins at 0 is below a number."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(known[1])
    (name,) = _called(loop.rest, "condition")
    condition = computations[name]
    (root,) = (each for each in condition.values() if each.root)
    if root.operation != "compare" or "direction=LT" not in root.rest:
        return None
    bound = condition.get(root.operands[1])
    return int(bound.argument) if bound and bound.operation == "constant" else None


def _kernel(each, here, computations, device) -> Cost:
    """One kernel: what it moves, what it computes, and what takes longest of these."""
    products, elements = _arithmetic(each, here, computations, device)
    moved = _written(each, here, computations) + _read(each, here, computations)
    seconds = max(
        moved / device.bandwidth,
        sum(number / device.products[kind] for kind, number in products.items()),
        sum(number / device.elements[kind] for kind, number in elements.items()),
    )
    return Cost(1, 0, moved, seconds, 0, products)


def _arrays(kind):
    """(dtype, dimensions, whether it lies in the device's memory) of the arrays in a type."""
    for dtype, dimensions, layout in ARRAY.findall(kind):
        shape = tuple(int(number) for number in dimensions.split(",") if number)
        yield dtype, shape, not re.search(r"S\([1-9]", layout)


def _size(kind):
    """Bytes in the device's memory."""
    return sum(BYTES[dtype] * _product(shape) for dtype, shape, far in _arrays(kind) if far)


def _product(numbers):
    result = 1
    for number in numbers:
        result *= number
    return result


def _type(here, name):
    return here[name].type if name in here else ""


def _read(each, here, computations):
    """Bytes."""
    if each.operation in SLICES:
        return _size(each.type)
    if each.operation == "dynamic-update-slice":
        return _size(_type(here, each.operands[1]))
    if each.operation == "fusion":
        (called,) = _called(each.rest, "calls")
        return sum(
            min(_size(_type(here, name)), _read_inside(computations, called, number))
            for number, name in enumerate(each.operands)
        )
    return sum(_size(_type(here, name)) for name in dict.fromkeys(each.operands))


def _read_inside(computations, name, number):
    """Bytes that a fusion reads of its parameter with this number."""
    body = computations[name]
    (parameter,) = (
        p for p in body.values() if p.operation == "parameter" and p.argument == str(number)
    )
    read, pending = 0, [parameter.name]
    while pending:
        source = pending.pop()
        for user in body.values():
            if source not in user.operands:
                continue
            place = user.operands.index(source)
            if user.operation in ("bitcast", "reshape"):
                pending.append(user.name)
            elif user.operation in SLICES and place == 0:
                read += _size(user.type)
            elif user.operation == "dynamic-update-slice" and place == 0:
                pass
            elif user.operation == "fusion":
                (called,) = _called(user.rest, "calls")
                read += _read_inside(computations, called, place)
            else:
                read += _size(body[source].type)
    return read


def _written(each, here, computations):
    """Bytes: of an update in place the update."""
    if each.operation == "fusion":
        (called,) = _called(each.rest, "calls")
        body = computations[called]
        (root,) = (instruction for instruction in body.values() if instruction.root)
        return min(_size(each.type), _written_inside(root, body, computations))
    if each.operation == "dynamic-update-slice":
        return _size(_type(here, each.operands[1]))
    if each.operation == "copy-start":  # of a pair, where it goes and where it comes from
        return _size(each.type) - _size(_type(here, each.operands[0]))
    return _size(each.type)


def _written_inside(each, body, computations):
    if each.operation == "tuple":
        return sum(_written_inside(body[name], body, computations) for name in each.operands)
    if each.operation == "dynamic-update-slice":
        return _size(_type(body, each.operands[1])) or _size(each.type)
    if each.operation == "bitcast" and each.operands[0] in body:
        return _written_inside(body[each.operands[0]], body, computations)
    return _written(each, body, computations)


def _arithmetic(each, here, computations, device):
    """Operations of products by precision, and element-wise instructions by dtype."""
    products, elements = Counter(), Counter()
    if each.operation == "fusion":
        (called,) = _called(each.rest, "calls")
        for inner in computations[called].values():
            more = _arithmetic(inner, computations[called], computations, device)
            products, elements = products + more[0], elements + more[1]
    elif each.operation in ("dot", "convolution"):
        products[_precision(each, here, device)] += _multiplications(each, here)
    elif each.operation == "custom-call":
        products += _library_call(each, here, device)
    elif each.operation not in MOVES and (arrays := list(_arrays(each.type))):
        dtype, shape, _ = arrays[0]
        if each.operation in ("reduce", "reduce-window"):
            shape = max((s for _, s, _ in _arrays(_type(here, each.operands[0]))), default=shape)
        wide = "f64" if dtype == "f64" else "f32"
        weight = max(1.0, FUNCTIONS.get(each.operation, 0) * device.function[wide])
        elements[wide] += weight * _product(shape)
    return products, elements


def _precision(each, here, device):
    """What the operands of a product are rounded to."""
    dtypes = {dtype for name in each.operands[:2] for dtype, _, _ in _arrays(_type(here, name))}
    if "f64" in dtypes:
        return "f64"
    if "f32" not in dtypes and "s32" not in dtypes:
        return "bf16"
    text = each.rest.lower()
    if "tf32_tf32_f32" in text:
        return "tf32"
    stated = re.search(r'operand_precision"?[=:][{\[]"?(\w+)', text)
    return "f32" if stated and stated[1] in ("highest", "high") else device.unset


def _multiplications(each, here):
    """Operations of a `dot` or a `convolution`: two for each entry of the result and each term."""
    _, result, _ = next(_arrays(each.type))
    left, right = (next(_arrays(_type(here, name)))[1] for name in each.operands[:2])
    if each.operation == "dot":
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.rest)[1]
        terms = _product(left[int(axis)] for axis in axes.split(",") if axis)
        return 2 * _product(result) * terms
    kernel = re.search(r"dim_labels=\w+_(\w+)->", each.rest)[1]
    return 2 * _product(result) * _product(right) // max(right[kernel.index("o")], 1)


def _library_call(each, here, device):
    """Of a product, a factorization or a triangular solution of a library."""
    operands = [array for name in each.operands for array in _arrays(_type(here, name))]
    if not operands:
        return Counter()
    target = re.search(r'custom_call_target="([^"]+)"', each.rest)[1].lower()
    dtype, shape, _ = operands[0]
    kind = "f64" if dtype == "f64" else "f32"
    if "gemm" in target or "matmul" in target:
        axes = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', each.rest)[1]
        terms = _product(shape[int(axis)] for axis in re.findall(r"\d+", axes))
        result = next(_arrays(each.type))[1]
        return Counter({_precision(each, here, device): 2 * _product(result) * terms})
    if "potrf" in target or "cholesky" in target:
        return Counter({kind: _product(shape) * shape[-1] // 3})
    if "syev" in target:
        return Counter({kind: 9 * _product(shape) * shape[-1]})
    if "trsm" in target or "triangular" in target:
        right = operands[1 if len(operands) > 1 else 0]  # without one, of all columns
        return Counter({kind: _product(right[1]) * shape[-1]})
    return Counter()
