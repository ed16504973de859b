"""What platforms compute with, on stand-ins for their devices; and of this one, that it is so."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.platforms import arithmetic_of, lacking, proof, with_float64


class Device(NamedTuple):
    """What JAX tells of a device that is not here."""

    platform: str
    device_kind: str
    compute_capability: str = ""


H100 = Device("gpu", "NVIDIA H100 80GB HBM3", "9.0")
T4 = Device("gpu", "Tesla T4", "7.5")
MI300 = Device("gpu", "AMD Instinct MI300X", "gfx942")
V5E = Device("tpu", "TPU v5 lite")
OTHER = Device("neuron", "trn1")


@pytest.mark.parametrize(
    ("device", "float64", "unset"),
    [  # TF32 came with compute capability 8.0 (NVIDIA, CUDA C Programming Guide, table of features)
        (H100, "native", "tf32"),
        (Device("cuda", "NVIDIA A100", "8.0"), "native", "tf32"),
        (Device("gpu", "NVIDIA B200", "10.0"), "native", "tf32"),
        (T4, "native", "float32"),
        (MI300, "native", "unknown"),
        (V5E, "emulated", "bf16"),
        (OTHER, "unknown", "unknown"),
    ],
)
def test_each_platform_has_its_arithmetic(device, float64, unset):
    found = arithmetic_of(device)
    assert (found.float64, found.unset) == (float64, unset)


def test_of_a_cpu_it_is_true():
    device = jax.devices("cpu")[0]
    assert arithmetic_of(device)[:2] == ("native", "float32")
    with jax.default_device(device):
        # 1 + 2^-20 has 21 bits, and 1 + 2^-50 has 51: of products with 1 every bit is there.
        fine = jnp.full((8, 8), 1 + 2.0**-20, jnp.float32)
        assert np.all(np.asarray(fine @ jnp.eye(8, dtype=jnp.float32)) == np.float32(1 + 2.0**-20))
        finer = jnp.full((8, 8), 1 + 2.0**-50, jnp.float64)
        assert np.all(np.asarray(finer @ jnp.eye(8)) == 1 + 2.0**-50)


@pytest.mark.parametrize(
    ("device", "lacks"),
    [(H100, []), (T4, ["tf32", "bf16"]), (V5E, ["tf32"]), (MI300, []), (OTHER, [])],
)
def test_only_a_precision_without_units_is_remarked_on(device, lacks):
    said = {name: lacking(device, name) for name in ("highest", "tf32", "bf16")}
    assert [name for name, sentence in said.items() if sentence] == lacks
    assert all(device.device_kind in said[name] and name in said[name] for name in lacks)


def test_a_proof_is_remarked_on_where_float64_is_emulated():
    assert "proved on this machine's processors" in proof(V5E)
    assert "are no proof" in proof(V5E, processes=2)
    assert [proof(device) for device in (H100, T4, MI300, jax.devices("cpu")[0])] == [None] * 4


def test_what_a_device_cannot_compute_in_float64_the_processors_do(monkeypatch):
    (processors, *_) = jax.local_devices(backend="cpu")
    assert with_float64(V5E) is processors
    assert with_float64(H100) is H100

    def without(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", without)
    with pytest.raises(ValueError, match=r"TPU v5 lite has no float64 .* JAX_PLATFORMS=tpu,cpu"):
        with_float64(V5E)
