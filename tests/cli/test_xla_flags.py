"""What the commands ask of XLA is heard, and overrules nobody."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from sdelab.cli.xla_flags import BETTER_WITHOUT, NO_YNNPACK, without_ynnpack

COMPILED = """
from sdelab.cli.xla_flags import without_ynnpack
without_ynnpack()
import jax, jax.numpy as jnp
sums = jax.jit(lambda x: jax.nn.logsumexp(x, axis=1))
print("ynn" in sums.lower(jnp.ones((4096, 2))).compile().as_text())
"""


@pytest.mark.skipif(
    not importlib.metadata.version("jaxlib").startswith(BETTER_WITHOUT), reason="another jaxlib is left as it is"
)
def test_no_sum_is_left_to_the_library():
    clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], env={**clean, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("before", "version", "after"),
    [
        (None, "0.10.2", f"{NO_YNNPACK}="),
        ("--xla_dump_to=x", "0.10.2", f"--xla_dump_to=x {NO_YNNPACK}="),
        (f"{NO_YNNPACK}=LIBRARY_FUSION_TYPE_REDUCE", "0.10.0", f"{NO_YNNPACK}=LIBRARY_FUSION_TYPE_REDUCE"),
        ("--xla_dump_to=x", "0.12.0.1", "--xla_dump_to=x"),
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
        without_ynnpack()
        assert os.environ.get("XLA_FLAGS") == after
