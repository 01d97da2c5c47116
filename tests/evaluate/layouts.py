"""Commands and solves for processes of their own, which have as many devices as they are told.

`python -m tests.evaluate.layouts COMMANDS.json [SOLVES.npz] [-- COORDINATOR PROCESSES PROCESS]` runs the command lines of
the first file, a list of words each, in turn. The second gets noise, samples and likelihoods whose inputs lie on one
device, or are split over all, under names that begin with `one` and `data`.
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

COUNT = 40


def solve(placement):
    """Of inputs that are split, or not: what makes samples and likelihoods of them knows nothing of devices."""
    sde = sdelab.VP()
    score = exact.GaussianMixture(jnp.asarray([[1.0, -1.0], [-0.5, 0.5]]), jnp.asarray([0.05, 0.1])).score(sde)
    flow, reverse = sdelab.ProbabilityFlow(sde, score), sdelab.ReverseSDE(sde, score)
    keys = split_keys(placement, jax.random.key(3), np.arange(COUNT))
    like = jax.ShapeDtypeStruct((COUNT, 7), jnp.float32)
    prior = jax.jit(lambda keys: draw_prior(reverse, keys, (2,)))(keys)
    noise = jax.jit(lambda keys: solvers.KeyedNoise(keys).draw(jnp.asarray(5), 2, like)[0])(keys)
    x_T = split(placement, np.asarray(prior))
    x = sdelab.sample(keys, reverse, x_T, solver=solvers.EulerMaruyama(), grid=grids.uniform(sde, 20))
    log_p = sdelab.log_prob(flow, x, solver=diffrax.Heun(), grid=grids.uniform(sde, 20))
    found = {"prior": prior, "noise": noise, "x": x, "log_p": log_p}
    for name, array in found.items():
        rows = {shard.data.shape[0] for shard in array.addressable_shards}
        assert rows == {COUNT // placement.shares}, f"{name} is not split: {array.sharding}"
    return found


def save_solves(path):
    found = {"one": solve(OneDevice()), "data": solve(DataParallel())}
    np.savez(path, **{f"{place} {name}": array for place, arrays in found.items() for name, array in arrays.items()})


def main(*arguments):
    paths, together = arguments, ()
    if "--" in arguments:
        at = arguments.index("--")
        paths, together = arguments[:at], arguments[at + 1 :]
        initialize(coordinator=together[0], processes=int(together[1]), process=int(together[2]))
    with ending_together():
        codes = [run(["sdelab", *words]) for words in json.loads(Path(paths[0]).read_text())]
        if len(paths) > 1:
            save_solves(paths[1])
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
