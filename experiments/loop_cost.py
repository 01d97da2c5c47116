"""What the training loop costs beyond the compiled step.

    python -m experiments.loop_cost [--rounds 25] [--steps 50] [--batch-size 128] [--channels 32]

A compact U-Net on digits, on one device. *The step*: the compiled step on one batch that is on the device already, called
again and again. *The loop*: what `sdelab.train.fit` does in a step: the batch of the step, gathered, scaled and sent to the
device; the call; the progress bar; the question whether to stop; the row of the log at the end. The two take turns, and
medians are compared. The exit status is 1 if the loop costs more than 1 % over the step.

The host works while the device computes; on a machine whose processor is the device it takes a share of it.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments.overhead.timing import Comparison, compare, timed
from sdelab.cli.base_config import image_config
from sdelab.data import Batches
from sdelab.train import Experiment, build, init_params
from sdelab.train.dispatch import Dispatcher, plan
from sdelab.train.log import Log, open_writers
from sdelab.train.placement import AbstractPlacement
from sdelab.train.run import build_placement
from sdelab.train.signals import StopRequest
from sdelab.train.step import METRICS
from sdelab.train.watchdog import NoWatchdog
from sdelab.train.window import empty_window, read_window

LIMIT = 1.01


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--channels", type=int, default=32)
    options = parser.parse_args(arguments)
    comparison = measure(options.rounds, options.steps, options.batch_size, options.channels)
    per_step = {"loop_ms": 1e3 * comparison.ours / options.steps, "step_ms": 1e3 * comparison.reference / options.steps}
    print(json.dumps({**comparison._asdict(), **per_step, "device": jax.devices()[0].device_kind}))
    return 0 if comparison.holds else 1


def measure(rounds: int, steps: int, batch_size: int, channels: int) -> Comparison:
    """The loop against its compiled step."""
    config = image_config("digits", "VP").to_dict()
    config["optim"]["batch_size"], config["model"]["channels"] = batch_size, channels
    experiment = build(config)
    placement = build_placement(experiment.run, batch_size)
    batches = Batches(experiment.dataset, batch_size)
    key = placement.enter(placement.maker(lambda: jax.random.key(1))())
    dispatch = Dispatcher(placement, experiment.train_step, batches, key)
    make = placement.maker(lambda: _carry(config, experiment))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        writers = [stack.enter_context(writer) for writer in open_writers(folder, 0, tensorboard=False)]
        bar = stack.enter_context(tqdm(total=2 * rounds * steps, file=io.StringIO()))
        log = Log(writers, bar, examples_per_step=batch_size)
        stop = stack.enter_context(StopRequest())
        loop = _loop(dispatch, placement, placement.enter(make()), steps, log, stop)
        step = _step(dispatch, placement, placement.enter(make()), batches, steps)
        return compare("loop", timed(loop), timed(step), rounds=rounds, limit=LIMIT)


def _carry(config: dict[str, Any], experiment: Experiment) -> dict[str, Any]:
    params = init_params(config, experiment.dataset.event_shape)
    return {"state": experiment.init_state(params), "window": empty_window(METRICS)}


def _loop(
    dispatch: Dispatcher, placement: AbstractPlacement, carry: Any, steps: int, log: Log, stop: StopRequest
) -> Callable[[], Any]:
    dog, reached = NoWatchdog(), 0

    def run() -> Any:
        nonlocal carry, reached
        for number, (first, count) in enumerate(plan(reached, reached + steps, (steps,), 1)):
            dog.feed(f"at step {first + count}")
            carry = dispatch(carry, first, count)
            log.advance(count)
            stop(number)
        reached += steps
        log.write(reached, read_window(placement.leave(carry["window"])))
        carry = {"state": carry["state"], "window": dispatch.new_window()}
        return carry

    return run


def _step(
    dispatch: Dispatcher, placement: AbstractPlacement, carry: Any, batches: Batches, steps: int
) -> Callable[[], Any]:
    """The same compiled program: it would not do to compile it twice, with another layout of its memory."""
    batch, compiled, key = placement.send(batches.batch(0)), dispatch._single, dispatch._key

    def run() -> Any:
        nonlocal carry
        for _ in range(steps):
            carry, _ = compiled(carry, batch, key)
        return carry

    return run


if __name__ == "__main__":
    sys.exit(main())
