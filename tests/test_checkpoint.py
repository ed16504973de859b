"""Checkpoints against real faults: flipped bytes, kill -9 inside a save, a full disk."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlin import checkpoint
from jaxlin.core import DataError, LinearParams

ROOT = Path(__file__).parents[1]
CHILD = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


class Bank(NamedTuple):
    """What a sweep carries: a bank of heads, their optimizer, and where each one stands."""

    params: LinearParams
    optimizer_state: optax.OptState
    best: LinearParams
    stopped: jax.Array
    path_position: np.ndarray
    nothing: None = None


def a_bank(seed):
    draw = np.random.default_rng(seed).normal
    params = LinearParams(jnp.asarray(draw(size=(6, 3, 5)), jnp.float32), jnp.ones((6, 3)))
    return {
        "bank": Bank(
            params,
            optax.adamw(0.1).init(params),
            jax.tree.map(lambda leaf: leaf * 2, params),
            jnp.array([True, False] * 3),
            np.arange(seed),
        ),
        "key": jax.random.key(seed, impl="rbg"),
        "half": jnp.asarray(draw(size=4), jnp.bfloat16),
        "count": 7 + seed,
    }


def kinds(tree):
    return [(type(leaf).__name__, np.shape(leaf)) for leaf in jax.tree.leaves(tree)]


def bits(leaf):
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", np.int64), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).dtype, np.asarray(leaf).tobytes()


@pytest.fixture
def two(tmp_path):
    """A run with checkpoints 10 and 20."""
    for step in (10, 20):
        checkpoint.save(tmp_path, step, {"weights": np.full(100, step)}, {"step": step})
    return tmp_path


def test_any_state_comes_back_bit_for_bit_and_as_the_same_kind(tmp_path):
    state, like = a_bank(3), a_bank(3)
    like["bank"] = jax.tree.map(
        lambda leaf: leaf & False if leaf.dtype == bool else leaf * 0, like["bank"]
    )
    record = {"history": [[1, 0.1, None]], "far": float("inf"), "third": 1 / 3}
    checkpoint.save(tmp_path, 5, state, record)
    found = checkpoint.find(tmp_path)
    back = checkpoint.load(found, like)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert [bits(leaf) for leaf in jax.tree.leaves(back)] == [
        bits(leaf) for leaf in jax.tree.leaves(state)
    ]
    assert found.record == record
    assert isinstance(back["bank"].params.weights, jax.Array)
    assert isinstance(back["bank"].path_position, np.ndarray)
    draw = jax.random.normal
    np.testing.assert_array_equal(draw(back["key"], 3), draw(state["key"], 3))


def test_arrays_that_do_not_fit_are_named(two):
    found = checkpoint.find(two)
    with pytest.raises(DataError, match=r"`weights` is int64 of shape \(100,\) there.*\(99,\)"):
        checkpoint.load(found, {"weights": np.zeros(99, int)})
    with pytest.raises(DataError, match="float32"):
        checkpoint.load(found, {"weights": np.zeros(100, np.float32)})
    with pytest.raises(DataError, match="`bias` is absent there"):
        checkpoint.load(found, {"weights": np.zeros(100, int), "bias": np.zeros(3)})


@pytest.mark.parametrize("fault", ["flipped", "truncated", "missing", "longer"])
def test_every_broken_file_is_seen_and_named_and_the_checkpoint_before_is_used(two, fault):
    folder = two / "checkpoints/20"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"manifest.json", "record.json"} < {path.name for path in files}
    assert len(files) > 8
    for path in files:
        whole, sentences = path.read_bytes(), []
        if fault == "missing":
            path.unlink()
        else:
            middle = len(whole) // 2
            flipped = whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :]
            broken = {"flipped": flipped, "truncated": whole[:-1], "longer": whole + b"\n"}
            path.write_bytes(broken[fault])
        found = checkpoint.find(two, warn=sentences.append)
        assert found.step == 10, path
        assert len(sentences) == 1
        assert str(folder) in sentences[0]
        assert path.name in sentences[0]
        assert {"flipped": "bit rot", "truncated": "truncated", "missing": "missing"}.get(
            fault, "too long"
        ) in sentences[0] or path.name == "manifest.json"
        path.write_bytes(whole)
    assert checkpoint.find(two).step == 20
    (folder / "state/stranger").write_bytes(b"")
    assert "`state/stranger` does not belong there" in checkpoint.problems(folder)


def test_a_file_in_place_of_a_checkpoint_is_named_and_gives_way(two):
    """Also one that has the name of a save under way, or of one being deleted."""
    home, sentences = two / "checkpoints", []
    for name in ("30", "40.part", "30.old.part"):
        (home / name).write_text("no checkpoint", encoding="utf-8")
    found = checkpoint.resume(two, {}, warn=sentences.append)
    assert found.step == 20
    (sentence,) = sentences
    assert sentence.startswith(f"{home / '30'}: it is a file, and no folder")
    assert "the checkpoint before it is used" in sentence
    (home / "30.old.part").write_text("another", encoding="utf-8")
    checkpoint.save(two, 30, {"weights": np.full(100, 30)}, {})
    assert checkpoint.find(two, warn=sentences.append).step == 30
    (home / "50").write_text("no checkpoint", encoding="utf-8")
    checkpoint.clear(two)
    assert list(home.iterdir()) == []


def test_every_single_byte_of_a_manifest_counts(two):
    path = two / "checkpoints/20/manifest.json"
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        for bit in (1, 32):
            broken = whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :]
            path.write_bytes(broken)
            assert checkpoint.problems(path.parent), (position, bit)


def test_only_the_last_few_stay_and_futures_that_were_given_up_go(tmp_path):
    for step in (10, 20, 30, 40):
        checkpoint.save(tmp_path, step, {"a": np.ones(3)}, {})
    assert checkpoint.steps(tmp_path) == [20, 30, 40]
    (tmp_path / "checkpoints/40/record.json").write_text("[]", encoding="utf-8")
    (tmp_path / "checkpoints/30/record.json").unlink()
    assert checkpoint.find(tmp_path).step == 20
    checkpoint.save(tmp_path, 25, {"a": np.ones(3)}, {}, keep=1)
    assert checkpoint.steps(tmp_path) == [25]


KILLED_INSIDE = """
import os, signal, sys
from pathlib import Path
import numpy as np
from jaxlin import checkpoint
from jaxlin.checkpoint import store

