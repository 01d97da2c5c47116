"""Prefetch: the batches of a plain loop, in its order, made ahead in the background."""

import threading
import time

import jax
import numpy as np
import pytest

from sdelab.data import Batches, Prefetch, load_digits


@pytest.mark.parametrize("threads", [1, 3])
def test_the_batches_are_those_of_a_plain_loop_from_any_step(threads):
    batches = Batches(load_digits(), 64, seed=4)
    for start in (0, 17):
        with Prefetch(batches.batch, range(start, 30), place=jax.device_put, depth=4, threads=threads) as ahead:
            taken = list(ahead)
        assert len(taken) == 30 - start
        for step, batch in enumerate(taken, start):
            for name, array in batches.batch(step).items():
                assert isinstance(batch[name], jax.Array)
                np.testing.assert_array_equal(batch[name], array)


def test_batches_keep_their_order_when_later_ones_are_ready_first():
    def make(step):
        time.sleep(0.02 if step % 3 == 0 else 0.0)
        return step

    with Prefetch(make, range(20), depth=5, threads=4) as ahead:
        assert list(ahead) == list(range(20))


def test_no_more_than_depth_batches_are_made_ahead():
    made = []
    with Prefetch(lambda step: made.append(step), range(100), depth=3, threads=2) as ahead:
        for taken in range(1, 6):
            next(ahead)
            deadline = time.perf_counter() + 5.0
            while len(made) < taken + 3 and time.perf_counter() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert sorted(made) == list(range(taken + 3))
    assert len(made) == 8


def test_batches_are_made_while_the_caller_computes():
    with Prefetch(lambda step: time.sleep(0.03), range(10), depth=2) as ahead:
        next(ahead)
        before = ahead.waited
        for _ in range(8):
            time.sleep(0.06)
            next(ahead)
        assert ahead.waited - before < 0.25 * 8 * 0.03  # 0.24 s of making, all but hidden
    with Prefetch(lambda step: time.sleep(0.03), range(4), depth=1) as starved:
        list(starved)
        assert starved.waited > 0.1


@pytest.mark.parametrize("place", [False, True])
def test_an_error_comes_in_place_of_its_batch_and_ends_the_threads(place):
    def fail(step):
        if step == 3:
            raise OSError("image 3 is torn")
        return step

    stages = {"make": lambda step: step, "place": fail} if place else {"make": fail}
    make = stages.pop("make")
    with Prefetch(make, range(10), depth=4, threads=2, **stages) as ahead:
        assert [next(ahead) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="image 3 is torn"):
            next(ahead)
        assert list(ahead) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_leaving_the_context_ends_the_threads():
    with Prefetch(lambda step: step, range(1000), depth=8, threads=4) as ahead:
        next(ahead)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="depth = 0"):
        Prefetch(lambda step: step, range(1), depth=0)
    with pytest.raises(ValueError, match="threads = 0"):
        Prefetch(lambda step: step, range(1), threads=0)
    with Prefetch(lambda step: step, range(5, 5)) as ahead:
        assert list(ahead) == []
