"""Accelerators to compile for: what they can do, and how their compilers are reached."""

from typing import NamedTuple

from compiled_text import Device

H100_DESCRIPTION = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 } runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class Target(NamedTuple):
    """A device to compile for, and how its compiler is reached."""

    device: Device
    platform: str
    """As `jaxlin.blocks` names it."""
    extra: str
    """Of the package, that brings the compiler."""
    plugins: tuple[str, ...]
    """Modules of which one is the compiler."""
    distributions: tuple[str, ...]
    """The names under which these are installed."""
    environment: dict[str, str]
    topology: dict[int, dict]
    """How one or eight devices are described to `jax.experimental.topologies`."""
    sources: str
    tasks: tuple = ()
    """(what, seconds that are wanted, ((program, times), ...)) of whole tasks."""


TASKS = (
    (
        "one certificate of a softmax fit (Newton's method on the bias as it went on 20,000 rows)",
        0.25,
        (
            ("passes.chunks.scores float64", 1),
            ("passes.chunks.total _loss_at", 2),  # once, of float64 scores
            ("passes.chunks.total _bias_newton", 4),
            ("passes.chunks.total _bias_curve", 9),
            ("passes.chunks.total _masses_of", 1),
            ("passes.chunks.transpose_total one side", 1),
        ),
    ),
    ("an epoch of 96 heads side by side, bf16", 1.8, (("steps.run_chunk bank bf16", 1),)),
    (
        "a plane of 51 x 51 points, 50,000 pictures",
        0.010,
        (("landscape._kernels.chunk_sums softmax_cross_entropy float32", 1),),
    ),
    (
        "a full gradient check, 30,730 entries, 50,000 pictures",
        0.025,
        (("gradients.structured._add_block softmax_cross_entropy", 50_000 / 43_520),),
    ),
)


def _cuda(devices):
    return {
        "platform": "cuda",
        "target_config": H100_DESCRIPTION,
        "topology": f"1x1x{devices}",
    }


TARGETS = {
    "h100": Target(
        Device(
            "NVIDIA H100 SXM, 80 GB",
            memory=80 * 10**9,
            bandwidth=3.35e12,
            products={"f64": 66.9e12, "f32": 66.9e12, "tf32": 494.7e12, "bf16": 989.4e12},
            elements={"f64": 16.7e12, "f32": 33.5e12},
            function={"f64": 40, "f32": 12},
            unset="tf32",
            launch=3e-6,
            iteration=5e-6,
        ),
        "gpu",
        "ahead-cuda",
        ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13"),
        ("jax-cuda12-plugin", "jax-cuda13-plugin"),
        {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "XLA_FLAGS": "--xla_gpu_autotune_level=0"},
        {devices: _cuda(devices) for devices in (1, 8)},
        "Peaks: NVIDIA H100 Tensor Core GPU datasheet (2023), dense. Kernels of products are those "
        "that XLA takes unless it can try them on the device.",
        TASKS,
    ),
    "tpu-v5e": Target(
        Device(
            "TPU v5e, 16 GB",
            memory=16 * 10**9,
            bandwidth=0.82e12,
            products={"f32": 197e12 / 6, "tf32": 197e12 / 3, "bf16": 197e12, "f64": 197e12 / 6},
            elements={"f32": 6.1e12, "f64": 6.1e12},
            function={"f32": 12, "f64": 12},
            unset="bf16",
            launch=0.0,
            iteration=0.0,
        ),
        "tpu",
        "ahead-tpu",
        ("libtpu",),
        ("libtpu",),
        {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_WORKER_ID": "0",
            "TPU_LOG_DIR": "disabled",
        },
        {
            1: {"platform": "tpu", "topology_name": "v5e:2x2"},
            8: {"platform": "tpu", "topology_name": "v5e:2x4"},
        },
        'Peaks: Google Cloud, "TPU v5e" (2024); a float32 product is six in bfloat16. Its vector '
        "unit: 8 x 128 lanes with four units at 1.5 GHz (Austin et al., How to Scale Your Model, "
        "2025). float64 is a pair of float32 there, so that what needs it is done by the host. A "
        "TPU runs a program as a whole, so that no launches are counted.",
    ),
}
