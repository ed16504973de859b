"""Sets whose files lie on several hosts: threads here, that meet where processes would."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

from jaxlin.core import DataError
from jaxlin.data import load, load_splits
from jaxlin.data.distributed_features import DistributedFolders, listing, merge_listings
from jaxlin.data.rows import RowView
from jaxlin.distributed.peers import Peers

COUNTS = (30, 50, 20, 40)
FEATURES = 6


def on_hosts(count, run):
    """What `run(number, gather)` returns on each of `count` hosts, or the exception it ended by."""
    barrier, values = threading.Barrier(count, timeout=10), [None] * count

    def gather_of(number):
        def gather(value):
            values[number] = value
            barrier.wait()
            found = list(values)
            barrier.wait()
            return found

        return gather

    def one(number):
        try:
            return run(number, gather_of(number))
        except Exception as error:
            if not isinstance(error, DataError):  # those are raised on all hosts alike
                barrier.abort()
            return error

    with ThreadPoolExecutor(count) as hosts:
        return list(hosts.map(one, range(count)))


def opened(folders, read):
    """`read(folder, distributed)` on a host for each of the folders, all connected."""

    def run(number, gather):
        listings = gather(listing(folders[number]))
        parts = merge_listings(folders[number], listings)
        peers = Peers(number, gather, ["127.0.0.1"])
        found = read(folders[number], DistributedFolders(peers, {folders[number]: parts}))
        gather(None)  # others may still ask for rows
        return found

    return on_hosts(len(folders), run)


def refusals(folders):
    """The sentences by which hosts refuse to load their training sets."""
    found = opened(folders, lambda path, distributed: load(path, distributed=distributed))
    assert all(isinstance(each, DataError) for each in found), found
    return [str(each) for each in found]


def name(i, ending=".npy"):
    return f"train-{i:05d}-of-{len(COUNTS):05d}{ending}"


def put(folder, shard, inputs, labels):
    np.save(folder / name(shard), inputs)
    np.save(folder / name(shard, ".labels.npy"), labels)


@pytest.fixture
def whole(tmp_path):
    """A folder `whole/set` of four shards and a test file; `share` copies shards elsewhere."""
    rng, folder = np.random.default_rng(0), tmp_path / "whole" / "set"
    folder.mkdir(parents=True)
    for i, rows in enumerate(COUNTS):
        put(folder, i, rng.normal(size=(rows, FEATURES)).astype("f2"), np.arange(rows) % 3)
    np.save(folder / "test.npy", rng.normal(size=(15, FEATURES)).astype("f2"))
    np.save(folder / "test_labels.npy", np.arange(15) % 3)
    return folder


def share(whole, host, shards, *others):
    folder = whole.parents[1] / f"host{host}" / "set"
    folder.mkdir(parents=True)
    for i in shards:
        for file in (name(i), name(i, ".labels.npy")):
            if (whole / file).is_file():
                shutil.copy(whole / file, folder)
    for file in others:
        shutil.copy(whole / file, folder)
    return folder


@pytest.mark.parametrize("held", [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((2, 1), (0, 1), (3,))])
def test_the_set_is_that_of_a_folder_with_all_files_whoever_has_which(whole, held):
    folders = [share(whole, host, shards) for host, shards in enumerate(held)]
    shutil.copy(whole / "test.npy", folders[-1])
    shutil.copy(whole / "test_labels.npy", folders[-1])
    train, _, test = load_splits(whole)
    rows = np.array([139, 0, 31, 30, 79, 80, 99, 100, -1, 5])

    def read(path, distributed):
        first, validation, second = load_splits(path, distributed=distributed, memory=0)
        assert validation is None
        view = RowView(first.inputs, np.arange(len(first.inputs))[::-1])
        homes = first.inputs.homes(np.arange(len(first.inputs))).tolist()
        homes_of.append(homes)  # windows of a stream are laid out by them, on all hosts alike
        return first, second, first.inputs[:], first.inputs[rows], second.inputs[3:9], view[10:20]

    homes_of = []
    for found in opened(folders, read):
        assert not isinstance(found, Exception), found
        own, held_out, every, some, of_test, reversed_ = found
        assert (own.fingerprint, held_out.fingerprint) == (train.fingerprint, test.fingerprint)
        assert own.class_names == train.class_names
        assert own.inputs.dtype == np.float16
        np.testing.assert_array_equal(own.labels, train.labels)
        np.testing.assert_array_equal(held_out.labels, test.labels)
        np.testing.assert_array_equal(every, train.inputs)
        np.testing.assert_array_equal(some, train.inputs[rows])
        np.testing.assert_array_equal(of_test, test.inputs[3:9])
        np.testing.assert_array_equal(reversed_, train.inputs[::-1][10:20])
    assert len(homes_of) == len(held)
    assert all(homes == homes_of[0] for homes in homes_of)


def test_labels_may_lie_in_one_file_on_any_host_and_features_be_bfloat16(whole):
    labels = np.concatenate([np.load(whole / name(i, ".labels.npy")) for i in range(4)])
    for i in range(4):
        (whole / name(i, ".labels.npy")).unlink()
        np.save(whole / name(i), np.load(whole / name(i)).astype(ml_dtypes.bfloat16))
    np.save(whole / "train_labels.npy", labels)
    (whole / "classes.txt").write_text("a\nb\nc\n", encoding="utf-8")
    folders = [share(whole, 0, (0, 3), "classes.txt"), share(whole, 1, (1, 2), "train_labels.npy")]
    expected = load(whole)
    for found in opened(folders, lambda path, distributed: load(path, distributed=distributed)):
        np.testing.assert_array_equal(found.labels, labels)
        assert found.class_names == ("a", "b", "c")
        assert found.fingerprint == expected.fingerprint


def test_folders_that_are_all_alike_are_read_as_ever(whole):
    assert merge_listings(whole, [listing(whole)] * 3) is None


def test_a_file_that_no_host_has_is_missed(whole):
    folders = [share(whole, 0, (0, 1)), share(whole, 1, (3,))]
    with pytest.raises(
        DataError,
        match=r"of all 2 processes together: of the 4 files of train-"
        r"\*-of-4 number 2 is missing",
    ):
        merge_listings(folders[0], [listing(folder) for folder in folders])


def test_series_that_do_not_go_together_are_refused(whole):
    folders = [share(whole, 0, (0, 1)), share(whole, 1, ())]
    shutil.copy(whole / name(2), folders[1] / "train_features-00001-of-00002.npy")
    with pytest.raises(DataError, match=r"of process 0\) and train_features-.* \(of process 1\)"):
        merge_listings(folders[0], [listing(folder) for folder in folders])


def _change(folder):
    values = np.load(folder / name(1))
    values[-1, -1] += 1
    np.save(folder / name(1), values)


def _relabel(folder):
    values = np.load(folder / name(1, ".labels.npy"))
    np.save(folder / name(1, ".labels.npy"), (values + 1) % 3)


def _widen(folder):
    _replace(folder, FEATURES + 1, "f2")


def _retype(folder):
    _replace(folder, FEATURES, "f4")


def _replace(folder, features, kind):
    """All shards by others, so that none disagrees with one of its own host."""
    (folder / name(1)).unlink()
    for i in (2, 3):
        np.save(folder / name(i), np.zeros((COUNTS[i], features), kind))


def _cut(folder):
    file = folder / name(3)
    file.write_bytes(file.read_bytes()[:-5])


def _unlabel(folder):
    (folder / name(2, ".labels.npy")).unlink()


def _shorten_labels(folder):
    np.save(folder / name(2, ".labels.npy"), np.zeros(3, int))


def _other_classes(folder):
    (folder / "classes.txt").write_text("x\ny\nz\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_change, f"{name(1)}: process 1 has another file under this name than process 0. Keep"),
        (_relabel, f"{name(1, '.labels.npy')}: process 1 has other labels there than process 0"),
        (
            _widen,
            f"{name(2)}: process 1 has 7 features a row there, and {name(0)} of process 0 has 6",
        ),
        (
            _retype,
            f"{name(2)}: process 1 has float32 there, and {name(0)} of process 0 holds float16",
        ),
        (_cut, f"process 1: {{folder}}/{name(3)}: "),
        (_unlabel, f"{name(2)}: process 1 has no labels beside it"),
        (_shorten_labels, "process 1: {folder}/" + name(2, ".labels.npy") + ": there are 3 labels"),
        (_other_classes, "classes.txt of process 1 and of process 0 differ"),
    ],
    ids=["rows", "labels", "width", "type", "cut", "unlabeled", "too few labels", "classes"],
)
def test_what_hosts_have_against_each_other_all_of_them_say(whole, spoil, words):
    (whole / "classes.txt").write_text("a\nb\nc\n", encoding="utf-8")
    folders = [share(whole, 0, (0, 1), "classes.txt"), share(whole, 1, (1, 2, 3), "classes.txt")]
    spoil(folders[1])
    for sentence in refusals(folders):
        assert words.format(folder=folders[1]) in sentence


def test_a_number_that_is_not_finite_is_named_by_shard_and_row_on_the_host_that_has_it(whole):
    values = np.load(whole / name(3))
    values[7, 2] = np.nan
    np.save(whole / name(3), values)
    folders = [share(whole, 0, (0, 1)), share(whole, 1, (2, 3))]
    words = (
        f"process 1: {folders[1] / name(3)}: the inputs must be finite, got nan at row 7, column 2"
    )
    for sentence in refusals(folders):
        assert words in sentence


def test_who_does_not_know_the_key_gets_nothing_and_disturbs_nobody():
    from multiprocessing import AuthenticationError
    from multiprocessing.connection import Client

    rows = np.arange(12.0).reshape(4, 3)

    class Source:
        shape, dtype = rows.shape, rows.dtype

        def read_into(self, out, segments):
            out[:] = rows[segments[0]]

    def run(number, gather):
        peers = Peers(number, gather, ["255.255.255.255", "localhost"])
        peers.serve(Source())
        gather(None)
        if number == 0:
            (other,) = (o for o in gathered if o["port"] != peers._server.getsockname()[1])
            with pytest.raises((AuthenticationError, EOFError, OSError)):
                Client(("localhost", other["port"]), authkey=b"guessed")
        out = np.zeros((2, 3))
        peers.fetch(1 - number, 0, np.array([3, 1]), out)
        gather(None)
        peers._connections[1 - number].close()
        with pytest.raises(
            ConnectionError, match=f"connection closed: process {1 - number} of this run"
        ):
            peers.fetch(1 - number, 0, np.array([3, 1]), out)
        return out

    gathered = []

    def spying(number, gather):
        def spied(value):
            found = gather(value)
            if found and isinstance(found[0], dict) and "port" in found[0]:
                gathered[:] = found
            return found

        return run(number, spied)

    for out in on_hosts(2, spying):
        np.testing.assert_array_equal(out, rows[[3, 1]])


def test_hosts_that_cannot_reach_each_other_are_told_so():
    found = on_hosts(2, lambda number, gather: Peers(number, gather, ["255.255.255.255"]))
    for each in found:
        assert isinstance(each, DataError)
        assert "process 0: cannot reach process 1 at 255.255.255.255, port" in str(each)
