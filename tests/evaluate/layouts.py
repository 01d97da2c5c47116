"""Commands and solves for processes of their own, which have as many devices as they are told.

`python -m tests.evaluate.layouts commands FILE [-- COORDINATOR PROCESSES PROCESS]` runs the command lines of a JSON file,
one list of words each, in turn. `... solves OUT.npz` saves noise, samples and likelihoods whose inputs lie on one device,
or are split over all, under names that begin with `one` and `data`.
"""

import json
import sys
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import sdelab
from sdelab import exact, grids, solvers
from sdelab.cli.main import run
from sdelab.evaluate.batched import split, split_keys
from sdelab.sampling import draw_prior
from sdelab.train import DataParallel, OneDevice
from sdelab.train.distributed import ending_together, initialize

SDE = sdelab.VP()
MEANS, VARIANCES = np.array([[1.0, -1.0], [-0.5, 0.5]], np.float32), np.array([0.05, 0.1], np.float32)
ROWS = np.arange(40)


def solve(placement):
    """Of inputs that are split, or not: what the library makes of them knows nothing of devices."""
    keys = split_keys(placement, jax.random.key(3), ROWS)
    score = exact.GaussianMixture(jnp.asarray(MEANS), jnp.asarray(VARIANCES)).score(SDE)
    flow, reverse = sdelab.ProbabilityFlow(SDE, score), sdelab.ReverseSDE(SDE, score)
    prior = draw_prior(reverse, keys, (2,))
    noise = solvers.KeyedNoise(keys).draw(jnp.asarray(5), 2, jax.ShapeDtypeStruct((40, 7), jnp.float32))
    x_T = split(placement, np.asarray(prior))
    x = sdelab.sample(keys, reverse, x_T, solver=solvers.EulerMaruyama(), grid=grids.uniform(SDE, 20))
    adaptive = sdelab.sample(None, flow, x_T, solver=diffrax.Tsit5(), rtol=1e-3, atol=1e-3)
    log_p = sdelab.log_prob(flow, split(placement, np.asarray(x)), rtol=1e-3, atol=1e-3)
    assert {len(a.sharding.device_set) for a in (prior, noise, x, adaptive, log_p)} == {placement.shares}
    return {"prior": prior, "noise": noise, "x": x, "adaptive": adaptive, "log_p": log_p}


def solves(path):
    found = {"one": solve(OneDevice()), "data": solve(DataParallel())}
    np.savez(path, **{f"{place} {name}": array for place, arrays in found.items() for name, array in arrays.items()})
    return 0


def main(command, path, *together):
    if together:
        _, coordinator, processes, process = together
        initialize(coordinator=coordinator, processes=int(processes), process=int(process))
    if command == "solves":
        return solves(path)
    with ending_together():
        return max(run(["sdelab", *words]) for words in json.loads(Path(path).read_text()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
