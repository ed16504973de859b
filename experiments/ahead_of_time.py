"""Does every program of jaxlin compile for an accelerator that is not there, and what bounds it?

Compiles all of `jaxlin.programs`, at the size of ImageNet, with the device's own compiler, each in
a process of its own with a time limit, and reads from what comes out how much memory it takes, how
many kernels it launches and how much there is to do. No device is needed, and none is used: no time
in the table was measured but the compiler's. The compilers exclude each other, so that each wants
an environment of its own:

    pip install -e '.[ahead-cuda]' && python experiments/ahead_of_time.py --target h100
    pip install -e '.[ahead-tpu]'  && python experiments/ahead_of_time.py --target tpu-v5e
"""

import argparse
import importlib.util
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

from ahead_targets import TARGETS, Target
from compiled_text import cost

TABLES = Path(__file__).parent / "tables"


def missing(target: Target) -> str | None:
    """The sentence for a compiler that is not installed; `None` if it is."""
    for plugin in target.plugins:
        try:
            if importlib.util.find_spec(plugin):
                return None
        except ModuleNotFoundError:  # the package around it
            continue
    return (
        f"the compiler for the {target.device.name} is not installed here ({target.plugins[0]}). "
        f"In an environment of its own: pip install -e '.[{target.extra}]'."
    )


def compiler(target: Target) -> str:
    """Its name and version, and JAX's."""
    for name in target.distributions:
        try:
            return f"{name} {metadata.version(name)} and JAX {metadata.version('jax')}"
        except metadata.PackageNotFoundError:
            continue
    return f"JAX {metadata.version('jax')}"


ELSEWHERE = {"compiles": "elsewhere", "sentence": "by the host's processors, which have float64"}
"""Of a program that the device is not asked to run."""


def registry(target: Target) -> dict:
    """Every program by its name, on a mesh of the target's devices where it needs several."""
    import jax
    from jax.experimental import topologies

    from jaxlin.blocks import blocks_for
    from jaxlin.programs import EIGHT, programs

    devices = topologies.get_topology_desc(**target.topology[EIGHT]).devices
    over = jax.make_mesh((EIGHT,), ("data",), (jax.sharding.AxisType.Auto,), devices=devices)
    blocks = blocks_for(target.platform, target.device.memory)
    return {program.name: program for program in programs(over, blocks)}


def compile_one(program, target: Target, text: Path | None = None) -> dict:
    """What became of one program, compiled in this process."""
    import jax
    from jax.experimental import topologies

    arguments = program.arguments
    if program.devices == 1:  # those of several say where they are
        topology = topologies.get_topology_desc(**target.topology[1])
        there = jax.sharding.SingleDeviceSharding(topology.devices[0])
        arguments = jax.tree.map(
            lambda a: a.update(sharding=there) if isinstance(a, jax.ShapeDtypeStruct) else a,
            arguments,
        )
    function, settings = program.function, {}
    while isinstance(function, partial):  # down to what is compiled, with its donated arguments
        arguments, settings = (*function.args, *arguments), function.keywords | settings
        function = function.func
    function = function if hasattr(function, "lower") else jax.jit(function)
    start, busy = time.perf_counter(), time.process_time()
    try:
        with jax.enable_x64(program.wide):
            compiled = function.lower(*arguments, **settings).compile()
    except jax.errors.JaxRuntimeError as error:
        return {"compiles": False, "sentence": f"no: {sentence(str(error))}"}
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    if text:
        text.write_text(compiled.as_text(), encoding="utf-8")
    memory = compiled.memory_analysis()
    epoch = program.name.startswith("steps.")  # a loop over as many steps as it is told
    work = cost(compiled.as_text(), target.device, program.steps if epoch else 1)
    return {
        "compiles": True,
        "seconds_to_compile": round(seconds, 1),
        "processor_seconds_to_compile": round(busy, 1),
        "argument_bytes": memory.argument_size_in_bytes,
        "result_bytes": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "kernels": work.kernels,
        "iterations": work.iterations,
        "loops_of_unknown_length": work.endless - epoch,
        "moved_bytes": work.bytes,
        "products": dict(work.products),
        "roofline_seconds": work.seconds,
        "launch_seconds": work.kernels * target.device.launch
        + work.iterations * target.device.iteration,
    }


