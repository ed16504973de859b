"""The suite runs in float64 with strict broadcasting, on the CPU, one BLAS thread a worker."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("SCIPY_ARRAY_API", "1")  # lets scikit-learn run its array checks too

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")  # (N,) + (N, 1) is a bug

collect_ignore = ["eight_devices.py"]  # a program of its own, which tests/test_sharding.py runs
