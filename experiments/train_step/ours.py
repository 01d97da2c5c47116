"""Forward pass and training step of our DDPM++, as anyone would write them with the library."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.train_step.seconds import Seconds
from sdelab import VP, losses
from sdelab.interop.score_sde_torch import score_sde_torch_params
from sdelab.nn import NCSNpp, as_function, presets
from sdelab.score import NetworkScore
from sdelab.score.preconditioning import ScoreSDEVP
from sdelab.train.ema import ConstantDecay
from sdelab.train.flops import product_flops
from sdelab.train.optimizer import adam, linear_warmup
from sdelab.train.preflight import BACKWARD
from sdelab.train.state import init_state
from sdelab.train.step import make_train_step

SIZE = 32


def network(channels: int, multipliers: tuple[int, ...], blocks: int, dropout: float, dtype: str = "float32") -> NCSNpp:
    """With shapes for parameters, which are float32 whatever the `dtype` of the arithmetic; attention at 16 pixels."""
    settings = presets.ddpmpp() | {
        "channels": channels,
        "multipliers": multipliers,
        "blocks": blocks,
        "dropout": dropout,
        "dtype": dtype,
    }
    return nnx.eval_shape(lambda: NCSNpp(3, image_size=SIZE, **settings, rngs=nnx.Rngs(params=0)))


def initial_weights(module: NCSNpp) -> Any:
    """Of the shapes of the module's parameters, each kernel with the variance 1 / inputs: for times, not for training."""
    shapes = as_function(module)[1]
    random = np.random.default_rng(0)

    def draw(shape: Any) -> jax.Array:
        scale = 1.0 / np.sqrt(np.prod(shape.shape[:-1]))
        return jnp.asarray(scale * random.standard_normal(shape.shape), shape.dtype)

    return jax.tree.map(draw, shapes)


def from_rival(weights: Any, module: NCSNpp) -> Any:
    """The rival's weights, by the names of published checkpoints: every parameter has one, or an error says which not."""
    return jax.tree.map(jnp.asarray, score_sde_torch_params(weights, module))


class Run:
    """The compiled functions, and the state that the steps carry on; `repeats` of a function are timed as one run, and waited
    for once, as in a loop that does not look at every loss. `flops`: see `counted`.
    """

    def __init__(self, module: NCSNpp, params: Any, batch: int, repeats: int = 1):
        apply, _ = as_function(module)
        self.params, self.repeats = params, repeats
        self.x = jax.random.normal(jax.random.key(0), (batch, SIZE, SIZE, 3))
        self.c_noise = jnp.linspace(1.0, 998.0, batch)
        self.root_key = jax.random.key(1)
        self.batch = {"x": self.x, "index": jnp.arange(batch)}
        step, self.state = training(apply, params)
        self.flops = counted(apply, params, batch)
        self.compiled_forward = jax.jit(apply).lower(params, self.x, self.c_noise).compile()
        self.compiled_step = jax.jit(step, donate_argnums=0).lower(self.state, self.batch, self.root_key).compile()

    def evaluate(self) -> np.ndarray:
        return np.asarray(self.compiled_forward(self.params, self.x, self.c_noise))

    def forward(self) -> Seconds:
        return timed(lambda: self.compiled_forward(self.params, self.x, self.c_noise), self.repeats)

    def step(self) -> Seconds:
        return timed(self._step, self.repeats)

    def _step(self) -> Any:
        self.state, metrics = self.compiled_step(self.state, self.batch, self.root_key)
        return self.state, metrics


def timed(function: Callable[[], Any], repeats: int) -> Seconds:
    """Of one call among `repeats` in a row, the last of which is waited for."""
    start = time.perf_counter(), time.process_time()
    for _ in range(repeats - 1):
        function()
    jax.block_until_ready(function())
    wall, cores = time.perf_counter() - start[0], time.process_time() - start[1]
    return Seconds(wall / repeats, cores / repeats)


def counted(apply: Any, params: Any, batch: int) -> dict[str, int]:
    """FLOP of the convolutions and products, as the network is written and not as it is compiled."""
    forward = product_flops(apply, params, jnp.zeros((batch, SIZE, SIZE, 3)), jnp.ones(batch))
    return {"forward": forward, "step": (1 + BACKWARD) * forward}


def training(apply: Any, params: Any) -> tuple[Any, Any]:
    """The published step of VP, and the state before the first one."""
    sde, rate = VP(), linear_warmup(2e-4, 5000)
    score = NetworkScore(sde, ScoreSDEVP(), apply, params)
    optimizer = adam(rate)

    def loss_fn(params: Any, keys: Any, batch: Any) -> Any:
        model = dataclasses.replace(score, params=params).with_keys(keys)
        return losses.denoising_score_matching(
            keys,
            model,
            sde,
            batch["x"],
            weighting=losses.SigmaSquared(),
            time_sampler=losses.UniformTime(1e-5),
        )

    step = make_train_step(loss_fn, optimizer, ema=ConstantDecay(), learning_rate=rate)
    return step, init_state(params, optimizer)