def has_float64(target: Target) -> bool:
    """Whether it computes in float64; what asks for it is else done by the host's processors."""
    from jaxlin.platforms import arithmetic_of

    return arithmetic_of(SimpleNamespace(platform=target.platform)).float64 != "emulated"


def sentence(error: str) -> str:
    """The first lines of a compiler's complaint, as one."""
    return re.sub(r"\s+", " ", error).strip()[:300]


def compile_apart(name: str, options) -> dict:
    """What became of one program, compiled in a process of its own within the time limit."""
    command = [sys.executable, __file__, "--target", options.target, "--program", name]
    command += ["--limit", str(options.limit)]
    if options.texts:
        command += ["--texts", str(options.texts)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"compiles": False, "sentence": f"no: not within {options.limit} processor s"}
    try:
        return json.loads(ended.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = ended.stderr.strip().splitlines()[-1:] or ["no word"]
        return {
            "compiles": False,
            "sentence": f"no: the compiler ended with code {ended.returncode}: {sentence(last[0])}",
        }


def markdown(found: dict, target: Target) -> str:
    """The table, with what is counted and what is assumed at its head."""
    device, rows = target.device, found["programs"]
    good, fail, untried = (
        [name for name, row in rows.items() if row["compiles"] is state]
        for state in (True, False, None)
    )
    rest = [name for name, row in rows.items() if row == ELSEWHERE]
    launches = device.launch > 0
    text = (
        f"# {device.name}: compiled ahead of time, not run\n\n"
        f"{len(good)} of {len(good + fail + untried)} programs of `jaxlin.programs` compile with "
        f"{found['compiler']}, each in a process of its own"
        f"{'; these do not: ' + ', '.join(fail) if fail else ''}"
        f"{'; not tried yet: ' + ', '.join(untried) if untried else ''}"
        f"{'; in float64 run on the host: ' + ', '.join(rest) if rest else ''}. "
        "Only seconds to compile are measured "
        f"(on {found['cores']} cores that were shared with other work; in brackets those of the "
        "processor). 1,281,167 x 768 features in float16 and 1,000 classes, or for slices and "
        "gradient checks 50,000 pictures of 3,072 pixels and 10 classes.\n\n"
        "**Counted**, from the compiled text: kernels, with loops as long as the text says; bytes "
        "that a kernel reads from memory and writes to it; operations of products; element-wise "
        "instructions. The roofline of a kernel is the longest of bytes / bandwidth, products / "
        "their peak at the precision they run in, and instructions / their peak; a program's is "
        "the sum over its kernels. Memory is arguments, results and temporaries.\n\n"
        "**Assumed**: of conditions the first branch (a plane's scores are within range); "
        "loops of unknown length (iterative fits, marked *) go round once, but those over "
        "the steps of an epoch as often as it has steps; an exponential, logarithm or power is "
        f"{device.function['f32']:g} instructions in float32 and {device.function['f64']:g} in "
        f"float64, a division 0.4 and a root 0.5 of that. "
        + (
            f"A launch takes {1e6 * device.launch:g} us and an iteration "
            f"{1e6 * device.iteration:g} us more; they are hidden by work where their share of "
            "the roofline is below 1. "
            if launches
            else ""
        )
        + "Peaks, a second: "
        + ", ".join(f"{rate / 1e12:.3g} T {kind}" for kind, rate in device.products.items())
        + f" in products; {device.elements['f32'] / 1e12:.3g} T float32 and "
        f"{device.elements['f64'] / 1e12:.3g} T float64 instructions; "
        f"{device.bandwidth / 1e12:.3g} TB. {target.sources}\n\n"
        "| program | compiles in s | GB of "
        f"{device.memory / 1e9:.0f} | kernels | iterations | moved GB | TFLOP "
        + (
            "| launches ms | roofline ms | launches / roofline |\n"
            if launches
            else "| roofline ms |\n"
        )
        + "|---" * (10 if launches else 8)
        + "|\n"
    )
    text += "".join(_line(name, row, launches) for name, row in rows.items())
    return text + "".join(_tasks(rows, target.tasks))


def _tasks(rows, tasks):
    """What whole tasks take of these programs, by the longer of launches and roofline."""
    lines = []
    for what, wanted, parts in tasks:
        found = [rows.get(name, {"compiles": False}) for name, _ in parts]
        if all(row["compiles"] is True for row in found):
            seconds = sum(
                times * max(row["launch_seconds"], row["roofline_seconds"])
                for row, (_, times) in zip(found, parts, strict=True)
            )
            lines.append(f"| {what} | {number(1e3 * seconds)} | {number(1e3 * wanted)} |\n")
    if lines:
        yield "\nWhole tasks, each program as long as its launches or its roofline:\n\n"
        yield "| task | ms | wanted ms |\n|---|---|---|\n"
    yield from lines


def _line(name, row, launches):
    if row["compiles"] is not True:  # `None` where it was not tried
        return (
            f"| `{name}` | {row['sentence'].replace('|', '/')}"
            + " |" * (9 if launches else 7)
            + "\n"
        )
    took = f"{row['seconds_to_compile']:.1f} ({row['processor_seconds_to_compile']:.1f})"
    memory = sum(row[f"{kind}_bytes"] for kind in ("argument", "result", "temporary")) / 1e9
    products = ", ".join(f"{n / 1e12:.3g} {kind}" for kind, n in row["products"].items())
    mark = " *" if row["loops_of_unknown_length"] else ""
    line = (
        f"| `{name}`{mark} | {took} | {memory:.2f} | {row['kernels']:,.0f} "
        f"| {row['iterations']:,.0f} | {number(row['moved_bytes'] / 1e9)} | {products} "
    )
    roofline = f"| {number(1e3 * row['roofline_seconds'])} "
    if not launches:
        return line + roofline + "|\n"
    share = row["launch_seconds"] / row["roofline_seconds"]
    return line + f"| {number(1e3 * row['launch_seconds'])} {roofline}| {number(share)} |\n"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def written(path: Path, rows: dict, target: Target) -> dict:
    """The table of these rows, as JSON at `path` and as Markdown beside it."""
    found = {
        "device": target.device.name,
        "compiler": compiler(target),
        "cores": os.cpu_count(),
        "programs": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(found, target), encoding="utf-8")
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True, choices=TARGETS)
    parser.add_argument("--only", default="", help="of a program's name; other rows stay")
    parser.add_argument("--limit", type=int, default=300, help="processor seconds for each")
    parser.add_argument("--texts", type=Path, help="a folder for what the compiler wrote")
    parser.add_argument("--out", type=Path, default=TABLES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--program", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    target = TARGETS[options.target]
    if lack := missing(target):
        print(lack, file=sys.stderr)
        return 2
    os.environ.update(target.environment, JAX_PLATFORMS="cpu")
    if options.texts:
        options.texts.mkdir(parents=True, exist_ok=True)
    if options.program:
        # of the processor's, so that other work on the machine makes no difference
        resource.setrlimit(resource.RLIMIT_CPU, (options.limit, options.limit + 5))
        known = registry(target)
        name = re.sub(r"\W+", "_", f"{options.target} {options.program}")
        text = options.texts and options.texts / f"{name}.txt"
        print(json.dumps(compile_one(known[options.program], target, text)))
        return 0
    from jaxlin.programs import programs

    # without devices: a TPU's compiler is one process's at a time
    known = {program.name: program.wide and not has_float64(target) for program in programs()}
    chosen = [name for name in known if options.only in name]
    if not chosen:
        print(f"no program's name has {options.only!r} in it: {', '.join(known)}.", file=sys.stderr)
        return 2
    name = f"ahead_{options.target.removeprefix('tpu-')}"
    path = options.out / f"{name}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["programs"] if path.is_file() else {}
    for each in chosen:
        rows[each] = ELSEWHERE if known[each] else compile_apart(each, options)
        if not options.json:
            print(_line(each, rows[each], target.device.launch > 0), end="", flush=True)
        untried = {"compiles": None, "sentence": "not tried yet"}
        found = written(path, {name: rows.get(name, untried) for name in known}, target)
    if options.json:
        print(json.dumps(found))
    return int(any(row["compiles"] is False for row in found["programs"].values()))


if __name__ == "__main__":
    sys.exit(main())
