"""Batches: every sample once an epoch, and a batch is a function of seed and step alone."""

import numpy as np
import pytest

from sdelab.data import Batches, Dataset, GreyLevels, Unscaled, load_digits
from sdelab.data.permutation import permutation


def numbered(n, classes=0):
    points = np.arange(n, dtype=np.float32)[:, None]
    labels = np.arange(n, dtype=np.int32) % classes if classes else None
    return Dataset("numbered", points, points.copy(), Unscaled(), labels, labels, classes)


@pytest.mark.parametrize(("n", "batch_size"), [(12, 4), (10, 4), (7, 5), (3, 8), (5, 1), (1, 3)])
def test_every_sample_comes_exactly_once_an_epoch(n, batch_size):
    batches = Batches(numbered(n), batch_size, seed=3)
    epochs = 6
    stream = np.concatenate([batches.batch(step)["x"][:, 0] for step in range(epochs * n // batch_size + 1)])
    for epoch in range(epochs):
        np.testing.assert_array_equal(np.sort(stream[epoch * n : (epoch + 1) * n]), np.arange(n))


def test_epochs_and_seeds_are_shuffled_differently():
    orders = [Batches(numbered(50), 50, seed).batch(step)["x"][:, 0] for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert tuple(np.arange(50.0)) not in {tuple(order) for order in orders}


def test_a_batch_does_not_depend_on_what_was_asked_before():
    dataset = numbered(37)
    forward = [Batches(dataset, 8, seed=1).batch(step)["x"] for step in range(20)]
    other = Batches(dataset, 8, seed=1)
    for step in (19, 3, 11, 0, 3):
        np.testing.assert_array_equal(other.batch(step)["x"], forward[step])


def test_half_the_batch_size_cuts_the_same_stream():
    dataset = numbered(37)
    whole = [Batches(dataset, 8, seed=1).rows(step) for step in range(6)]
    halves = [Batches(dataset, 4, seed=1).rows(step) for step in range(12)]
    np.testing.assert_array_equal(np.concatenate(whole), np.concatenate(halves))


def test_the_order_stays_what_it_was():
    """Literals from the first version: a resumed run must meet the same order with every NumPy."""
    assert permutation(0, 0, 8).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert permutation(1, 2, 8).tolist() == [4, 2, 0, 6, 1, 5, 7, 3]


def test_all_orders_are_alike_frequent():
    counts = np.zeros((6, 6))
    for stream in range(6000):
        counts[np.arange(6), permutation(5, stream, 6)] += 1
    expected = 1000.0
    chi_squared = np.sum((counts - expected) ** 2 / expected)
    assert chi_squared < 52.6  # 25 degrees of freedom, one in a thousand


def test_a_batch_holds_what_the_step_needs():
    digits = load_digits()
    batches = Batches(digits, 64, seed=0)
    batch, rows = batches.batch(30), batches.rows(30)
    np.testing.assert_array_equal(digits.decode(batch["x"]), digits.train[rows])
    np.testing.assert_array_equal(batch["label"], digits.train_labels[rows])
    np.testing.assert_array_equal(batch["index"], np.arange(64))
    assert {key: value.dtype for key, value in batch.items()} == {"x": np.float32, "label": np.int32, "index": np.int32}
    np.testing.assert_array_equal(Batches(numbered(4), 2).batch(0)["label"], [-1, -1])


@pytest.mark.parametrize("process_count", [1, 2, 3, 4, 6, 12])
def test_processes_have_the_batch_of_one_in_their_order(process_count):
    digits = load_digits()
    parts = [Batches(digits, 12, 5, index, process_count) for index in range(process_count)]
    for step in (0, 124, 125, 777):  # the second ends the first epoch
        whole = Batches(digits, 12, 5).batch(step)
        some = Batches(digits, 12, 5).batch(step, np.array([0, 3, 4, 11]))
        for name, array in whole.items():
            np.testing.assert_array_equal(np.concatenate([part.batch(step)[name] for part in parts]), array)
            np.testing.assert_array_equal(some[name], array[[0, 3, 4, 11]])


@pytest.mark.parametrize(("n", "batch_size", "process_count"), [(24, 8, 4), (10, 4, 2), (7, 6, 3)])
def test_every_sample_comes_exactly_once_an_epoch_over_all_processes(n, batch_size, process_count):
    parts = [Batches(numbered(n), batch_size, 9, index, process_count) for index in range(process_count)]
    steps = range(2 * n)  # as many epochs as there are samples in two batches
    stream = np.stack([np.concatenate([part.rows(step) for part in parts]) for step in steps])
    for epoch in stream.reshape(-1, n):
        assert set(epoch) == set(range(n))
    first_epoch = [set(np.concatenate([part.rows(step) for step in range(n // batch_size)])) for part in parts]
    assert sum(map(len, first_epoch)) == len(set.union(*first_epoch))  # disjoint


def test_another_number_of_processes_goes_on_with_the_same_batches():
    dataset = numbered(29)
    uninterrupted = [Batches(dataset, 6, 2).batch(step)["x"] for step in range(20)]
    before = [[Batches(dataset, 6, 2, index, 2).batch(step)["x"] for index in range(2)] for step in range(11)]
    after = [[Batches(dataset, 6, 2, index, 3).batch(step)["x"] for index in range(3)] for step in range(11, 20)]
    for resumed, whole in zip(before + after, uninterrupted, strict=True):
        np.testing.assert_array_equal(np.concatenate(resumed), whole)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"batch_size = 10 .* process_count = 4; the closest that can: 8, 12\."):
        Batches(numbered(40), 10, process_count=4)
    with pytest.raises(ValueError, match=r"process_index = 2 is not accepted; .* in \[0, 1\]"):
        Batches(numbered(4), 2, process_index=2, process_count=2)
    with pytest.raises(ValueError, match="batch_size = 0"):
        Batches(numbered(4), 0)
    with pytest.raises(ValueError, match="seed = -1"):
        Batches(numbered(4), 2, -1)
    with pytest.raises(ValueError, match="step = -1"):
        Batches(numbered(4), 2).batch(-1)
    assert GreyLevels(17).levels == 17
