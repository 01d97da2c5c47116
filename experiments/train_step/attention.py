"""Attention on a GPU in bfloat16: cuDNN's flash attention, as our networks call it, against the formula by XLA.

    python -m experiments.train_step.attention [--output attention.json]

For the attention of DDPM++ (one head), of ADM (heads of 64) and of transformers at 1024 and 4096 tokens: the errors of output
and gradients against the formula in float32, relative in norm, from the same rounded inputs; the error of a derivative in forward
mode; whether the compiled gradient calls cuDNN; and the times of both. The exit status is 0 if cuDNN is called everywhere and errs
at most twice as much as XLA; 2 without a GPU, where there is nothing to check.
"""

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sdelab.nn.attention import has_cuda, takes_flash_attention
from sdelab.nn.flash_attention import flash_attention, formula

CASES = {
    "ADM, 16 x 16, 4 heads of 64": (128, 256, 4, 64),
    "1024 tokens, 16 heads of 64": (16, 1024, 16, 64),
    "4096 tokens, 16 heads of 64": (4, 4096, 16, 64),
    "DDPM++, 16 x 16, one head of 256": (128, 256, 1, 256),
}
CALL = "__cudnn$fmha"
FACTOR = 2.0
Way = Callable[..., Any]


class Result(NamedTuple):
    """Of one way: relative errors of output, gradients and forward mode; seconds of a forward pass, and with its backward
    pass; whether the compiled programs of the two call cuDNN."""

    output: float
    gradient: float
    tangent: float
    forward: float
    both: float
    fused: tuple[bool, bool]


def forward(way: Way, parts: Any, weights: Any) -> Any:
    return way(*parts)


def gradient(way: Way, parts: Any, weights: Any) -> Any:
    return jax.grad(lambda parts: jnp.sum(way(*parts).astype(jnp.float32) * weights))(parts)


def tangent(way: Way, parts: Any, weights: Any) -> Any:
    return jax.jvp(way, tuple(parts), tuple(part[::-1] for part in parts))[1]


FUNCTIONS = (forward, gradient, tangent)


def check(shape: tuple[int, ...], ways: dict[str, Way], runs: int = 20) -> dict[str, Result]:
    """All ways on the same inputs."""
    key_parts, key_weights = jax.random.split(jax.random.key(0))
    parts = list(jax.random.normal(key_parts, (3, *shape), jnp.bfloat16))
    weights = jax.random.normal(key_weights, shape)
    wide = [part.astype(jnp.float32) for part in parts]
    with jax.default_matmul_precision("highest"):
        exact = [compiled(function, formula, wide, weights)(wide, weights) for function in FUNCTIONS]
    return {name: result(way, parts, weights, exact, runs) for name, way in ways.items()}


def result(way: Way, parts: Any, weights: Any, exact: list[Any], runs: int) -> Result:
    programs = [compiled(f, way, parts, weights) for f in FUNCTIONS]
    errors = [error(program(parts, weights), e) for program, e in zip(programs, exact, strict=True)]
    times = [seconds(lambda p=program: p(parts, weights), runs) for program in programs[:2]]
    called = [CALL in (program.as_text() or "") for program in programs[:2]]
    return Result(*errors, *times, (called[0], called[1]))


def compiled(function: Callable[..., Any], way: Way, parts: Any, weights: Any) -> Any:
    with jax.numpy_dtype_promotion("standard"):
        return jax.jit(functools.partial(function, way)).lower(parts, weights).compile()


def error(found: Any, exact: Any) -> float:
    """Largest over the arrays, of the norms' ratio."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True)
    return max(float(jnp.linalg.norm(f.astype(jnp.float32) - e) / jnp.linalg.norm(e)) for f, e in pairs)


def seconds(call: Callable[[], Any], runs: int) -> float:
    """Of one call among `runs` that are waited for together; the fastest of three times."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(runs - 1):
            call()
        jax.block_until_ready(call())
        best = min(best, (time.perf_counter() - start) / runs)
    return best


def holds(results: dict[str, Result]) -> bool:
    """cuDNN is called, forwards and backwards, and errs hardly more than XLA."""
    cudnn, xla = results["cuDNN"], results["XLA"]
    return all(cudnn.fused) and all(c <= FACTOR * x for c, x in zip(cudnn[:3], xla[:3], strict=True))


def line(name: str, results: dict[str, Result]) -> str:
    rows = [name + ("" if holds(results) else ": DOES NOT HOLD")]
    for way, r in results.items():
        rows.append(
            f"  {way:<6} errors {r.output:.1e} {r.gradient:.1e} {r.tangent:.1e}   "
            f"forward {1e3 * r.forward:.3f} ms, with backward {1e3 * r.both:.3f} ms   calls cuDNN: {r.fused}"
        )
    cudnn, xla = results["cuDNN"], results["XLA"]
    rows.append(f"  XLA takes {xla.forward / cudnn.forward:.2f} and {xla.both / cudnn.both:.2f} times as long")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m experiments.train_step.attention", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args(arguments)
    if not has_cuda():
        print("no GPU: nothing was checked.")
        return 2
    print(f"{jax.devices()[0].device_kind}; errors of output, gradients, forward mode")
    found: dict[str, dict[str, Result]] = {}
    for case, shape in CASES.items():
        chosen = takes_flash_attention(shape, jnp.bfloat16)
        name = case if chosen else f"{case} (XLA's in our networks)"
        try:
            found[case] = check(shape, {"cuDNN": flash_attention, "XLA": formula})
        except (ValueError, RuntimeError) as reason:
            if chosen:
                raise
            print(f"{name}: not for this GPU's cuDNN ({str(reason).splitlines()[0]})")
            continue
        print(line(name, found[case]), flush=True)
        if options.output:
            numbers = {which: {way: r._asdict() for way, r in results.items()} for which, results in found.items()}
            options.output.write_text(json.dumps(numbers, indent=2) + "\n")
    return 0 if found and all(map(holds, found.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
