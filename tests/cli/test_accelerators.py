"""GPUs and TPUs that are in a machine: found, told of, asked for in vain, out of memory.

The machines are folders, the devices stand-ins.
"""

import logging
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.cli import info
from jaxlin.runs import accelerators
from jaxlin.runs.accelerators import Machine
from jaxlin.runs.devices import remarks

CUDA = {"jax-cuda12-pjrt": "0.10.2", "jax-cuda12-plugin": "0.10.2"}
BARE = Machine(gpu=False, tpu=False, driver=None, library=False, plugins={})
DRIVEN = BARE._replace(gpu=True, driver="550.54.15", library=True)
VERSION = "NVRM version: NVIDIA UNIX {}  550.54.15  {}\nGCC version:  gcc version 12.2.0\n"


class Device(NamedTuple):
    """What JAX tells of a device that is not here."""

    platform: str = "gpu"
    device_kind: str = "NVIDIA H100 80GB HBM3"
    compute_capability: str = "9.0"
    statistics: dict | None = None

    def memory_stats(self):
        return self.statistics

    def __str__(self):
        return f"{self.platform}:0"


@pytest.fixture
def root(tmp_path):
    """`root("dev/nvidia0", ...)`: a machine with these files, as `detect` sees it."""

    def machine(*names, library=True, **files):
        for name, text in {**dict.fromkeys(names, ""), **files}.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

        def load(name):
            assert name == "libcuda.so.1"
            if not library:
                raise OSError("cannot open shared object file")

        return accelerators.detect(tmp_path / "root", load)

    return machine


@pytest.mark.parametrize(
    ("names", "gpu", "tpu"),
    [
        ((), False, False),
        (("dev/nvidia0",), True, False),
        (("dev/nvidia1",), True, False),  # a container that was given the second one
        (("dev/nvidiactl",), True, False),
        (("proc/driver/nvidia/version",), True, False),
        (("dev/accel0", "dev/accel1"), False, True),
        (("dev/accel/accel0",), False, False),  # a laptop's chip for neural networks
        (("dev/nvidia-modeset", "dev/null"), False, False),
    ],
)
def test_what_is_in_a_machine_is_seen(root, names, gpu, tpu):
    found = root(*names)
    assert (found.gpu, found.tpu, found.library) == (gpu, tpu, True)


@pytest.mark.parametrize(
    ("vendor", "device", "tpu"),
    [
        ("0x1ae0", "0x0063", True),  # TPU v5e
        ("0x1ae0", "0x0042", False),  # the same maker's network card
        ("0x10de", "0x0063", False),
    ],
)
def test_a_tpu_is_seen_on_the_bus(root, vendor, device, tpu):
    at = "sys/bus/pci/devices/0000:00:04.0/"
    assert root(**{f"{at}vendor": vendor + "\n", f"{at}device": device + "\n"}).tpu is tpu


@pytest.mark.parametrize(
    "kind",
    [
        ("x86_64 Kernel Module", "Tue Mar  5 22:23:56 UTC 2024"),
        ("Open Kernel Module for x86_64", "Release Build  (dvs-builder@U16-I2-C05-15-1)"),
    ],
)
def test_the_driver_tells_its_version(root, kind):
    text = VERSION.format(*kind)
    assert root(**{"proc/driver/nvidia/version": text}).driver == "550.54.15"


def test_a_driver_that_tells_nothing_has_no_version(root):
    assert root(**{"proc/driver/nvidia/version": "?"}).driver is None
    assert root(library=False).library is False


@pytest.mark.parametrize("library", [True, False])
def test_linux_in_windows_has_an_nvidia_gpu_if_there_is_the_library(root, library):
    assert root("dev/dxg", library=library).gpu is library


@pytest.mark.parametrize(
    ("machine", "parts"),
    [
        (DRIVEN, ("an NVIDIA GPU is in this machine", "pip install 'jaxlin[cuda12]'")),
        (BARE._replace(gpu=True), ("an NVIDIA GPU is in this machine", "jaxlin[cuda12]")),
        (BARE._replace(tpu=True), ("a TPU is in this machine", "pip install 'jaxlin[tpu]'")),
        (
            BARE._replace(plugins=CUDA),
            ("jax-cuda12-plugin 0.10.2 is installed, but NVIDIA's driver (libcuda.so.1)",),
        ),
    ],
)
def test_an_accelerator_that_is_not_used_costs_one_line(machine, parts):
    said = accelerators.note(machine)
    assert all(part in said for part in (*parts, "JAX runs on the CPU", "JAX_PLATFORMS=cpu")), said
    assert "\n" not in said
    assert accelerators.note(machine, "cpu") is None  # who sets it has chosen


