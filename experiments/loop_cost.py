"""What the training loop costs beyond the compiled step.

    python -m experiments.loop_cost [--data cifar10-sized] [--rounds 25] [--steps 5] [--batch-size 32] [--channels 32]

A small U-Net on one device: on random images of CIFAR-10's size or, with `--data digits --steps 20`, on 8 x 8 digits, whose
step is as short as a step of a U-Net can be. *The loop* is `sdelab.train.fit` itself, with all it does in a step: the batch of the
step, made and sent to the device in the background; the call; the progress bar; the questions whether to stop and whether a
save has failed; the row of the log. *The step* is the same compiled program, called again and again on one batch that is on
the device already. After every row of the log the loop is held up for as many steps of the second kind, so that the two take
turns within one run, on one program. Checkpoints are not in it. Run it on a machine that does nothing else.

Two numbers come of it. `ratio`, of loop to step by the clock, is the median over the rounds, and no sharper than its quartiles.
`bound` is 1 + host / step, where `host` is what the loop's threads compute beyond calling the step, by their processor time: it
is the ratio of a device that stands still for as long as the host works, and other processes do not blur it. Time in which no
thread works, such as a slow disk's, is in `ratio` alone. The host works while the device computes; where the processor is the
device, it takes a share of it. The exit status is 1 if `bound`, or
the lower quartile of `ratio`, is more than 1.01.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest import mock

import jax
import numpy as np

from sdelab.cli.base_config import image_config
from sdelab.cli.xla_flags import choose_fusions
from sdelab.data import Prefetch
from sdelab.train import build, init_params, loop
from sdelab.train.dispatch import Call, Dispatcher
from sdelab.train.run import build_placement
from sdelab.train.step import METRICS
from sdelab.train.window import Window, empty_window

LIMIT = 1.01
WARM_UP = 2
"""Rounds that are not counted: the first compiles."""


class Round(NamedTuple):
    """Seconds of a round's steps: by the clock, and of the main thread's processor."""

    loop: float
    step: float
    loop_host: float
    step_host: float


class TakingTurns(Dispatcher):
    """Where the loop asks for a new window, after a row of the log, the bare step has its turn."""

    config: ClassVar[dict[str, Any]] = {}
    rounds: ClassVar[list[Round]] = []
    batches: ClassVar[list[float]] = []
    """Processor seconds of each batch's making and sending."""
    _carry: Any = None
    _began: tuple[float, float] = (0.0, 0.0)

    def new_window(self) -> Window:
        loop = _since(self._began)
        if self._carry is None:
            self._prepare()
        step = self._bare_steps(self.config["run"]["log_every"])
        self.rounds.append(Round(loop[0], step[0], loop[1], step[1]))
        self._began = _now()
        return super().new_window()

    def prefetch(self, calls: Iterable[Call], *, depth: int = 2, threads: int = 1) -> Prefetch:
        def timed(call: Call) -> Any:
            began = time.thread_time()
            batch = self._send(self._batch(call))
            self.batches.append(time.thread_time() - began)
            return batch

        return Prefetch(timed, calls, depth=depth, threads=threads)

    def _prepare(self) -> None:
        """A state of its own, and one batch: the steps of the loop are not to be changed."""
        experiment = build(self.config)

        def init() -> Any:
            params = init_params(self.config, experiment.dataset.event_shape)
            return {"state": experiment.init_state(params), "window": empty_window(METRICS)}

        self._carry = self._placement.enter(self._placement.maker(init)())
        self._batch_there = self._send(self._batch((0, 1)))

    def _bare_steps(self, count: int) -> tuple[float, float]:
        jax.block_until_ready((self._carry, self._batch_there))
        began = _now()
        for _ in range(count):
            self._carry, _ = self._single(self._carry, self._batch_there, self._key)
        jax.block_until_ready(self._carry)
        return _since(began)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.thread_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - began[0], time.thread_time() - began[1]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("cifar10-sized", "digits"), default="cifar10-sized")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=5, help="of a round, for each of the two")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=32)
    options = parser.parse_args(arguments)
    rounds, batches = measure(options)
    result = summary(rounds, batches, options.steps)
    print(json.dumps({**result, "device": jax.devices()[0].device_kind}, indent=1))
    return 0 if max(result["bound"], result["ratio_quartiles"][0]) <= LIMIT else 1


def summary(rounds: list[Round], batches: list[float], steps: int) -> dict[str, Any]:
    """The ratio by the clock and its bound by the host's work, with the milliseconds of a step they come from."""
    lower, ratio, upper = statistics.quantiles([each.loop / each.step for each in rounds], n=4)
    step = statistics.median(each.step for each in rounds) / steps
    calls = statistics.median(each.loop_host - each.step_host for each in rounds) / steps
    host = max(calls, 0.0) + statistics.median(batches)
    return {
        "ratio": ratio,
        "ratio_quartiles": (lower, upper),
        "bound": 1 + host / step,
        "limit": LIMIT,
        "step_ms": 1e3 * step,
        "host_ms": 1e3 * host,
        "of_which_batches_ms": 1e3 * statistics.median(batches),
        "rounds": len(rounds),
    }


def measure(options: argparse.Namespace) -> tuple[list[Round], list[float]]:
    """The rounds after the warm-up, and what each batch took."""
    with tempfile.TemporaryDirectory() as folder:
        config = _config(options, Path(folder))
        # what is not accepted is said before anything is replaced
        build_placement(build(config).run, options.batch_size)
        TakingTurns.config, TakingTurns.rounds, TakingTurns.batches = config, [], []
        with mock.patch.object(loop, "Dispatcher", TakingTurns):
            loop.fit(config, Path(folder) / "run")
    return TakingTurns.rounds[WARM_UP:], TakingTurns.batches[WARM_UP * options.steps :]


def _config(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    config = image_config("digits", "VP").to_dict()
    if options.data == "cifar10-sized":
        noise = np.random.default_rng(0)
        images, labels = noise.integers(0, 256, (2000, 32, 32, 3), np.uint8), noise.integers(0, 10, 2000)
        np.savez(folder / "noise.npz", train=images, train_labels=labels)
        config["data"] = {"name": "arrays", "path": str(folder / "noise.npz"), "held_out": 0}
        config["model"]["multipliers"] = (1, 2, 2)
    config["optim"]["batch_size"], config["model"]["channels"] = options.batch_size, options.channels
    steps = (options.rounds + WARM_UP) * options.steps
    config["run"] |= {"steps": steps, "log_every": options.steps, "checkpoint_every": steps}  # none falls into a round
    return config


if __name__ == "__main__":
    choose_fusions()
    sys.exit(main())
