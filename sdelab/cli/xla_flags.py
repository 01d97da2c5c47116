"""What the commands ask of XLA before it starts."""

import importlib.metadata
import os

NO_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"
KNOWN_TO = ("0.10.", "0.11.", "0.12.")
"""Versions of jaxlib that were seen to know the flag: one that does not ends the process."""


def without_ynnpack() -> None:
    """On a CPU XLA is to keep sums and convolutions, and what is around them, to itself: `XLA_FLAGS` says so from here on.

    With YNNPACK, to which jaxlib hands them as it comes, a training step of a U-Net takes up to twice as long, sums over axes of
    two or three entries 13 to 40 times, and long sums of jaxlib 0.10.2 are wrong (https://github.com/jax-ml/jax/issues/39103).
    Nothing is changed if the variable names the flag already, or for a jaxlib that is not known to have it; other devices do not
    look at it. To be called before JAX's first computation.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if NO_YNNPACK not in flags and importlib.metadata.version("jaxlib").startswith(KNOWN_TO):
        os.environ["XLA_FLAGS"] = f"{flags} {NO_YNNPACK}=".lstrip()
