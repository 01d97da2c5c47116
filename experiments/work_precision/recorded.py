r"""Deterministic runs of other libraries, as the fixtures hold them, in one set of coordinates.

Divided by $\alpha$, the probability flows of all affine processes are one: $y = x/\alpha$ follows that of `EDM` in the noise
level $\sigma/\alpha$. A run is therefore a start $y$ at one level, a number of evaluations, and an end $y$ at a lower level,
which may be 0.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

import sdelab

Points = Float64[np.ndarray, "batch d"]


class Run(NamedTuple):
    """One run of `library`: from `start` at `high`, the noise level, to `end` at `low`, with so many evaluations."""

    library: str
    name: str
    evaluations: int
    high: float
    start: Points
    low: float
    end: Points


class Mixture(NamedTuple):
    """The data distribution of the runs of some fixtures."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def distribution(self) -> sdelab.exact.GaussianMixture:
        return sdelab.exact.GaussianMixture(self.means, self.covariances, self.weights)


def recorded_runs(folder: Path, data: str) -> tuple[Mixture, list[Run]]:
    """The mixture `data` ("gmm2", "gmm8") and every deterministic run on it in the fixtures of `folder`.

    Errors: a fixture that is not there; fixtures of different mixtures.
    """
    runs: list[Run] = []
    mixtures = []
    for source, read in READERS.items():
        with np.load(folder / f"{source}_{data}.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        mixtures.append(Mixture(*(arrays[f"gmm_{name}"] for name in ("weights", "means", "covs"))))
        for run in read(arrays, json.loads(str(arrays["__meta__"]))["runs"]):
            runs.append(run._replace(library=source if run.library == "" else run.library))
    for mixture in mixtures:
        if not all(np.array_equal(a, b) for a, b in zip(mixture, mixtures[0], strict=True)):
            raise ValueError(f"the fixtures of {data} in {folder} are not of one mixture.")
    return mixtures[0], runs


def _edm(arrays: dict[str, np.ndarray], runs: dict[str, Any]) -> Iterator[Run]:
    for name, settings in runs.items():
        if not settings.get("S_churn"):
            levels = arrays[f"{name}/eval_sigma"]
            start = levels[0] * arrays["latents"].astype(float)
            yield Run("", name, len(levels), float(levels[0]), start, 0.0, arrays[f"{name}/final"])


def _kdiffusion(arrays: dict[str, np.ndarray], runs: dict[str, Any]) -> Iterator[Run]:
    two_stages = {"sample_heun", "sample_dpm_2"}
    for name, settings in runs.items():
        function = settings["function"]
        if int(arrays[f"{name}/n_noise"]) and (settings["kwargs"].get("s_churn") or function not in NOISE_UNUSED):
            continue
        unit, end = arrays["x_unit"].astype(float), arrays[f"{name}/final"]
        if function == "sample_dpm_fast":
            yield Run("", name, settings["kwargs"]["n"], 30.0, 30.0 * unit, 0.02, end)
            continue
        levels = arrays[f"sigmas/{settings['grid']}"]
        steps = len(levels) - 1
        evaluations = 2 * steps - 1 if function in two_stages else steps
        yield Run("", name, evaluations, float(levels[0]), levels[0] * unit, 0.0, end)


NOISE_UNUSED = {"sample_euler", "sample_heun", "sample_dpm_2"}  # they draw at every step, and scale it by 0


def _continuous_vp(arrays: dict[str, np.ndarray], runs: dict[str, Any]) -> Iterator[Run]:
    (alpha_high, high), (alpha_low, low) = (_vp_level(t) for t in (1.0, 1e-3))
    for name, settings in runs.items():
        to_data = settings.get("denoise_to_zero", False)
        end = arrays[f"{name}/final"] / (1.0 if to_data else alpha_low)
        start = arrays["x_T"].astype(float) / alpha_high
        yield Run("", name, len(arrays[f"{name}/eval_t"]), high, start, 0.0 if to_data else low, end)


def _vp_level(t: float) -> tuple[float, float]:
    sde = sdelab.VP()
    alpha, sigma = float(sde.alpha(jnp.asarray(t, float))), float(sde.sigma(jnp.asarray(t, float)))
    return alpha, sigma / alpha


def _diffusers(arrays: dict[str, np.ndarray], runs: dict[str, Any]) -> Iterator[Run]:
    first = float(arrays["alphas_cumprod"][0])  # in float32, and the runs took it as it is
    for name, settings in runs.items():
        if settings["cls"] == "DDPMScheduler" or settings["step_kwargs"].get("eta"):
            continue
        unit = arrays["x_T"].astype(float) * float(arrays[f"{name}/init_noise_sigma"])
        low = 0.0 if settings["config"].get("set_alpha_to_one", False) else float(np.sqrt(1.0 / first - 1.0))
        alpha, sigma = arrays[f"{name}/model_alpha_sigma"][0]
        high, start = sigma / alpha, unit / alpha
        if f"{name}/sigmas" in arrays:
            levels = arrays[f"{name}/sigmas"].astype(float)
            high, low = levels[0], levels[-1]
            start = unit if settings["cls"] in NOISE_LEVEL_UNITS else unit * np.sqrt(1.0 + high**2)
        end = arrays[f"{name}/final"] * (1.0 if settings["cls"] in NOISE_LEVEL_UNITS else np.sqrt(1.0 + low**2))
        yield Run("", name, int(arrays[f"{name}/eps_calls"]), float(high), start, float(low), end)


NOISE_LEVEL_UNITS = {"EulerDiscreteScheduler", "HeunDiscreteScheduler"}  # of diffusers: the state is y, not alpha y


def _azula(arrays: dict[str, np.ndarray], runs: dict[str, Any]) -> Iterator[Run]:
    stochastic = {"DDPMSampler", "ItoSampler", "PCSampler"}
    for name, settings in runs.items():
        if settings["cls"] in stochastic or settings["kwargs"].get("eta"):
            continue
        alpha, sigma = arrays[f"{name}/alpha"], arrays[f"{name}/sigma"]
        start = arrays["x_unit"].astype(float) * sigma[0] / alpha[0]
        evaluations = settings["steps"] * (2 if settings["cls"] == "HeunSampler" else 1)
        ends = float(sigma[0] / alpha[0]), float(sigma[-1] / alpha[-1])
        yield Run("", name, evaluations, ends[0], start, ends[1], arrays[f"{name}/final"] / alpha[-1])


READERS: dict[str, Callable[[dict[str, np.ndarray], dict[str, Any]], Iterator[Run]]] = {
    "kdiffusion": _kdiffusion,
    "dpm_solver": _continuous_vp,
    "diffusers": _diffusers,
    "azula": _azula,
    "unipc": _continuous_vp,
    "edm": _edm,
    "ablation": _edm,
}
