from collections.abc import Callable
from typing import Any

from flax import nnx


def run(module: Callable[..., Any], *arguments: Any) -> Any:
    """`module(*arguments)`."""
    return module(*arguments)


def run_again(module: Callable[..., Any], *arguments: Any) -> Any:
    """`module(*arguments)`; what the gradient needs of its inside is computed again in the backward pass, not kept.

    Memory for time: the forward pass runs twice. Chen et al. (2016), section 4, https://arxiv.org/abs/1604.06174.
    """
    return nnx.remat(run)(module, *arguments)
