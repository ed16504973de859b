"""Many devices, and runs that survive.

    python experiments/guides/many_devices.py

The same program runs on one device or on many: rows are split over a mesh, and a step exchanges one
gradient. What a step does depends on the state, the key and the step number alone, so that a run
which was cut anywhere goes on as if nothing had happened, bit for bit.
"""

import os

# Two devices made of one processor, to try it without an accelerator; before JAX starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxlin import Batch, LinearParams, checkpoint, compose, data, losses, scores, train
from jaxlin.distributed import sharding

digits = data.load("digits")
batch = Batch(digits.inputs.astype(np.float32) / 16, digits.labels)
objective = compose(scores.linear, losses.softmax_cross_entropy)
descent = train.trainer(objective, train.optimizer("adam", 0.01))
start = LinearParams(jnp.zeros((10, 64), jnp.float32), jnp.zeros(10, jnp.float32))
settings = {"key": jax.random.key(0), "steps": 60, "batch_size": 128}

# 1. Many devices. `mesh` takes all there are; what comes back does not lie on it.
mesh = sharding.mesh()
one = train.run(descent, start, batch, **settings)
many = train.run(descent, start, sharding.place(batch, mesh), **settings)
apart = float(np.max(np.abs(one.params.weights - many.params.weights)))
print(f"devices     {mesh.shape['data']}; weights differ by at most {apart:.1e} from one device's")
assert apart < 1e-3  # the sums of float32 go another way; the run is the same

# 2. A run that is cut at its 30th step: it leaves by an exception, as a signal would make it.
with tempfile.TemporaryDirectory() as folder:
    run, what = Path(folder), {"data": digits.fingerprint}
    keeper = checkpoint.keeper(run, identity=what, every=10, warn=print)

    def keep(progress):
        step = int(progress.state.step)
        if keeper.due(step):
            state, record = train.pack(progress)
            keeper.save(step, state, record)
        if step >= 30:
            raise KeyboardInterrupt

    try:
        train.run(descent, start, batch, on_progress=keep, next_due=keeper.next_due, **settings)
    except KeyboardInterrupt:
        print("cut         after checkpoints of the steps", checkpoint.steps(run))

    # 3. It goes on from the newest checkpoint that is whole, byte by byte.
    found = checkpoint.find(run)
    like, _ = train.pack(train.beginning(descent, start, len(batch.labels), 128))
    progress = train.unpack(checkpoint.load(found, like), found.record)
    print("goes on     from step", int(progress.state.step))
    resumed = train.run(descent, start, batch, start=progress, **settings)

assert 0 < int(progress.state.step) < 60
assert np.array_equal(resumed.params.weights, one.params.weights)  # the same bits
assert [r.loss for r in resumed.history] == [r.loss for r in one.history]
print("the same bits as the run that nobody cut")

# From the command line:
#     jaxlin train --save-every 500 --resume auto --out runs/a
#     jaxlin train --coordinator HOST:PORT --num-processes P --process-id I --out runs/a
