"""The mixture whose moments are compared, on every process: exact, by a fine solve of the flow, and their standard errors."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import sdelab
from sdelab import grids
from sdelab.testing.one_of import OneOf
from sdelab.testing.order import walk
from tests.solvers.cases import PROCESSES

FLOW_BATCH = 512


def mixture():
    means = jnp.array([[1.0, 0.5], [-0.8, -0.3]])
    return sdelab.exact.GaussianMixture(means, jnp.array([0.09, 0.16]), jnp.array([0.4, 0.6]))


def process_of(name, kind):
    """The process as one of all: a step that is compiled for it serves the others."""
    sde = OneOf(tuple(PROCESSES.values()), list(PROCESSES).index(name))
    return (sdelab.ReverseSDE if kind == "stochastic" else sdelab.ProbabilityFlow)(sde, mixture().score(sde))


def moments(x):
    """Means and covariances, as one array."""
    x = np.asarray(x, np.float64)
    return np.concatenate([x.mean(0), np.cov(x.T).ravel()])


def scales(sde):
    std = np.sqrt(np.diag(np.asarray(mixture().diffused(sde, sde.t_min).covariance())))
    return np.concatenate([std, np.outer(std, std).ravel()])


def exact_moments(sde):
    exact = mixture().diffused(sde, sde.t_min)
    return np.concatenate([np.asarray(exact.mean()), np.asarray(exact.covariance()).ravel()])


@functools.cache
def standard_errors(name):
    """Of means and covariances of one sample, in their scales: the exact fourth moments, by a large draw."""
    sde = PROCESSES[name]
    z = np.asarray(mixture().diffused(sde, sde.t_min).sample(jax.random.key(99), 20_000), np.float64)
    z -= z.mean(0)
    products = (z[:, :, None] * z[:, None, :]).reshape(len(z), -1)
    return np.concatenate([z.std(0), products.std(0)]) / scales(sde)


@functools.cache
def x_T(name, batch):
    sde = PROCESSES[name]
    return mixture().diffused(sde, sde.t_max).sample(jax.random.key(1), batch)


@functools.cache
def grid(name, n):
    return grids.log_snr(PROCESSES[name], n)


@functools.cache
def fine(name):
    """The exact flow's moments from `x_T`, by Dopri8, and in closed form up to the draw of `x_T`."""
    start = x_T(name, FLOW_BATCH)
    return moments(walk(diffrax.Dopri8(), process_of(name, "deterministic"), start, grid(name, 200)))
