"""What a platform's arithmetic is, as one table: float64, and products of unstated precision.

A float32 product whose precision nobody states is what its maker chose. On an NVIDIA GPU with
TensorFloat-32 units (compute capability 8.0 on: A100, H100, RTX 30 and later) operands are rounded
to 11 bits, on a TPU to the 8 bits of bfloat16 (JAX, `jax.lax.Precision`). And a TPU has no unit for
float64: XLA computes it in pairs of float32, with errors of more than a hundred units in the last
place of a product, and with the range of float32.
"""

__all__ = ["Arithmetic", "arithmetic_of", "lacking", "proof", "with_float64"]

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import jax


class Arithmetic(NamedTuple):
    """What a device computes with."""

    float64: str
    """"native", "emulated", or "unknown"."""
    unset: str
    """What a float32 product of unstated precision rounds its operands to: "float32" (to
    nothing less), "tf32", "bf16", or "unknown"."""
    units: tuple[str, ...] | None
    """Of `jaxlin.precision.PRECISIONS` those it has units for; `None` where that is unknown."""


_TABLE = {
    "cpu": Arithmetic("native", "float32", ("highest",)),
    "nvidia": Arithmetic("native", "tf32", ("highest", "tf32", "bf16")),
    "nvidia before 8.0": Arithmetic("native", "float32", ("highest",)),
    "amd": Arithmetic("native", "unknown", None),
    "tpu": Arithmetic("emulated", "bf16", ("bf16",)),
}
_UNKNOWN = Arithmetic("unknown", "unknown", None)


def arithmetic_of(device: "jax.Device") -> Arithmetic:
    """What a device computes with.

    Args:
      device: of `jax.devices()`, or whatever has its `platform` and, if it is a GPU, its
        `compute_capability`.

    >>> import jax
    >>> arithmetic_of(jax.devices("cpu")[0]).float64
    'native'
    """
    return _TABLE.get(_row(device), _UNKNOWN)


def _row(device: "jax.Device") -> str:
    if device.platform not in ("gpu", "cuda", "rocm"):
        return device.platform
    try:
        capability = float(getattr(device, "compute_capability", ""))
    except ValueError:  # AMD's are names, as "gfx942"
        return "amd"
    return "nvidia" if capability >= 8 else "nvidia before 8.0"


def lacking(device: "jax.Device", precision: str) -> str | None:
    """The sentence for a precision that a device has no units for; `None` if it has them.

    Args:
      device: as for `arithmetic_of`.
      precision: one of `jaxlin.precision.PRECISIONS`.

    >>> import jax
    >>> print(lacking(jax.devices("cpu")[0], "bf16"))
    cpu has no units for bf16: operands are rounded as asked, and products are no faster for it.
    """
    units = arithmetic_of(device).units
    # "highest" is full float32 everywhere, on a TPU as the sum of six products in bfloat16.
    if units is None or precision == "highest" or precision in units:
        return None
    return (
        f"{device.device_kind} has no units for {precision}: operands are rounded as asked, and "
        "products are no faster for it."
    )


def with_float64(device: "jax.Device") -> "jax.Device":
    """The device, or where it computes float64 in pairs of float32 this machine's processors.

    Raises:
      ValueError: JAX was started without the processors.

    >>> import jax
    >>> with_float64(jax.devices()[0]).platform
    'cpu'
    """
    import jax

    if arithmetic_of(device).float64 != "emulated":
        return device
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        raise ValueError(
            f"{device.device_kind} has no float64 of its own, in which bounds are proved, and "
            f"`JAX_PLATFORMS` leaves out the processors, which have it. Add cpu to it, as in "
            f"JAX_PLATFORMS={device.platform},cpu."
        ) from None


def proof(device: "jax.Device", processes: int = 1) -> str | None:
    """What becomes of proofs where float64 is not native; `None` where it is, or is unknown.

    What is taken off a bound for rounding is that of IEEE arithmetic. So sums in float64 are taken
    on this machine's processors, from the rows as they are. Rows that are spread over processes
    stay where they are, and so do their sums.

    Args:
      device: as for `arithmetic_of`.
      processes: that share the rows.
    """
    if arithmetic_of(device).float64 != "emulated":
        return None
    if processes == 1:
        return (
            f"{device.device_kind} has no float64 of its own: bounds are proved on this machine's "
            "processors, and take their time."
        )
    return (
        f"{device.device_kind} has no float64 of its own, and rows are spread over {processes} "
        "processes: bounds are evaluated in pairs of float32, whose rounding is not taken off, "
        "and are no proof. Fit in one process for one."
    )
