"""Section `loss` of a configuration, as a function `(params, keys, batch)` to per-example losses.

`name` is the objective, `denoising` unless given. Other keys choose its parts by name, each with a default, and all that is left
are arguments of the parts, as in `{"weighting": "min_snr", "gamma": 5.0, "times": "importance", "t_min": 1e-5}`:

- `weighting`: `sigma_squared`, `diffusion_squared`, `edm`, `min_snr`, `soft_min_snr`, `snr_sigmoid`;
- `times`: `uniform`, `importance`, `log_normal`, and EDM's `vp_noise` and `ve_noise`; `t_min` is for those that have one;
- `layout`: `independent`, `stratified` or `antithetic` times in a batch;
- `error` of `denoising`: `noise` or `data`; `uncertainty`: `none`, or `edm2`, a learned one;
- `divergence` of `implicit` and `sliced`: `exact` (not if sliced), `hutchinson`, `gaussian`;
- `reduction` over the dimensions of a sample: `mean`, `sum`, `half_sum`.

`discrete` is the loss of DDPM and SMLD, on the table of the preconditioner; of the parts it has the reduction.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from sdelab import losses
from sdelab._broadcast import event_size
from sdelab._checks import check_count, unknown_name
from sdelab._typing import PRNGKey
from sdelab.divergence import ExactTrace, GaussianHutchinson, Hutchinson
from sdelab.nn import LogVariance, as_function
from sdelab.score import NetworkScore
from sdelab.sde import VE, VP
from sdelab.train.construct import Section, construct, parameters_of
from sdelab.train.step import Batch, LossFn

Parts = dict[str, Any]


def vp_noise(*, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-5) -> losses.NoiseOf:
    """The noise levels of EDM's `VPLoss`."""
    return losses.NoiseOf(VP(beta_min=beta_min, beta_max=beta_max), losses.UniformTime(t_min))


def ve_noise(*, sigma_min: float = 0.02, sigma_max: float = 100.0) -> losses.NoiseOf:
    """The noise levels of EDM's `VELoss`."""
    return losses.NoiseOf(VE(sigma_min=sigma_min, sigma_max=sigma_max), losses.UniformTime(0.0))


def independent(*, distribution: losses.AbstractTimeDistribution) -> losses.AbstractTimeDistribution:
    """Times that do not know of one another."""
    return distribution


@dataclasses.dataclass(frozen=True)
class EDM2Uncertainty:
    """`sdelab.nn.LogVariance` with so many `features`, as a function `(params, c_noise) -> u`."""

    features: int = 128

    def __post_init__(self):
        check_count(features=self.features)

    def init(self, key: PRNGKey) -> Any:
        """Its parameters at the start, a nested dict."""
        return as_function(self._module(key))[1]

    def __call__(self, params: Any, c_noise: Any) -> Any:
        return as_function(nnx.eval_shape(lambda: self._module(jax.random.key(0))))[0](params, c_noise)

    def _module(self, key: PRNGKey) -> LogVariance:
        return LogVariance(features=self.features, rngs=nnx.Rngs(params=key))


def no_uncertainty() -> None:
    """The loss has no parameters of its own."""


WEIGHTINGS = {
    "diffusion_squared": losses.DiffusionSquared,
    "edm": losses.EDMWeighting,
    "min_snr": losses.MinSNR,
    "sigma_squared": losses.SigmaSquared,
    "snr_sigmoid": losses.SigmoidSNR,
    "soft_min_snr": losses.SoftMinSNR,
}
TIMES = {
    "importance": losses.ImportanceSampledTime,
    "log_normal": losses.LogNormalNoise,
    "uniform": losses.UniformTime,
    "ve_noise": ve_noise,
    "vp_noise": vp_noise,
}
LAYOUTS = {"antithetic": losses.Antithetic, "independent": independent, "stratified": losses.Stratified}
ERRORS = {"data": losses.DataError, "noise": losses.NoiseError}
UNCERTAINTIES = {"edm2": EDM2Uncertainty, "none": no_uncertainty}
DIVERGENCES = {"exact": ExactTrace, "gaussian": GaussianHutchinson, "hutchinson": Hutchinson}
REDUCTIONS = {"half_sum": losses.HalfSumReduction, "mean": losses.MeanReduction, "sum": losses.SumReduction}
LEVELS = {"score_sde_discrete_ve": losses.SMLDLevels, "score_sde_discrete_vp": losses.DDPMLevels}