@pytest.mark.parametrize(
    "machine",
    [BARE, DRIVEN._replace(plugins=CUDA), BARE._replace(tpu=True, plugins={"libtpu": "0.0.42"})],
)
def test_nothing_is_said_where_nothing_is_amiss(machine):
    assert accelerators.note(machine) is None


@pytest.mark.parametrize(
    ("machine", "asked", "why"),
    [
        (DRIVEN, "cuda", "asks for a GPU, and JAX has no plugin for it: `pip install"),
        (DRIVEN, "gpu", "asks for a GPU, and JAX has no plugin for it: `pip install"),
        (BARE._replace(tpu=True), "tpu", "asks for a TPU, and JAX has no plugin for it"),
        (BARE._replace(gpu=True, plugins=CUDA), "cuda", "driver (libcuda.so.1) is not found for"),
        (BARE._replace(library=True, plugins=CUDA), "CUDA", "and none is in this machine"),
    ],
)
def test_a_platform_that_cannot_be_had_is_refused(machine, asked, why):
    with pytest.raises(ValueError, match=f"JAX_PLATFORMS={asked.lower()} asks for a") as caught:
        accelerators.note(machine, asked)
    assert why in str(caught.value)


def test_a_platform_that_can_be_had_or_done_without_is_not(root):
    for machine, asked in (
        (DRIVEN._replace(plugins=CUDA), "cuda"),
        (DRIVEN._replace(plugins=CUDA), "gpu"),
        (BARE._replace(plugins={"jax-rocm7-plugin": "0.10.2"}), "gpu"),
        (BARE, "cuda,cpu"),
        (BARE, "cpu"),
    ):
        assert accelerators.note(machine, asked) is None


def log(level, text, error=None):
    logging.getLogger("jax._src.xla_bridge").log(level, text, exc_info=error)


def test_what_jax_logs_of_its_plugins_is_a_sentence(capfd, monkeypatch):
    with accelerators.sentences():
        try:
            raise RuntimeError("Outdated CUDA installation found.\nInstalled version: 11080")
        except RuntimeError as error:
            text = (
                "Jax plugin configuration error: Exception when calling jax_plugins.x.initialize()"
            )
            log(logging.ERROR, text, error)
            log(logging.ERROR, text, error)
        log(logging.WARNING, "An NVIDIA GPU may be present on this machine, but a CUDA-enabled ...")
    assert capfd.readouterr().err.splitlines() == [
        "jaxlin: jax_plugins.x cannot be used, and JAX goes on without it: Outdated CUDA "
        "installation found. Installed version: 11080"
    ]
    with accelerators.sentences():  # `note` has said it
        log(logging.WARNING, "A Google TPU may be present on this machine, but ...")
    assert capfd.readouterr().err == ""
    # Nothing else says that a TPU for which all is installed could not be used.
    monkeypatch.setattr(accelerators, "plugins", lambda: {"libtpu": "0.0.42"})
    with accelerators.sentences():
        log(logging.WARNING, "A Google TPU may be present on this machine, but ...")
    assert capfd.readouterr().err == (
        "jaxlin: A Google TPU may be present on this machine, but ...\n"
    )
    log(logging.WARNING, "afterwards JAX speaks for itself")
    assert "jaxlin" not in capfd.readouterr().err


PLUGIN = """
def initialize():
    raise RuntimeError("Unable to load CUDA. Is it installed?")
"""


def test_a_plugin_without_a_driver_is_no_traceback(tmp_path):
    folder = tmp_path / "site/jax_plugins/xla_cuda12"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PLUGIN, encoding="utf-8")
    about = tmp_path / "site/jax_cuda12_plugin-0.10.2.dist-info"
    about.mkdir()
    told = "Metadata-Version: 2.1\nName: jax-cuda12-plugin\nVersion: 0.10.2\n"
    (about / "METADATA").write_text(told, encoding="utf-8")
    variables = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from jaxlin.cli import main; sys.exit(main())", "info"],
        cwd=tmp_path,
        env=variables | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    # Where the driver is, the plugin is tried, and what it raises is told.
    assert (
        "jax-cuda12-plugin 0.10.2 is installed" in done.stdout or "Is it installed?" in done.stderr
    )
    assert str(tmp_path / "cache/jaxlin/programs") in done.stdout


