"""Ways to convolve an image with doubled pixels, on shapes of up blocks: milliseconds, forwards and with both gradients.

    OMP_WAIT_POLICY=passive python -m experiments.train_step.doubled_pixels [--rounds 30]

`doubled` doubles the pixels and convolves; `a phase` is one convolution by 2 x 2 for each of the four phases, what the networks
do; `as channels` is one convolution of which the phases are channels; `transposed` is one by 4 x 4 with zeros between the pixels.
Medians of runs that take turns, on the wall and in brackets of all cores together.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.train_step.seconds import Seconds, medians
from sdelab.cli.xla_flags import choose_fusions
from sdelab.nn.convolution import convolve, convolve_doubled, same
from sdelab.nn.resampling import upsample

SHAPES = ((16, 64), (8, 128))
BATCH = 16


def doubled(x: Array, kernel: Array) -> Array:
    return convolve(upsample(x), kernel, padding=same(3, 2))


def as_channels(x: Array, kernel: Array) -> Array:
    for axis in (0, 1):  # the later phase first: what is cut off below is then the first and the last
        first, middle, last = jnp.split(kernel, 3, axis=axis)
        later, earlier = jnp.concatenate([first + middle, last], axis), jnp.concatenate([first, middle + last], axis)
        kernel = jnp.concatenate([later, earlier], axis=-1)
    out = convolve(x, kernel, padding=((1, 1), (1, 1)))
    batch, height, width, channels = out.shape
    phases = out.reshape(batch, height, width, 2, 2, channels // 4)  # the axis split last is the outer one: columns
    return phases.transpose(0, 1, 4, 2, 3, 5).reshape(batch, 2 * height, 2 * width, -1)[:, 1:-1, 1:-1]


def transposed(x: Array, kernel: Array) -> Array:
    for axis in (0, 1):
        before, after = ([(n, 1 - n) if i == axis else (0, 0) for i in range(4)] for n in (1, 0))
        kernel = jnp.pad(kernel, before) + jnp.pad(kernel, after)
    numbers = ("NHWC", "HWIO", "NHWC")
    padding = ((2, 2), (2, 2))
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, lhs_dilation=(2, 2), dimension_numbers=numbers)


WAYS = {"doubled": doubled, "a phase": convolve_doubled, "as channels": as_channels, "transposed": transposed}


def with_gradients(way: Callable[[Array, Array], Array], x: Array, kernel: Array, cotangent: Array) -> Any:
    out, pull = jax.vjp(way, x, kernel)
    return out, pull(cotangent)


def timed(compiled: Callable[..., Any], *arguments: Array) -> Seconds:
    start = time.perf_counter(), time.process_time()
    jax.block_until_ready(compiled(*arguments))
    return Seconds(time.perf_counter() - start[0], time.process_time() - start[1])


def measure(side: int, channels: int, rounds: int) -> dict[str, Seconds]:
    draw = np.random.default_rng(0).standard_normal
    x = jnp.asarray(draw((BATCH, side, side, channels)), jnp.float32)
    kernel = jnp.asarray(draw((3, 3, channels, channels)) / np.sqrt(9 * channels), jnp.float32)
    cotangent = jnp.asarray(draw((BATCH, 2 * side, 2 * side, channels)), jnp.float32)
    sides: dict[str, Callable[[], Seconds]] = {}
    for name, way in WAYS.items():
        forward = jax.jit(way).lower(x, kernel).compile()
        both = jax.jit(functools.partial(with_gradients, way)).lower(x, kernel, cotangent).compile()
        np.testing.assert_allclose(forward(x, kernel), doubled(x, kernel), atol=1e-4)
        sides[f"{name}, forward"] = functools.partial(timed, forward, x, kernel)
        sides[f"{name}, with gradients"] = functools.partial(timed, both, x, kernel, cotangent)
    return medians(sides, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    print(f"JAX {jax.__version__}, ms: wall (all cores)")
    for side, channels in SHAPES:
        print(f"{side} to {2 * side} pixels, {channels} channels, batch {BATCH}")
        for name, seconds in measure(side, channels, options.rounds).items():
            print(f"  {name:28s} {1e3 * seconds.wall:7.1f} ({1e3 * seconds.cores:.1f})")


if __name__ == "__main__":
    choose_fusions()
    main()
