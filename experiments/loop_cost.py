"""What the training loop costs beyond the compiled step.

    python -m experiments.loop_cost [--rounds 25] [--steps 20] [--batch-size 64] [--channels 32]

A compact U-Net on digits, on one device. *The loop* is `sdelab.train.fit` itself, with all it does in a step: the batch of the
step, made and sent to the device in the background; the call; the progress bar; the questions whether to stop and whether a
save has failed; the row of the log. *The step* is the same compiled program, called again and again on one batch that is on
the device already. After every row of the log the loop is held up for as many steps of the second kind, so that the two take
turns within one run, on one program; medians over the rounds are compared. Checkpoints are not in it. The exit status is 1 if
the loop costs more than 1 % over the step. Run it on a machine that does nothing else.

The host works while the device computes; on a machine whose processor is the device it takes a share of it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import jax

from experiments.overhead.timing import Comparison
from sdelab.cli.base_config import image_config
from sdelab.train import build, init_params, loop
from sdelab.train.dispatch import Dispatcher
from sdelab.train.run import build_placement
from sdelab.train.step import METRICS
from sdelab.train.window import Window, empty_window

LIMIT = 1.01
WARM_UP = 2
"""Rounds that are not counted: the first compiles."""


class TakingTurns(Dispatcher):
    """Where the loop asks for a new window, after a row of the log, the bare step has its turn."""

    config: ClassVar[dict[str, Any]] = {}
    of_loop: ClassVar[list[float]] = []
    of_step: ClassVar[list[float]] = []
    _carry: Any = None
    _began: float = 0.0

    def new_window(self) -> Window:
        self.of_loop.append(time.perf_counter() - self._began)
        if self._carry is None:
            self._prepare()
        self.of_step.append(self._bare_steps(self.config["run"]["log_every"]))
        self._began = time.perf_counter()
        return super().new_window()

    def _prepare(self) -> None:
        """A state of its own, and one batch: the steps of the loop are not to be changed."""
        experiment = build(self.config)

        def init() -> Any:
            params = init_params(self.config, experiment.dataset.event_shape)
            return {"state": experiment.init_state(params), "window": empty_window(METRICS)}

        self._carry = self._placement.enter(self._placement.maker(init)())
        self._batch_there = self._send(self._batch((0, 1)))

    def _bare_steps(self, count: int) -> float:
        jax.block_until_ready((self._carry, self._batch_there))
        began = time.perf_counter()
        for _ in range(count):
            self._carry, _ = self._single(self._carry, self._batch_there, self._key)
        jax.block_until_ready(self._carry)
        return time.perf_counter() - began


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=20, help="of a round, for each of the two")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--channels", type=int, default=32)
    options = parser.parse_args(arguments)
    result, spread = measure(options)
    per_step = {"loop_ms": 1e3 * result.ours / options.steps, "step_ms": 1e3 * result.reference / options.steps}
    quartiles = {f"{name}_quartiles_ms": [1e3 * x / options.steps for x in pair] for name, pair in spread.items()}
    print(json.dumps({**result._asdict(), **per_step, **quartiles, "device": jax.devices()[0].device_kind}, indent=1))
    return 0 if result.holds else 1


def measure(options: argparse.Namespace) -> tuple[Comparison, dict[str, tuple[float, float]]]:
    """The loop against its compiled step, and the quartiles of both."""
    config = image_config("digits", "VP").to_dict()
    config["optim"]["batch_size"], config["model"]["channels"] = options.batch_size, options.channels
    config["run"] |= {
        "steps": (options.rounds + WARM_UP) * options.steps,
        "log_every": options.steps,
        "checkpoint_every": (options.rounds + WARM_UP) * options.steps,  # the last: none falls into a round
    }
    build_placement(build(config).run, options.batch_size)  # what is not accepted is said before anything is replaced
    TakingTurns.config, TakingTurns.of_loop, TakingTurns.of_step = config, [], []
    with mock.patch.object(loop, "Dispatcher", TakingTurns), tempfile.TemporaryDirectory() as folder:
        loop.fit(config, Path(folder))
    seconds = {"loop": TakingTurns.of_loop[WARM_UP:], "step": TakingTurns.of_step[WARM_UP:]}
    ours, reference = (statistics.median(seconds[name]) for name in ("loop", "step"))
    quartiles = {name: statistics.quantiles(values, n=4) for name, values in seconds.items()}
    spread = {name: (cuts[0], cuts[2]) for name, cuts in quartiles.items()}
    return Comparison("loop", ours, reference, ours / reference, LIMIT), spread


if __name__ == "__main__":
    sys.exit(main())