def asks_for_too_much_of_jax(options):
    jnp.zeros(1 << 50, jnp.uint8).block_until_ready()


def asks_for_too_much_of_numpy(options):
    np.zeros(1 << 57, np.uint8)


def asks_in_vain(options):
    exec(compile("assert None", "jax/_src/xla_bridge.py", "exec"))


def fails_to_start(options):
    raise RuntimeError("Unable to initialize backend 'cuda': no supported devices\nfound.")


@pytest.mark.parametrize(
    ("fails", "pattern"),
    [
        (asks_for_too_much_of_jax, r"out of memory: 1048576.00 GiB were asked for, and [\d.]+ GiB"),
        (asks_for_too_much_of_numpy, r"out of memory: 128 PiB were asked for, and [\d.]+ GiB are"),
        (asks_in_vain, "JAX found no device for JAX_PLATFORMS="),
        (
            fails_to_start,
            "cannot start: Unable to initialize backend 'cuda': no supported devices f",
        ),
    ],
)
def test_what_jax_raises_is_a_sentence(jaxlin, monkeypatch, fails, pattern):
    monkeypatch.setattr(info, "run", fails)
    assert re.search(pattern, jaxlin("info").refused())


def test_a_fault_of_the_program_is_none_of_these(jaxlin, monkeypatch):
    def faulty(options):
        raise AssertionError("a fault")

    monkeypatch.setattr(info, "run", faulty)
    with pytest.raises(AssertionError, match="a fault"):
        jaxlin("info")


def test_no_memory_without_numbers_still_says_what_is_free():
    assert "no more can be had; " in accelerators.refusal(MemoryError())
    text = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.33G of 15.48G hbm."
    assert "Used 20.33G of 15.48G hbm; " in accelerators.refusal(RuntimeError(text))
    assert accelerators.refusal(RuntimeError("RESOURCE_EXHAUSTED: No space left")) is None


def test_the_memory_of_a_gpu_is_told():
    held = {"bytes_limit": 60 << 30, "bytes_in_use": 1 << 30, "pool_bytes": 59 << 30}
    assert info.details(Device(statistics=held)) == {
        **{"device": "gpu:0", "kind": "NVIDIA H100 80GB HBM3"},
        **{"total": 60 << 30, "free": 59 << 30, "preallocated": 59 << 30},
    }
    told = info.details(Device(statistics=None))
    assert [told[name] for name in ("total", "free", "preallocated")] == [None] * 3


def test_info_tells_what_numbers_are_computed_with(jaxlin):
    told = jaxlin("info", "--json").json
    assert (told["float64"], told["unset_precision"], told["proof"]) == ("native", "float32", None)
    (memory, *_) = told["memory"]
    assert 0 < memory["free"] <= memory["total"]
    lines = jaxlin("info").out.splitlines()
    assert any(line.split(None, 1) == ["float64", "native"] for line in lines)


def test_remarks_are_on_what_was_asked_for():
    cpu, gpu, tpu = Device("cpu", "cpu", ""), Device(), Device("tpu", "TPU v5 lite", "")
    for device in (cpu, gpu):
        assert remarks(device, "highest", proves=True) == []
    assert remarks(tpu, "highest", proves=False) == []
    (said,) = remarks(tpu, "highest", proves=True)
    assert "bounds are proved on this machine's processors" in said
    assert len(remarks(cpu, "bf16", proves=False)) == 1
    assert remarks(gpu, "bf16", proves=False) == []


def test_train_remarks_on_a_precision_that_the_device_lacks(jaxlin):
    words = ("train", "--steps", "2", "--precision", "tf32", "--out")
    assert "cpu has no units for tf32: operands are rounded" in jaxlin(*words, "run").err
    assert jaxlin(*words, "quiet", "--quiet").err == ""


def test_extras_bring_jaxs_own():
    project = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for name in ("cuda12", "cuda13", "tpu"):
        assert extras[name] == [f"jax[{name}]>=0.10"]
