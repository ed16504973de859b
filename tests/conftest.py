"""The suite runs in float64 with strict broadcasting, on the CPU, one BLAS thread a worker.

`.pytest_cache/programs` keeps compiled programs; a second run of the suite takes half the time.

Most of the suite is compilation, of programs that then run for milliseconds. XLA compiles them in a
third of the time without its optimizations and with its older emitters of loops. Nothing asserted
here may depend on that: `JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= pytest` compiles as users do.
"""

import fcntl
import functools
import gc
import io
import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("SCIPY_ARRAY_API", "1")  # lets scikit-learn run its array checks too
# Workers and the commands that they start share the programs they compile, half of what they do.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache/programs")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Programs say of each operation which lines of Python it is from: a tenth of the time to make one.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# XLA ends a process that names a flag it does not know: only versions that are known to have it.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false" if version("jaxlib") < "0.11" else ""
)

import jax
import numpy as np
import pytest
from jax._src.interpreters import mlir
from PIL import Image

# JAX loads all dialects of MLIR for each program, half of what it takes to write one: once will do.
if hasattr(mlir, "make_ir_context"):
    mlir.make_ir_context = functools.cache(mlir.make_ir_context)

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")  # (N,) + (N, 1) is a bug

collect_ignore = ["eight_devices.py"]  # a program of its own, which tests/test_sharding.py runs


@pytest.fixture(autouse=True, scope="module")
def _no_pile_of_programs():
    """A worker keeps every program it compiles, 4 GB by the end: above 2.5 GB they go.

    What earlier modules left is no longer searched for garbage, half a second each time.
    """
    gc.freeze()
    yield
    memory = Path("/proc/self/statm")
    if (
        memory.exists()
        and int(memory.read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGESIZE") > 2.5e9
    ):
        jax.clear_caches()
        gc.unfreeze()
        gc.collect()


@pytest.fixture(scope="session")
def with_devices():
    """A function that gives the variables of a process that is to see so many devices."""

    def variables(count):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        return {**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}

    return variables


PRECISION = jax.config.jax_default_matmul_precision


@pytest.fixture(autouse=True)
def _precision_not_kept():
    """A command in this process, run by a test or a fixture, states one for all that follows."""
    if jax.config.jax_default_matmul_precision != PRECISION:
        jax.config.update("jax_default_matmul_precision", PRECISION)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A function (name, make) that returns what `make()` found, made once for all workers."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def found(name, make):
        path = folder / f"{name}.json"
        with open(folder / f"{name}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                path.write_text(json.dumps(make()), encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))

    return found


@pytest.fixture(scope="session")
def white_pixel():
    """In the place of `Figure.savefig`: a figure is made, but written as one white pixel."""
    white = io.BytesIO()
    Image.new("L", (1, 1), 255).save(white, format="PNG")

    def written(figure, target, **settings):
        if hasattr(target, "write"):
            target.write(white.getvalue())
        else:
            Path(target).write_bytes(white.getvalue())

    return written


@pytest.fixture
def disk_of(tmp_path):
    """A function that makes the folder `disk`, a file system of so many megabytes of its own."""
    folder = tmp_path / "disk"

    def mount(megabytes):
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        if subprocess.run(words, capture_output=True).returncode:
            pytest.skip("mounting a tmpfs needs more rights")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def as_if_large(monkeypatch):
    """Softmax on few rows takes the way of many: quasi-Newton steps."""
    monkeypatch.setattr("jaxlin.solvers.problem.NEWTON_SAVES", 0.0)


@pytest.fixture(scope="session")
def blobs():
    """A function that draws classes around centers: (inputs, labels)."""

    def draw(seed=0, size=60, features=4, classes=3, spread=1.0):
        generator = np.random.default_rng(seed)
        labels = np.arange(size) % classes
        centers = generator.normal(size=(classes, features)) * spread
        return centers[labels] + generator.normal(size=(size, features)), labels

    return draw
