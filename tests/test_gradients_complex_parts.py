"""Complex parameters: JAX's convention, worked out on paper; torch's is recognized."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlin.gradients import check_gradient

Z = np.array([1 + 2j, -0.5 + 0.25j, 3 - 1j])
each_mode = pytest.mark.parametrize("mode", ["quick", "sampled", "full"])


def energy(z):
    """sum |z|^2 + Re(z_0 z_1): by a and b of z_0 it has slopes 2 a + a_1 and 2 b - b_1."""
    return jnp.sum(jnp.abs(z) ** 2) + jnp.real(z[0] * z[1])


# df/da - i df/db: of |z|^2 that is 2 a - 2 i b, of Re(z w) by z it is w.
RIGHT = 2 * np.conj(Z) + np.array([Z[1], Z[0], 0])


@each_mode
@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
def test_the_gradient_of_a_complex_point_is_the_one_that_jax_gives(mode, dtype):
    np.testing.assert_allclose(jax.grad(energy)(jnp.asarray(Z)), RIGHT, rtol=1e-12)
    z = jnp.asarray(Z.astype(dtype))
    for claim in (None, jax.grad(energy), RIGHT.astype(dtype), jax.grad(energy)(z)):
        report = check_gradient(energy, z, claim, mode=mode)
        assert report.verdict == "pass"
        assert any("JAX's convention" in note for note in report.notes)
        assert report.parameters == 6


@each_mode
def test_a_wrong_part_is_named_with_the_slope_by_that_part(mode):
    claim = RIGHT + np.array([0, 1j, 0])  # the slope by the imaginary part of z_1 is one too low
    report = check_gradient(energy, Z, claim, mode=mode)
    (entry,) = report.entries
    assert entry.name == ".imag[1]"
    assert entry.numeric == pytest.approx(2 * 0.25 - 2)  # 2 b_1 - b_0
    assert entry.analytic == pytest.approx(2 * 0.25 - 2 - 1)


def test_a_numpy_function_and_a_tree_of_mixed_leaves_are_checked():
    x = {"z": Z, "scale": np.array([2.0, 0.5])}
    f = lambda x: float(np.sum(np.abs(x["z"]) ** 2) * x["scale"][0])  # noqa: E731
    right = {"z": 4 * np.conj(Z), "scale": np.array([np.sum(np.abs(Z) ** 2), 0])}
    assert check_gradient(f, x, right).verdict == "pass"
    assert check_gradient(f, x, lambda x: right).verdict == "pass"
    right["scale"][1] = 1
    assert [e.name for e in check_gradient(f, x, right).entries] == ["['scale'][1]"]


def test_torch_s_convention_is_recognized_as_the_conjugate():
    report = check_gradient(energy, Z, np.conj(RIGHT), mode="full")
    assert report.verdict == "fail"
    assert {entry.path for entry in report.entries} == {".imag"}
    assert any("torch's convention" in note for note in report.notes)


def test_a_complex_custom_rule_is_judged():
    @jax.custom_vjp
    def f(z):
        return jnp.sum(jnp.abs(z) ** 2)

    f.defvjp(lambda z: (f(z), z), lambda z, g: (2 * g * z,))  # the conjugate is missing
    report = check_gradient(f, Z, mode="full")
    assert {entry.name for entry in report.entries} == {".imag[0]", ".imag[1]", ".imag[2]"}


def test_misfits_are_refused_by_their_leaf():
    with pytest.raises(ValueError, match=r"real of `gradient` must have shape \(3,\)"):
        check_gradient(energy, Z, RIGHT[:2])
    with pytest.raises(TypeError, match="must return a real number, got complex128"):
        check_gradient(lambda z: jnp.sum(z * jnp.conj(z)), Z)
