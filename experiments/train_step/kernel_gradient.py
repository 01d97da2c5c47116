"""Ways to the gradient of a 3 x 3 convolution in its kernel, on the shapes of DDPM++: GFLOP/s of a core.

    python -m experiments.train_step.kernel_gradient [--runs 5]

`convolution` is what JAX's derivative of the convolution is, images as channels and channels as images. The others are
sums of matrix products: `shifts`, one for each entry of the kernel; `rows`, one for each row, over patches of three; `patches`,
one product over patches of nine; `by image`, the same for one image after the other. `forward` and `input` are the convolution
and its gradient in the image. Time is that of all cores together, the least of the runs.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from sdelab.cli.xla_flags import choose_fusions
from sdelab.nn.convolution import convolve, same

SHAPES = ((32, 32, 32), (32, 96, 32), (16, 64, 64), (32, 64, 64), (16, 128, 128))
BATCH = 16


def convolution(x: Array, kernel: Array) -> Array:
    return convolve(x, kernel, padding=same(3, 2))


def windows(x: Array, rows: int, columns: int) -> Array:
    """The channels of `rows` x `columns` neighbours, side by side; `x` has a border for the other axis."""
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    near = [x[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    return jnp.concatenate(near, axis=-1)


def product(x: Array, g: Array) -> Array:
    return x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])


def bordered(x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def shifts(x: Array, g: Array) -> Array:
    (_, height, width, _), x = x.shape, bordered(x)
    return jnp.concatenate([product(x[:, i : i + height, j : j + width], g) for i in range(3) for j in range(3)])


def rows(x: Array, g: Array) -> Array:
    height, near = x.shape[1], windows(bordered(x), 1, 3)
    return jnp.concatenate([product(near[:, i : i + height], g) for i in range(3)])


def patches(x: Array, g: Array) -> Array:
    return product(windows(bordered(x), 3, 3), g)


def by_image(x: Array, g: Array) -> Array:
    def add(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        return total + patches(*(image[None] for image in pair)), None

    return jax.lax.scan(add, jnp.zeros((9 * x.shape[-1], g.shape[-1])), (x, g))[0]


def core_seconds(function: Callable[..., Any], *arguments: Any, runs: int) -> float:
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    taken = []
    for _ in range(runs):
        start = time.process_time()
        jax.block_until_ready(compiled(*arguments))
        taken.append(time.process_time() - start)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    ways = {"shifts": shifts, "rows": rows, "patches": patches, "by image": by_image}
    print(f"{'side, in, out':<16}" + "".join(f"{name:>13}" for name in ("forward", "input", "convolution", *ways)))
    for side, inside, outside in SHAPES:
        x, g, kernel = (
            jax.random.normal(jax.random.key(i), shape)
            for i, shape in enumerate(
                [(BATCH, side, side, inside), (BATCH, side, side, outside), (3, 3, inside, outside)]
            )
        )
        seconds = [
            core_seconds(convolution, x, kernel, runs=runs),
            core_seconds(lambda x, k, g: jax.vjp(lambda x: convolution(x, k), x)[1](g), x, kernel, g, runs=runs),
            core_seconds(lambda k, x, g: jax.vjp(lambda k: convolution(x, k), k)[1](g), kernel, x, g, runs=runs),
            *(core_seconds(way, x, g, runs=runs) for way in ways.values()),
        ]
        work = 2e-9 * BATCH * side**2 * 9 * inside * outside
        print(f"{f'{side}, {inside}, {outside}':<16}" + "".join(f"{work / taken:>13.0f}" for taken in seconds))


if __name__ == "__main__":
    choose_fusions()
    main()
