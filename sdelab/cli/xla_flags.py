"""What the commands ask of XLA before it starts."""

import importlib.metadata
import os

NO_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"
BETTER_WITHOUT = "0.10."
"""Versions of jaxlib where the flag was measured to be a gain. One that does not know it ends the process."""


def without_ynnpack() -> None:
    """On a CPU XLA is to keep sums, and what is around them, to itself: `XLA_FLAGS` says so from here on.

    With YNNPACK, to which jaxlib 0.10.2 hands them as it comes, a training step of a U-Net takes a third longer, sums over axes of
    two or three entries 13 to 40 times as long, and long sums are wrong (https://github.com/jax-ml/jax/issues/39103).
    Nothing is changed if the variable names the flag already, or for another jaxlib; other devices do not look at it. To be
    called before JAX's first computation.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if NO_YNNPACK not in flags and importlib.metadata.version("jaxlib").startswith(BETTER_WITHOUT):
        os.environ["XLA_FLAGS"] = f"{flags} {NO_YNNPACK}=".lstrip()
