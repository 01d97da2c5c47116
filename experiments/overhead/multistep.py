r"""What multistep methods multiply states and predictions by, from their papers, on a grid of `VP`."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.overhead.rivals import (
    Corrected,
    Kernel,
    Multistep,
    Staged,
    kernel_at_level,
)
from experiments.overhead.singlestep import fresh_noise


def dpm_solver_plus_plus_2m(at: Kernel) -> Multistep:
    """Lu et al. (2022), algorithm 2, https://arxiv.org/abs/2211.01095."""
    a, b = at[:-1], at[1:]
    h = b.level - a.level
    half = 0.5 * np.append(0.0, h[1:] / h[:-1])
    scale = -b.alpha * np.expm1(-h)
    return Multistep(a.t, b.sigma / a.sigma, np.stack([scale * (1.0 + half), -scale * half], axis=1))


def dpm_solver_2m(at: Kernel) -> Multistep:
    """The same in the predicted noise."""
    a, b = at[:-1], at[1:]
    h = b.level - a.level
    half = 0.5 * np.append(0.0, h[1:] / h[:-1])
    scale = -b.sigma * np.expm1(h)
    return Multistep(a.t, b.alpha / a.alpha, np.stack([scale * (1.0 + half), -scale * half], axis=1))


class Exact(NamedTuple):
    """The exact solution with predicted data (sign -1) or noise (+1), whose integral takes polynomials in `variable`.

    Lu et al. (2022), proposition 4.1, https://arxiv.org/abs/2211.01095 and 3.1, https://arxiv.org/abs/2206.00927.
    """

    sign: float
    variable: Callable[[Kernel], np.ndarray] = lambda at: at.level

    def weights(self, start: float, end: float, nodes: Kernel) -> tuple[float, np.ndarray]:
        """The factor of the state, and the weights of the predictions made at `nodes`, by Gauss–Legendre quadrature."""
        a, b = kernel_at_level(np.array(start)), kernel_at_level(np.array(end))
        points, measure = np.polynomial.legendre.leggauss(24)
        level = start + (end - start) * 0.5 * (1.0 + points)
        density = 0.5 * (end - start) * measure * np.exp(self.sign * (end - level))
        places, known = self.variable(kernel_at_level(level)), self.variable(nodes)
        lagrange = [
            np.prod([(places - other) / (node - other) for other in np.delete(known, j)], axis=0)
            for j, node in enumerate(known)
        ]
        factor, scale = (b.sigma / a.sigma, b.alpha) if self.sign < 0 else (b.alpha / a.alpha, -b.sigma)
        return float(factor), scale * np.array([np.sum(density * value) for value in lagrange])


def adams_bashforth(exact: Exact, order: int) -> Callable[[Kernel], Multistep]:
    """Exponential Adams–Bashforth. Hochbruck and Ostermann (2010), section 2.5,
    https://doi.org/10.1017/S0962492910000048; in other variables DEIS, Zhang and Chen (2022), https://arxiv.org/abs/2204.13902."""

    def numbers(at: Kernel) -> Multistep:
        n = len(at.t) - 1
        a, b = np.zeros(n), np.zeros((n, order))
        for i in range(n):
            past = at[[i - j for j in range(min(order, i + 1))]]
            a[i], weights = exact.weights(at.level[i], at.level[i + 1], past)
            b[i, : len(weights)] = weights
        return Multistep(at.t[:-1], a, b)

    return numbers


def runge_kutta_start(
    sign: float, inserted: tuple[int, ...], low_order: Callable[[Kernel], Multistep]
) -> Callable[[Kernel], list[Staged]]:
    """The first steps of a multistep method: `inserted` predictions in each, at 2/3 of the step in level or at 1/3 and 2/3.

    Where none is inserted the step is one of `low_order`.
    """
    exact = Exact(sign)

    def start(at: Kernel) -> list[Staged]:
        found = []
        for i, count in enumerate(inserted):
            if not count:
                row = low_order(at[: i + 2])
                found.append(Staged(row.t[i:], row.a[i:], row.b[i:, : i + 1]))
                continue
            level, h = at.level[i], at.level[i + 1] - at.level[i]
            shares, known = [1 / 3, 2 / 3][-count:], at.level[: i + 1][::-1]
            a, b = np.zeros(count + 1), np.zeros((count + 1, i + 1 + count))
            for s, share in enumerate([*shares, 1.0]):  # each on the known predictions, and on the last inserted one
                last = [i + s] if s else []
                nodes = kernel_at_level(np.append(known, [level + shares[s - 1] * h for _ in last]))
                a[s], b[s, [*range(i + 1), *last]] = exact.weights(level, level + share * h, nodes)
            t = kernel_at_level(np.append(level, [level + share * h for share in shares])).t
            found.append(Staged(t, a, b))
        return found

    return start


def uni_pc(order: int) -> Callable[[Kernel], Corrected]:
    """UniPC with B_2, data prediction. Zhao et al. (2023), algorithms 1 and 2, https://arxiv.org/abs/2302.04867."""
    exact = Exact(-1.0)

    def halved(start: float, end: float, other: float) -> tuple[float, list[float]]:
        """The published weights of second order: 1/2 stands for a coefficient of the exact ones."""
        factor, (whole,) = exact.weights(start, end, kernel_at_level(np.array([start])))
        slope = 0.5 * whole * (end - start) / (other - start)
        return factor, [whole - slope, slope]

    def numbers(at: Kernel) -> Corrected:
        n = len(at.t) - 1
        a, b, c_a, c = np.zeros(n), np.zeros((n, order)), np.zeros(n), np.zeros((n, order + 1))
        for i, level in enumerate(at.level[:-1]):
            past = [i - j for j in range(min(order, i + 1))]
            if len(past) == 2:
                a[i], b[i, :2] = halved(level, at.level[i + 1], at.level[i - 1])
            else:
                a[i], b[i, : len(past)] = exact.weights(level, at.level[i + 1], at[past])
            if i == 0:
                continue
            through = [i - j for j in range(min(order, i) + 1)]
            if len(through) == 2:
                c_a[i], (c[i, 1], c[i, 0]) = halved(at.level[i - 1], level, level)
            else:
                c_a[i], c[i, : len(through)] = exact.weights(at.level[i - 1], level, at[through])
        return Corrected(at.t[:-1], a, b, c_a, c)

    return numbers


def sde_dpm_solver_plus_plus_2m(at: Kernel) -> Multistep:
    """The same section."""
    a, b = at[:-1], at[1:]
    h = b.level - a.level
    half = 0.5 * np.append(0.0, h[1:] / h[:-1])
    scale = -b.alpha * np.expm1(-2.0 * h)
    weights = np.stack([scale * (1.0 + half), -scale * half], axis=1)
    return Multistep(a.t, b.sigma / a.sigma * np.exp(-h), weights, fresh_noise(b, h))


IN_DATA, IN_NOISE = Exact(-1.0), Exact(1.0)
IN_TIME, IN_RATIO = Exact(1.0, lambda at: at.t), Exact(1.0, lambda at: at.sigma / at.alpha)
