"""What the commands ask of XLA before it starts."""

import importlib.metadata
import os

FUSIONS = "--xla_cpu_experimental_ynn_fusion_type"
PRODUCTS_AND_SUMS = "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
CHOICES = {"0.10.": "", "0.11.": PRODUCTS_AND_SUMS, "0.12.": PRODUCTS_AND_SUMS}
"""What goes to YNNPACK, by version of jaxlib. Others were not measured, and one that does not know the flag ends the process."""


def choose_fusions(fusions: str | None = None) -> None:
    """On a CPU XLA hands to YNNPACK only what gains by it, or only `fusions`: `XLA_FLAGS` says so from here on.

    As it comes, jaxlib hands over convolutions, products and sums. The training step of a U-Net is then up to twice as slow
    (experiments/train_step/README.md), so from 0.11 on convolutions stay with XLA. With 0.10
    everything does: what it hands over there can give wrong sums (https://github.com/jax-ml/jax/issues/39103).
    Nothing is changed if the variable names the flag already, or for another jaxlib; other devices do not look at it. To be
    called before JAX's first computation.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    version = importlib.metadata.version("jaxlib")
    chosen = next((value for start, value in CHOICES.items() if version.startswith(start)), None)
    if FUSIONS not in flags and chosen is not None:
        os.environ["XLA_FLAGS"] = f"{flags} {FUSIONS}={chosen if fusions is None else fusions}".lstrip()
