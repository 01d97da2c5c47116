r"""From one prediction to another: noise, data, velocity, score, or the raw output of any preconditioned network."""

from jaxtyping import Array, Float

from sdelab._broadcast import expand_right
from sdelab._typing import State, Time
from sdelab.score.preconditioning import AbstractPreconditioner
from sdelab.sde import AbstractAffineSDE


def convert(
    prediction: State,
    x: State,
    t: Time,
    sde: AbstractAffineSDE,
    *,
    source: AbstractPreconditioner,
    target: AbstractPreconditioner,
) -> State:
    r"""What `target` predicts where `source` predicts `prediction`, both at the state `x` and time `t`, of its shape.

    `convert(v, x, t, sde, source=VelocityPrediction(), target=NoisePrediction())` is the noise that a velocity stands
    for. Only what the two predict counts, not how they scale the network's input. $p x + q F$, see `conversion`: no
    difference of nearly equal numbers is taken but the one that the question is made of. So the error is that of
    rounding $p x$ and $q F$ in the precision of `x`; where these cancel (data from noise at much noise, noise from
    data at little), the prediction itself has not more digits.

    `t` is a scalar or one time per sample, with $\sigma(t) > 0$: at $\sigma = 0$ not every prediction determines the others.
    """
    alpha, sigma = (expand_right(value, x).astype(x.dtype) for value in (sde.alpha(t), sde.sigma(t)))
    p, q = conversion(alpha, sigma, source=source, target=target)
    return p * x + q * prediction


def conversion(
    alpha: Float[Array, "..."],
    sigma: Float[Array, "..."],
    *,
    source: AbstractPreconditioner,
    target: AbstractPreconditioner,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""$p, q$ with $F' = p x + q F$ for the predictions $F$ of `source` and $F'$ of `target` at one state.

    $D$ and $\epsilon$ are linear in $x$ and $F$ for both. Solving for $F'$ with $\alpha D + \sigma\epsilon = x$ gives
    $F' = \sigma (n'_{skip} D - c'_{skip} \epsilon)/c'_{out}$, hence
    $p = \sigma (n'_{skip} c_{skip} - c'_{skip} n_{skip})/c'_{out}$ and $q = c_{out}/c'_{out}$.
    Of the four usual predictions only one of the two products in $p$ is not zero.
    """
    out = target.c_out(alpha, sigma)
    cross = target.n_skip(alpha, sigma) * source.c_skip(alpha, sigma) - target.c_skip(alpha, sigma) * source.n_skip(
        alpha, sigma
    )
    return sigma / out * cross, source.c_out(alpha, sigma) / out
