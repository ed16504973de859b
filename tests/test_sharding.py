"""Many devices against one: the same batches, objectives and optima, and what is exchanged.

One child process with eight CPU devices (`eight_devices.py`) does all the work; the tests read
what it found. Sums over devices are taken in another order, so that float32 results agree to about
sqrt(terms) units in the last place: 1e-6 relative for the sizes here.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxlin.core import Batch, LinearParams
from jaxlin.distributed import sharding
from jaxlin.passes import open_sharded


@pytest.fixture(scope="module")
def found(once, with_devices, tmp_path_factory):
    def eight():
        out = tmp_path_factory.mktemp("eight") / "run"
        words = [sys.executable, Path(__file__).with_name("eight_devices.py"), out]
        done = subprocess.run(
            words, env=with_devices(8), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        written = json.loads((out / "env.json").read_text(encoding="utf-8"))
        return json.loads(done.stdout) | {"env": written}

    return once("eight_devices", eight)


def test_training_reaches_the_objective_of_one_device(found):
    objectives = found["minibatch"]["objectives"]
    assert objectives.keys() == {"1", "8", "3", "2x4", "8, then 2"}
    for objective in objectives.values():
        assert objective == pytest.approx(objectives["1"], rel=1e-6)


def test_equally_many_devices_give_the_same_bits(found):
    assert found["minibatch"]["same bits"]


def test_every_batch_holds_the_rows_it_has_on_one_device(found):
    assert found["plan is the epoch's"]


def test_a_step_exchanges_one_gradient_whatever_the_batch(found):
    # K (D + 1) = 12 x 21 numbers of the gradient and the loss in one sum, and the sum of weights.
    expected = [["all-reduce", 1], ["all-reduce", 12 * 21 + 1]]
    assert sorted(found["exchanged 64"]) == sorted(found["exchanged 1024"]) == expected


def test_every_loss_is_the_same_on_every_mesh(found):
    for by_loss in found["values"].values():
        for loss, value_and_norm in by_loss.items():
            np.testing.assert_allclose(value_and_norm, found["values"]["1"][loss], rtol=1e-6)


@pytest.mark.parametrize(("loss", "tolerance"), [("softmax", 1e-5), ("squared-hinge", 1e-4)])
def test_certified_optima_agree(found, loss, tolerance):
    one, eight = (found["full batch"][f"{loss} {count}"] for count in (1, 8))
    for objective, lower_bound in (one, eight):
        assert lower_bound <= one[0] * (1 + 1e-12)  # either bound holds for both objectives
        assert lower_bound <= eight[0] * (1 + 1e-12)
        assert objective - lower_bound <= tolerance * objective


def test_sweeps_find_the_heads_of_one_device(found):
    banks, paths = found["swept"]["bank"], found["swept"]["path"]
    for name in ("8", "2x4"):  # five heads over four devices: three more fill them up
        for head, same in zip(banks[name], banks["1"], strict=True):
            assert head[:2] == same[:2]
            np.testing.assert_allclose(head[2:], same[2:], rtol=1e-6)
    assert found["swept"]["diverged"] == "diverged"  # and disturbs no other, on 2x4 devices either
    for head, same in zip(paths["8"], paths["1"], strict=True):
        assert max(head[1], same[1]) <= 1e-7
        assert head[0] == pytest.approx(same[0], rel=2e-7)  # each within 1e-7 of the optimum
        # 2 strength |W - W'|^2 / 2 <= 1e-7 of the objective bounds the distance: 1e-3 of the loss
        assert head[2] == pytest.approx(same[2], rel=1e-3)


def test_streamed_windows_are_the_same_on_every_mesh(found):
    objectives = found["streamed"]
    assert objectives.pop("streamed")
    for objective in objectives.values():
        assert objective == pytest.approx(objectives["1"], rel=1e-6)


def test_classes_are_split_and_no_weights_are_gathered(found):
    many = found["many classes"]
    assert many["shard"] == [12_501, 4]  # of 100,003 over 8
    assert many["loss"] == pytest.approx(np.log(100_003), rel=1e-6)  # the filling has no share
    # Step 1 on the mean over 4 examples: -(p - 1) / 4 for the own class.
    assert many["own"] == pytest.approx((1 - 1 / 100_003) / 4, rel=1e-6)
    assert many["largest exchange"] < 100


def test_the_command_trains_on_eight_devices_and_says_so(found):
    assert found["command"] == 0
    assert found["env"]["device_count"] == 8


def test_filling_rows_weigh_nothing_and_filling_classes_cannot_win():
    mesh = sharding.mesh(1)
    placed = sharding.place(
        Batch(np.ones((3, 2)), np.zeros(3, int), np.array([1.0, 2.0, 3.0])), mesh
    )
    assert placed.batch.weights.tolist() == [1, 2, 3]
    params = sharding.place_params(LinearParams(np.ones((3, 2)), np.zeros(3)), mesh)
    assert sharding.fetch(params, 2).weights.shape == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((9,), r"`devices` must be in \[1, 1\] here, got 9. On a CPU, XLA_FLAGS="),
        ((0,), "got 0"),
    ],
)
def test_a_mesh_of_devices_that_are_not_there_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        sharding.mesh(*arguments)


def test_classes_that_do_not_divide_the_devices_are_refused():
    with pytest.raises(ValueError, match="`class_axis` must divide the 1 devices, got 2"):
        sharding.mesh(class_axis=2)


def test_all_gathers_would_be_seen():
    program = (
        "%g = f32[48,4]{0,1} all-gather(%b), dims={1}\n%s = (f32[8], f32[]) all-reduce-start(%x)"
    )
    kinds = [(found.kind, found.elements) for found in sharding.collectives(program)]
    assert kinds == [("all-gather", 192), ("all-reduce", 9)]


def test_rows_that_the_devices_cannot_hold_are_refused_before_they_are_read():
    class Endless:
        shape, dtype = (10**12, 768), np.dtype(np.float16)

    with pytest.raises(ValueError, match=r"take 1430511\.47 GiB on 1 of the 1 devices, where"):
        open_sharded(Endless(), 10, sharding.mesh(1))


def test_a_device_without_float64_has_its_bounds_proved_by_one_that_has_it(found):
    """On one device and on a mesh; sums in float64 were all taken on device 0."""
    alone, spread, *there = found["proved elsewhere"]["bounds"]
    assert found["proved elsewhere"]["places"] == [0]
    assert found["proved elsewhere"]["arithmetic"] == "float64 on cpu"
    assert there[0] == alone  # of the same steps, taken by the same programs
    # on the mesh a bound is summed in another order, and is off by its rounding
    np.testing.assert_allclose(there[1], spread, rtol=1e-9)