TABLES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "weighting": WEIGHTINGS,
    "times": TIMES,
    "layout": LAYOUTS,
    "error": ERRORS,
    "uncertainty": UNCERTAINTIES,
    "divergence": DIVERGENCES,
    "reduction": REDUCTIONS,
}
_COMMON = {"weighting": "sigma_squared", "times": "uniform", "layout": "independent", "reduction": "mean"}
PARTS = {
    "denoising": {**_COMMON, "error": "noise", "uncertainty": "none"},
    "implicit": {**_COMMON, "divergence": "exact"},
    "sliced": {**_COMMON, "divergence": "hutchinson"},
    "discrete": {"reduction": "mean"},
}
"""The parts of each objective, with the name that each has unless another is given."""
GIVEN = ("sde", "batch_size", "distribution")
"""Arguments of parts that do not come from the section."""


@dataclasses.dataclass(frozen=True)
class BesideUncertainty:
    """The network of parameters `{"network": ..., "uncertainty": ...}`: the loss's own are trained and averaged beside them."""

    apply: Callable[..., Any]

    def __call__(self, params: Any, *args: Any, **settings: Any) -> Any:
        return self.apply(params["network"], *args, **settings)


def with_loss_parameters(
    config: Mapping[str, Any], apply: Callable[..., Any], params: Any, key: PRNGKey
) -> tuple[Any, Any]:
    """A network and its parameters, with those of the loss, drawn with `key`, beside them if it has any; as they are if not."""
    name = config["loss"].get("uncertainty", "none")
    if name not in UNCERTAINTIES:
        raise unknown_name("uncertainty", str(name), UNCERTAINTIES)
    uncertainty = _part("uncertainty", name, config["loss"], {})
    if uncertainty is None:
        return apply, params
    shapes = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params))
    initial = jax.eval_shape(uncertainty.init, key) if shapes else uncertainty.init(key)
    return BesideUncertainty(apply), {"network": params, "uncertainty": initial}


def build_loss(config: Mapping[str, Any], score: NetworkScore, *, batch_size: int, conditional: bool) -> LossFn:
    """The objective as a function `(params, keys, batch)`, of labelled batches if `conditional`; `batch_size` is the global one.

    Errors: an unknown name or key, with the closest; a value outside its domain; times that begin after the end of the process.
    """
    parts = build_parts(config["loss"], score, batch_size)
    name = config["loss"].get("name", "denoising")
    if name == "discrete":
        loss_fn = _discrete(config, score, conditional)
    else:
        loss_fn = _continuous(name, parts, score, conditional)
    return _reduced(loss_fn, parts["reduction"])


def _reduced(loss_fn: LossFn, reduction: losses.AbstractReduction) -> LossFn:
    def reduced_loss(params: Any, keys: Any, batch: Batch) -> Any:
        return reduction.factor(event_size(batch["x"].shape)) * loss_fn(params, keys, batch)

    return reduced_loss


def named_parts(settings: Section) -> dict[str, str]:
    """The name of each part of the objective, chosen or by default. Errors: an unknown objective or name, with the closest."""
    objective = settings.get("name", "denoising")
    if objective not in PARTS:
        raise unknown_name("loss", str(objective), PARTS)
    names = {kind: settings.get(kind, default) for kind, default in PARTS[objective].items()}
    for kind, name in names.items():
        if name not in TABLES[kind]:
            raise unknown_name(kind, str(name), TABLES[kind])
    return names