run, place = Path(sys.argv[1]), sys.argv[2]
checkpoint.save(run, 1, {"a": np.ones(3)}, {})
def die(*args, **settings):
    os.kill(os.getpid(), signal.SIGKILL)
if place == "replace":
    store.os.replace = die
else:
    setattr(store, place, die)
checkpoint.save(run, 2, {"a": np.ones(3)}, {}, keep=1)
"""


@pytest.mark.parametrize("place", ["write_manifest", "replace", "_remove"])
def test_a_kill_inside_a_save_leaves_the_checkpoint_before(tmp_path, place):
    words = [sys.executable, "-c", KILLED_INSIDE, str(tmp_path), place]
    assert subprocess.run(words, env=CHILD, timeout=120).returncode == -signal.SIGKILL
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"1", "2.part"}
    found = checkpoint.resume(tmp_path, {}, warn=pytest.fail)
    assert found.step == 1
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1"}


@pytest.fixture
def small_disk(disk_of):
    """A file system of 2 MB of its own."""
    return disk_of(2)


def test_a_full_disk_costs_a_sentence_and_no_checkpoint(small_disk, capfd):
    sentences = []
    keeper = checkpoint.keeper(small_disk, identity={}, every=10, warn=sentences.append)
    noise = np.frombuffer(np.random.default_rng(0).bytes(2_400_000), np.uint8)  # incompressible
    small, large = {"a": noise[:400_000]}, {"a": noise}
    assert keeper.save(10, small, {})
    assert not keeper.save(20, large, {})
    assert keeper.failures() == 1
    assert len(sentences) == 1
    told = "step 20 could not be saved (No space left on device): the one of step 10 stays"
    assert told in sentences[0]
    assert keeper.save(30, small, {})
    assert checkpoint.steps(small_disk) == [10, 30]
    assert [path.name for path in (small_disk / "checkpoints").glob("*.part")] == []
    np.testing.assert_array_equal(
        checkpoint.load(checkpoint.find(small_disk), small)["a"], small["a"]
    )
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""  # Orbax prints hundreds of lines if it may


FILLING = """
import sys, time
from pathlib import Path
import numpy as np
from jaxlin import checkpoint
keeper = checkpoint.keeper(Path(sys.argv[1]), identity={}, warn=print)
noise = np.random.default_rng(0)
state = {str(i): np.frombuffer(noise.bytes(70_000), np.uint8) for i in range(40)}
for step in range(40):  # one save in ten leaves a failed write that asyncio would tell
    keeper.save(step, state, {})
