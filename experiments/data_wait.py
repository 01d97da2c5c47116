"""How long does a training step wait for its batch? CIFAR-10-sized images, a small U-Net, prefetch in the background.

python -m experiments.data_wait

Two sets of the same images: in memory, and as PNG files that are decoded when they are asked for. The wait is what the
loop spends until the batch of a step is on the device; it must be under 2 % of the step.
"""

import argparse
import dataclasses
import io
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from PIL import Image

from sdelab.cli.base_config import image_config
from sdelab.data import Batches, Dataset, Prefetch, load_dataset
from sdelab.losses import SigmaSquared, UniformTime, denoising_score_matching
from sdelab.train import init_state, make_train_step
from sdelab.train.build import build_score, build_sde, init_params
from sdelab.train.ema import ConstantDecay
from sdelab.train.optimizer import adam

LIMIT = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=32, help="of the U-Net; 32 is as small as they come")
    parser.add_argument("--threads", type=int, default=2, help="that decode PNG files; a set in memory takes one")
    arguments = parser.parse_args()
    step, carry = compiled_step(arguments.batch_size, arguments.channels)
    holds = True
    print(f"batch {arguments.batch_size}, {arguments.steps} steps, {jax.devices()[0].device_kind}, medians in ms")
    print(f"{'data':<12}{'step':>10}{'wait':>10}{'wait/step':>11}{'unprefetched':>14}")
    with tempfile.TemporaryDirectory() as folder:
        for name, dataset, threads in data_sets(Path(folder), arguments.threads):
            batches = Batches(dataset, arguments.batch_size)
            waits, steps = measure(step, carry, batches, arguments.steps, threads)
            making = statistics.median(seconds(lambda i, make=batches.batch: make(i), range(10)))
            wait, whole = statistics.median(waits), statistics.median(steps)
            holds &= wait <= LIMIT * whole
            print(f"{name:<12}{1e3 * whole:>10.1f}{1e3 * wait:>10.3f}{wait / whole:>11.2%}{1e3 * making:>14.2f}")
    print(f"limit {LIMIT:.0%}: {'holds' if holds else 'exceeded'}")
    return 0 if holds else 1


def measure(step: Any, carry: Any, batches: Batches, count: int, threads: int) -> tuple[list[float], list[float]]:
    """Seconds of each step that were spent waiting for the batch, and seconds of the step with it."""
    waits, wholes = [], []
    key = jax.random.key(1)
    with Prefetch(batches.batch, range(count + 2), place=jax.device_put, depth=4, threads=threads) as ahead:
        for number in range(count + 2):
            started, waited = time.perf_counter(), ahead.waited
            carry = step(carry, next(ahead), key)[0]
            jax.block_until_ready(carry["step"])
            if number >= 2:  # the first ones find the pipeline empty
                wholes.append(time.perf_counter() - started)
                waits.append(ahead.waited - waited)
    return waits, wholes


def seconds(function: Any, arguments: Any) -> list[float]:
    spent = []
    for argument in arguments:
        started = time.perf_counter()
        function(argument)
        spent.append(time.perf_counter() - started)
    return spent


def compiled_step(batch_size: int, channels: int) -> tuple[Any, Any]:
    """The training step of a compact U-Net on 32 x 32 x 3, and its first state."""
    config = image_config("cifar10", "VP").to_dict()
    config["model"] |= {"channels": channels, "multipliers": (1, 2, 2)}
    score = build_score(config, build_sde(config), (32, 32, 3))
    learning_rate = optax.constant_schedule(2e-4)
    optimizer = adam(learning_rate)

    def loss_fn(params: Any, keys: Any, batch: Any) -> Any:
        model = dataclasses.replace(score, params=params)
        settings = {"weighting": SigmaSquared(), "time_sampler": UniformTime(1e-5)}
        return denoising_score_matching(keys, model, score.sde, batch["x"], condition=batch["label"], **settings)

    step = make_train_step(loss_fn, optimizer, ema=ConstantDecay(0.999), learning_rate=learning_rate)
    return jax.jit(step), init_state(init_params(config, (32, 32, 3)), optimizer)


def data_sets(folder: Path, threads: int) -> Iterator[tuple[str, Dataset, int]]:
    """Random images in ten classes, in memory and as PNG files in a zip, and the threads that each takes."""
    with zipfile.ZipFile(folder / "noise.zip", "w") as archive:
        for number in range(2000):
            buffer = io.BytesIO()
            Image.fromarray(np.random.RandomState(number).randint(0, 256, (32, 32, 3)).astype(np.uint8)).save(
                buffer, "PNG"
            )
            archive.writestr(f"{number % 10}/{number:04}.png", buffer.getvalue())
    settings = {"path": str(folder / "noise.zip"), "size": 32, "held_out": 0}
    yield "in memory", load_dataset("images", **settings), 1
    yield "PNG files", load_dataset("images", **settings, memory=0.0), threads


if __name__ == "__main__":
    sys.exit(main())