def arguments_of(names: Mapping[str, str]) -> dict[str, inspect.Parameter]:
    """What the named parts take from the section, by the kind of part and its name: all that the rest of the config does not say."""
    parameters = {key: p for kind, name in names.items() for key, p in parameters_of(TABLES[kind][name]).items()}
    return {key: parameter for key, parameter in parameters.items() if key not in GIVEN}


def build_parts(settings: Section, score: NetworkScore, batch_size: int) -> Parts:
    """The objects that the section names, by the kind of part. Errors: see `build_loss`."""
    names = named_parts(settings)
    given = dict(zip(GIVEN, (score.sde, batch_size, None), strict=True))
    known = {"name", "t_min", *names, *arguments_of(names)}
    for key in settings:
        if key not in known:
            raise unknown_name("key of config.loss", key, known)
    if "times" in names and "t_min" in settings:
        earliest = construct("loss", losses.UniformTime, {"t_min": settings["t_min"]}).t_min
        if earliest >= score.sde.t_max:
            raise ValueError(
                f"config.loss: t_min = {earliest} is not accepted; it must be less than t_max = {score.sde.t_max}."
            )
    parts: Parts = {}
    for kind, name in names.items():  # the layout comes after the times that it lays out
        parts[kind] = _part(kind, name, settings, given | {"distribution": parts.get("times")})
    return parts


def _part(kind: str, name: str, settings: Section, given: Mapping[str, Any]) -> Any:
    constructor = TABLES[kind][name]
    parameters = parameters_of(constructor)
    chosen = {key: value for key, value in settings.items() if key in parameters}
    return construct("loss", constructor, chosen, **{key: given[key] for key in parameters if key in given})


def _continuous(name: str, parts: Parts, score: NetworkScore, conditional: bool) -> LossFn:
    uncertainty: Any = parts.get("uncertainty")
    settings = {"weighting": parts["weighting"], "time_sampler": parts["layout"]}
    objective: Callable[..., Any] = losses.denoising_score_matching
    if name == "denoising":
        settings["error"] = parts["error"]
    elif name == "implicit":
        objective, settings["divergence"] = losses.implicit_score_matching, parts["divergence"]
    else:
        objective, settings["directions"] = losses.sliced_score_matching, parts["divergence"]

    def loss_fn(params: Any, keys: Any, batch: Batch) -> Any:
        model = dataclasses.replace(score, params=params).with_keys(keys)
        more = dict(settings)
        if uncertainty is not None:
            more["log_variance"] = lambda t: uncertainty(params["uncertainty"], model.label(t))
        condition = batch["label"] if conditional else None
        together = {"index": batch["index"], "shared_key": batch.get("step_key")}
        return objective(keys, model, score.sde, batch["x"], condition=condition, **together, **more)

    return loss_fn


def _discrete(config: Mapping[str, Any], score: NetworkScore, conditional: bool) -> LossFn:
    section = config["preconditioner"]
    if section["name"] not in LEVELS:
        raise ValueError(
            f"config.preconditioner: name = {section['name']!r} is not accepted with the discrete loss; accepted: "
            f"{', '.join(sorted(LEVELS))}, whose table it is trained on."
        )
    levels = construct("preconditioner", LEVELS[section["name"]], {k: v for k, v in section.items() if k != "name"})

    def loss_fn(params: Any, keys: Any, batch: Batch) -> Any:
        model = dataclasses.replace(score, params=params).with_keys(keys)

        def network(x: Any, label: Any, condition: Any = None) -> Any:
            return model.apply(params, x, label, condition, keys=model.keys).astype(x.dtype)

        condition = batch["label"] if conditional else None
        return losses.discrete_denoising(keys, network, levels, batch["x"], condition=condition)

    return loss_fn