time.sleep(0.5)  # what Orbax began ends in threads of its own
"""


def test_writes_that_end_after_a_failed_save_print_nothing(small_disk):
    words = [sys.executable, "-c", FILLING, str(small_disk)]
    done = subprocess.run(words, env=CHILD, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("No space left on device") == 40
    assert "Traceback" not in done.stderr, done.stderr


def test_too_little_space_is_seen_before_the_start(small_disk):
    described = {"a": jax.ShapeDtypeStruct((300_000,), jnp.float32)}
    with pytest.raises(DataError, match=r"2\.1 MB free, and 4 checkpoints of 1\.3 MB need 5\.3 MB"):
        checkpoint.check_space(small_disk, described)
    checkpoint.check_space(small_disk, {"a": np.zeros(1000)})


def test_saves_are_due_at_the_multiples(tmp_path):
    keeper = checkpoint.keeper(tmp_path, identity={}, every=50, start=120, warn=pytest.fail)
    assert [keeper.next_due(step) for step in (0, 49, 50, 120)] == [50, 50, 100, 150]
    assert [keeper.due(step) for step in (120, 149, 150, 170)] == [False, False, True, True]
    never = checkpoint.keeper(tmp_path, identity={}, warn=pytest.fail)
    assert never.next_due(3) is None
    assert not never.due(3)


def test_another_run_is_refused_with_every_field_and_other_versions_are_told(tmp_path):
    mine = {"config": {"strength": 1.0, "loss": "softmax"}, "data": {"train": "ab"}}
    mine["versions"] = {"packages": {"jax": "0.10"}}
    keeper = checkpoint.keeper(tmp_path, identity=mine, warn=pytest.fail)
    assert keeper.save(3, {"a": np.ones(2)}, {"note": 1})
    other = json.loads(json.dumps(mine))
    other["config"] |= {"strength": 2.0, "margin": 1.0}
    other["data"]["train"] = "cd"
    with pytest.raises(DataError) as refusal:
        checkpoint.resume(tmp_path, other, warn=pytest.fail)
    for part in ("strength: 1.0 -> 2.0", "margin: nothing -> 1.0", 'train: "ab" -> "cd"'):
        assert part in str(refusal.value)
    newer = {**mine, "versions": {"packages": {"jax": "0.11"}}}
    sentences = []
    assert checkpoint.resume(tmp_path, newer, warn=sentences.append).record["note"] == 1
    assert 'packages.jax: "0.10" -> "0.11"' in sentences[0]


HOLDER = """
import sys, time
from pathlib import Path
from jaxlin import checkpoint
with checkpoint.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_writer_that_is_about_to_end_is_waited_for(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=CHILD) as holder:
        assert holder.stdout.readline() == b"held\n"
        threading.Timer(0.5, holder.kill).start()
        with checkpoint.lock(tmp_path):
            assert holder.poll() is not None or holder.wait(timeout=5) == -signal.SIGKILL


def test_a_folder_has_one_writer_and_kill_releases_it(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, env=CHILD)
    try:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(DataError, match=f"process {holder.pid} on .* writes this folder"),
            checkpoint.lock(tmp_path),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert (tmp_path / ".lock").exists()
    with checkpoint.lock(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


PATIENT = """
import sys, time
from jaxlin import checkpoint
with checkpoint.stop_signals() as stopping:
    print("ready", flush=True)
    while not stopping():
        time.sleep(0.01)
    print(stopping(), flush=True)
    time.sleep(600)
"""


def test_the_first_signal_is_a_wish_and_the_second_an_order():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    patient = subprocess.Popen([sys.executable, "-c", PATIENT], env=CHILD, **pipes)
    assert patient.stdout.readline() == b"ready\n"
    patient.send_signal(signal.SIGINT)
    assert patient.stdout.readline() == b"SIGINT\n"
    patient.send_signal(signal.SIGTERM)
    _, said = patient.communicate(timeout=60)
    assert patient.returncode == -signal.SIGTERM
    assert b"saving, then stopping" in said


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with checkpoint.stop_signals() as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping() == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


ONE_OF_TWO = """
import os, signal, sys
from pathlib import Path
import jax
jax.distributed.initialize(f"localhost:{sys.argv[2]}", 2, int(sys.argv[3]))
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxlin import checkpoint

run, rank = Path(sys.argv[1]), jax.process_index()
mesh = jax.make_mesh((2,), ("class",), axis_types=(AxisType.Auto,))
rows = np.arange(12.0, dtype=np.float32).reshape(4, 3)
def spread(array, *axes):
    where = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.make_array_from_callback(array.shape, where, lambda at: array[at])
state = {"sharded": spread(rows, "class"), "copied": spread(rows), "host": rows}
with checkpoint.lock(run), checkpoint.stop_signals() as heard:
    stopping = checkpoint.anywhere(heard)
    assert stopping() == ""
    checkpoint.save(run, 1, state, {"rank": rank})
    if rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopping() == "SIGTERM"  # also where it was not sent
found = checkpoint.find(run)
assert found.record == {"rank": 0}
back = checkpoint.load(found, jax.tree.map(lambda leaf: leaf * 0, state))
assert back["sharded"].sharding == state["sharded"].sharding
for name in ("sharded", "copied"):
    for mine in back[name].addressable_shards:
        np.testing.assert_array_equal(mine.data, rows[mine.index])
jax.distributed.shutdown()
"""


def test_two_processes_of_a_job_save_spread_arrays_and_stop_together(tmp_path, with_devices):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", ONE_OF_TWO, str(tmp_path), str(port)]
    environment = CHILD | with_devices(1)
    both = [
        subprocess.Popen([*words, str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert checkpoint.steps(tmp_path) == [1]
