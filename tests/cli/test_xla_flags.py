"""What the commands ask of XLA is heard, and overrules nobody."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from sdelab.cli.xla_flags import CHOICES, FUSIONS, PRODUCTS_AND_SUMS, choose_fusions

COMPILED = """
from sdelab.cli.xla_flags import choose_fusions
choose_fusions()
import jax, jax.numpy as jnp
from jax.lax import conv
def handed_over(f, *arguments):
    return "ynn" in jax.jit(f).lower(*arguments).compile().as_text()
sums = handed_over(lambda x: jax.nn.logsumexp(x, axis=1), jnp.ones((4096, 2)))
images, kernel = jnp.ones((16, 64, 32, 32)), jnp.ones((64, 64, 3, 3))
gradient = jax.grad(lambda kernel: jnp.sum(conv(images, kernel, (1, 1), "SAME") ** 2))
print(sums, handed_over(gradient, kernel))
"""
VERSION = importlib.metadata.version("jaxlib")


@pytest.mark.skipif(not VERSION.startswith(tuple(CHOICES)), reason="another jaxlib is left as it is")
def test_convolutions_stay_with_xla_and_where_sums_can_be_wrong_they_do_too():
    clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], env={**clean, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False" if VERSION.startswith("0.10.") else "True", "False"]


@pytest.mark.parametrize(
    ("before", "version", "after"),
    [
        (None, "0.10.2", f"{FUSIONS}="),
        ("--xla_dump_to=x", "0.10.2", f"--xla_dump_to=x {FUSIONS}="),
        (f"{FUSIONS}=LIBRARY_FUSION_TYPE_REDUCE", "0.10.0", f"{FUSIONS}=LIBRARY_FUSION_TYPE_REDUCE"),
        ("--xla_dump_to=x", "0.12.0.1", f"--xla_dump_to=x {FUSIONS}={PRODUCTS_AND_SUMS}"),
        (f"{FUSIONS}=", "0.11.2", f"{FUSIONS}="),
        ("--xla_dump_to=x", "0.13.0", "--xla_dump_to=x"),
        (None, "1.0.10", None),
    ],
)
def test_what_was_said_before_stays(monkeypatch, before, version, after):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    if before is None:
        monkeypatch.setenv("XLA_FLAGS", "")  # so that it is restored
        monkeypatch.delenv("XLA_FLAGS")
    else:
        monkeypatch.setenv("XLA_FLAGS", before)
    for _ in range(2):
        choose_fusions()
        assert os.environ.get("XLA_FLAGS") == after


def test_an_experiment_may_choose_for_itself(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.12.0.1")
    monkeypatch.setenv("XLA_FLAGS", "")
    choose_fusions("")
    assert os.environ["XLA_FLAGS"] == f"{FUSIONS}="
    choose_fusions()
    assert os.environ["XLA_FLAGS"] == f"{FUSIONS}="
