"""Runs for processes of their own, which have as many devices as they are told.

`python -m tests.train.placements sgd OUT.npz CASE... [-- COORDINATOR PROCESSES PROCESS]` saves the parameters after 20 steps
of plain SGD in every case, `placement[:pieces[:steps a dispatch]]`; Adam and clipping would hide a gradient that is 8 x too large.
`python -m tests.train.placements train CONFIG WORKDIR [FAULT STEP] [-- ...]` is `sdelab train` without its flags; with a fault,
of `FAULTS`, in every process but the first when it makes the batch of that step, in the background.
`python -m tests.train.placements look OUT.npz PLACEMENT... [-- ...]` saves the samples and the losses by time of given weights.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import optax

from sdelab.cli.train import train
from sdelab.data import Batches
from sdelab.losses import SigmaSquared
from sdelab.train import build, init_params, init_state, loop
from sdelab.train.dispatch import Dispatcher, plan
from sdelab.train.distributed import ending_together, initialize, is_main
from sdelab.train.looks import LossByTime, SampleGrid
from sdelab.train.run import build_placement
from sdelab.train.step import METRICS
from sdelab.train.window import empty_window

CONFIG = {
    "seed": 3,
    "sde": {"name": "VP"},
    "data": {"name": "digits"},
    "model": {"name": "unet", "channels": 8, "multipliers": [1, 4], "head_size": 16, "classes": 10, "dropout": 0.1},
    "preconditioner": {"name": "edm", "data_std": 0.8},
    "loss": {},
    "optim": {"batch_size": 32, "learning_rate": 1e-3, "warmup_steps": 3},
    "ema": {"name": "warmup", "decay": 0.99},
    "run": {"steps": 20},
}
RATE = optax.constant_schedule(0.05)


def run_sgd(case):
    """The parameters before the run, after it and after a second one, and the share of them that is on the first device."""
    placement, pieces, together = (*case.split(":"), "1", "1")[:3]
    config = {**CONFIG, "run": {"steps": 20, "placement": placement, "pieces": int(pieces)}}
    experiment = dataclasses.replace(build(config), optimizer=optax.sgd(RATE), learning_rate=RATE)
    placement = build_placement(experiment.run, experiment.optim.batch_size)

    def init():
        params = init_params(config, experiment.dataset.event_shape)
        return {"state": init_state(params, experiment.optimizer), "window": empty_window(METRICS)}

    key = placement.enter(placement.maker(lambda: jax.random.key(7))())
    batches = Batches(experiment.dataset, experiment.optim.batch_size)
    dispatch = Dispatcher(placement, experiment.train_step, batches, key)
    make = placement.maker(init)

    def train_once():
        carry, calls = placement.enter(make()), [*plan(0, 20, (), int(together))]
        with dispatch.prefetch(calls) as ahead:
            for (first, count), batch in zip(calls, ahead, strict=True):
                carry = dispatch(carry, batch, first, count)
        return placement.leave(carry)["state"]["params"]

    before = on_host(make()["state"]["params"])
    params, again = train_once(), train_once()
    here = sum(x.addressable_shards[0].data.size for x in jax.tree.leaves(params))
    whole = sum(x.size for x in jax.tree.leaves(params))
    return {"before": before, "params": on_host(params), "again": on_host(again), "share": here / whole}


def on_host(params):
    whole = jax.jit(lambda tree: tree, out_shardings=jax.tree.map(_replicated, params))(params)
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(whole)])


def _replicated(x):
    if isinstance(x.sharding, jax.sharding.NamedSharding):
        return jax.sharding.NamedSharding(x.sharding.mesh, jax.sharding.PartitionSpec())
    return x.sharding


def sgd(path, *cases):
    arrays = {}
    for case in cases:
        arrays |= {f"{case} {name}": value for name, value in run_sgd(case).items()}
    if is_main():
        np.savez(path, **arrays)
    return 0


def look(path, *names):
    """Of weights that are not the initial ones, with which the network is zero; points, whose network compiles quickly."""
    model = {"name": "mlp", "width": 128, "depth": 2, "classes": 2}
    config, arrays = {**CONFIG, "data": {"name": "two_moons"}, "model": model}, {}
    for name in names:
        experiment = build({**config, "run": {"steps": 1, "placement": name}})
        placement, dataset = build_placement(experiment.run, 32), experiment.dataset
        params = placement.maker(lambda shape=dataset.event_shape: jax.tree.map(_shaken, init_params(config, shape)))()
        settings = {"seed": 0, "at_once": 512 // placement.shares}
        samples = SampleGrid(experiment.score, dataset.event_shape, classes=2, **settings)
        losses = LossByTime(experiment.score, dataset, weighting=SigmaSquared(), conditional=True, **settings)
        arrays |= {f"{name} samples": samples(params), f"{name} losses": losses(params)}
    if is_main():
        np.savez(path, **arrays)
    return 0


def _shaken(x):
    return x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape)


def fail():
    raise ArithmeticError("told to fail")


def hang():
    time.sleep(3600)


FAULTS = {"fail": fail, "hang": hang}


class FaultyBatches(Batches):
    fault: ClassVar = None
    step: ClassVar = 0

    def batch(self, step, positions=None):
        if step == self.step and not is_main():
            FAULTS[self.fault]()
        return super().batch(step, positions)


def main(command, *arguments):
    if "--" in arguments:
        at = arguments.index("--")
        coordinator, processes, process = arguments[at + 1 :]
        initialize(coordinator=coordinator, processes=int(processes), process=int(process))
        arguments = arguments[:at]
    with ending_together():
        if command in ("sgd", "look"):
            return {"sgd": sgd, "look": look}[command](*arguments)
        config, workdir, *fault = arguments
        if fault:
            FaultyBatches.fault, FaultyBatches.step = fault[0], int(fault[1])
            loop.Batches = FaultyBatches
        return train(json.loads(config), Path(workdir))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
