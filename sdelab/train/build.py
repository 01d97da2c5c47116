"""From a configuration, in names and numbers, to objects. Names stop here: nothing below floor 6 sees them.

A configuration is a mapping of sections. `sde`, `model`, `preconditioner`, `data` and `ema` have a `name`; their
other keys are the fields of the object so named; `augment`, which may be left out, is another of them. Section `loss`
names several objects, see `sdelab.train.objective`. Section `averages`, which may be left out, has further averages beside
`ema`, each by a name of its own. Every key is checked: an unknown one is an error with the closest.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from sdelab._checks import check_count, check_nonnegative, check_positive, unknown_name
from sdelab._typing import PRNGKey
from sdelab.data import Dataset
from sdelab.data.declared import DECLARED
from sdelab.data.registry import LOADERS
from sdelab.nn import (
    ADM,
    MLP,
    DiT,
    EDM2UNet,
    NCSNpp,
    NoPositions,
    RotaryPositions,
    SinCosPositions,
    SongUNet,
    UNet,
    as_function,
    normalize_weights,
)
from sdelab.score import (
    DataPrediction,
    EDMPreconditioner,
    IDDPMPreconditioner,
    NetworkScore,
    NoisePrediction,
    ScorePrediction,
    ScoreSDEDiscreteVE,
    ScoreSDEDiscreteVP,
    ScoreSDEVE,
    ScoreSDEVP,
    VelocityPrediction,
    VEPreconditioner,
    VPPreconditioner,
)
from sdelab.sde import EDM, VE, VP, AbstractAffineSDE, RectifiedFlow, SubVP, VEExact, VPCosine
from sdelab.train.augmented import AUGMENTATIONS, check_augmentation, with_augmentation
from sdelab.train.construct import Section
from sdelab.train.construct import construct as construct
from sdelab.train.construct import named as named
from sdelab.train.construct import parameters_of as parameters_of
from sdelab.train.ema import AbstractDecay, ConstantDecay, HalfLifeDecay, PowerDecay, WarmupDecay
from sdelab.train.ema_snapshots import MAIN, power_widths
from sdelab.train.forced_normalization import with_forced_normalization
from sdelab.train.objective import build_loss, with_loss_parameters
from sdelab.train.optimizer import adam, inverse_sqrt_decay, linear_warmup
from sdelab.train.run import Run
from sdelab.train.state import TrainState, init_state
from sdelab.train.step import Batch, LossFn, TrainStep, identity, make_train_step

SDES = {
    "EDM": EDM,
    "RectifiedFlow": RectifiedFlow,
    "SubVP": SubVP,
    "VE": VE,
    "VEExact": VEExact,
    "VP": VP,
    "VPCosine": VPCosine,
}
MODELS = {
    "adm": ADM,
    "dit": DiT,
    "edm2_unet": EDM2UNet,
    "mlp": MLP,
    "ncsnpp": NCSNpp,
    "song_unet": SongUNet,
    "unet": UNet,
}
NORMALIZED_MODELS = ("edm2_unet",)
"""Those whose weights start at unit magnitude, at which every update ends: `with_forced_normalization`."""

POSITIONS = {"none": NoPositions, "rotary": RotaryPositions, "sin_cos": SinCosPositions}
"""What a transformer knows of where its patches are, by name."""

PRECONDITIONERS = {
    "data": DataPrediction,
    "edm": EDMPreconditioner,
    "edm_ve": VEPreconditioner,
    "edm_vp": VPPreconditioner,
    "iddpm": IDDPMPreconditioner,
    "noise": NoisePrediction,
    "score": ScorePrediction,
    "score_sde_discrete_ve": ScoreSDEDiscreteVE,
    "score_sde_discrete_vp": ScoreSDEDiscreteVP,
    "score_sde_ve": ScoreSDEVE,
    "score_sde_vp": ScoreSDEVP,
    "velocity": VelocityPrediction,
}
DECAYS = {"constant": ConstantDecay, "half_life": HalfLifeDecay, "power": PowerDecay, "warmup": WarmupDecay}
_LOSS_STREAM = 2**32 - 1  # the network's parameters are drawn with the first numbers
SECTIONS = ("data", "ema", "loss", "model", "optim", "preconditioner", "run", "sde", "seed")
OPTIONAL_SECTIONS = ("augment", "averages")


@dataclasses.dataclass(frozen=True)
class Optim:
    """Section `optim`: Adam with linear warm-up and a bound on the global norm of the gradient (0: no bound).

    `decay_after`: the update from which on the rate falls as the inverse of the square root of their number (0: never).
    """

    batch_size: int = 128
    learning_rate: float = 2e-4
    warmup_steps: int = 5000
    decay_after: int = 0
    clip_norm: float = 1.0
    b1: float | int = 0.9
    b2: float | int = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        check_count(batch_size=self.batch_size)
        check_positive(learning_rate=self.learning_rate, eps=self.eps)
        check_nonnegative(clip_norm=self.clip_norm)
        for name in ("warmup_steps", "decay_after"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} = {value!r} is not accepted; {name} must be an integer >= 0.")
        for name in ("b1", "b2"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
                raise ValueError(f"{name} = {value} is not accepted; {name} must be a number in [0, 1).")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a configuration names, built. `score` has shapes in place of parameters."""

    sde: AbstractAffineSDE
    dataset: Dataset
    score: NetworkScore
    loss_fn: LossFn
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    ema: AbstractDecay
    optim: Optim
    run: Run
    averages: Mapping[str, AbstractDecay] = dataclasses.field(default_factory=dict)

    def init_state(self, params: Any) -> TrainState:
        """The state before the first update."""
        return init_state(params, self.optimizer, averages=self.averages)

    def train_step(self, mean: Callable[[Any], Any] = identity) -> TrainStep:
        """The pure step; `mean` is that of `make_train_step`."""
        return make_train_step(
            self.loss_fn,
            self.optimizer,
            ema=self.ema,
            learning_rate=self.learning_rate,
            averages=self.averages,
            mean=mean,
            pieces=self.run.pieces,
        )


def build(config: Mapping[str, Any], dataset: Dataset | None = None) -> Experiment:
    """The experiment of a configuration; `init_params` draws the network's parameters.

    `dataset` is used in the place of reading that of section `data`: `build(config, declare_dataset(config))` needs no files.
    Errors: an unknown section, name or key, a value outside its domain, a batch larger than the data set, a missing
    data file, a network that does not fit the data; each before anything is computed.
    """
    check_sections(config)
    run, optim = construct("run", Run, config["run"]), construct("optim", Optim, config["optim"])
    sde = build_sde(config)
    ema, averages = build_averages(config, optim.batch_size)
    _check_snapshots(run, {MAIN: ema, **averages})
    dataset = build_dataset(config) if dataset is None else dataset
    if optim.batch_size > len(dataset.train):
        raise ValueError(
            f"config.optim: batch_size = {optim.batch_size} is not accepted; {dataset.name} has {len(dataset.train)} "
            "training examples."
        )
    score = build_score(config, sde, dataset.event_shape)
    augmentation = named("augment", AUGMENTATIONS, config.get("augment", {"name": "none"}))
    check_augmentation(augmentation, config["model"], dataset.event_shape)
    conditional = is_conditional(config)
    loss_fn = build_loss(config, score, batch_size=optim.batch_size, conditional=conditional or augmentation.labels > 0)
    optimizer, learning_rate = build_optimizer(config)
    experiment = Experiment(
        sde=sde,
        dataset=dataset,
        score=score,
        loss_fn=with_augmentation(loss_fn, augmentation, labelled=conditional),
        optimizer=optimizer,
        learning_rate=learning_rate,
        ema=ema,
        optim=optim,
        run=run,
        averages=averages,
    )
    _check_step(experiment)
    return experiment


def build_sde(config: Mapping[str, Any]) -> AbstractAffineSDE:
    """The process of section `sde`."""
    return named("sde", SDES, config["sde"])


def build_dataset(config: Mapping[str, Any]) -> Dataset:
    """The data set of section `data`. Errors: none in the section; a model of more or fewer classes than the set has."""
    return _suited(named("data", LOADERS, _data_section(config)), config)


def declare_dataset(config: Mapping[str, Any]) -> Dataset:
    """As `build_dataset`, by what is known of the set before it is read: shapes, labels and scaling, without samples.

    A set that has as many classes as its files say has those of the model here.
    """
    classes = config["model"].get("classes", 0)
    return _suited(named("data", DECLARED, _data_section(config), classes=classes), config)


def _data_section(config: Mapping[str, Any]) -> Section:
    if not config["data"]:
        raise ValueError("config.data lacks a name: this run has no data set (`sdelab import --data` gives it one).")
    return config["data"]


def _suited(dataset: Dataset, config: Mapping[str, Any]) -> Dataset:
    classes = config["model"].get("classes", 0)
    if classes not in (0, dataset.classes):
        raise ValueError(
            f"config.model: classes = {classes} is not accepted; {dataset.name} has {dataset.classes} classes, and 0 "
            "is a network without labels."
        )
    return dataset


def build_score(config: Mapping[str, Any], sde: AbstractAffineSDE, event_shape: tuple[int, ...]) -> NetworkScore:
    """The network of section `model` for events of the given shape, as a score with shapes in place of parameters."""
    preconditioner = named("preconditioner", PRECONDITIONERS, config["preconditioner"])
    key = jax.random.key(0)  # nothing is drawn
    model = nnx.eval_shape(lambda: build_model(config, event_shape, key))
    return NetworkScore(sde, preconditioner, *with_loss_parameters(config, *as_function(model), key))


def build_optimizer(config: Mapping[str, Any]) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser of section `optim`, and its learning rate."""
    optim = construct("optim", Optim, config["optim"])
    clip = optax.clip_by_global_norm(optim.clip_norm) if optim.clip_norm > 0 else optax.identity()
    learning_rate = linear_warmup(optim.learning_rate, optim.warmup_steps)
    if optim.decay_after:
        learning_rate = inverse_sqrt_decay(learning_rate, optim.decay_after)
    optimizer = adam(learning_rate, b1=float(optim.b1), b2=float(optim.b2), eps=optim.eps, clip=clip)
    if _is_normalized(config):
        optimizer = with_forced_normalization(optimizer)
    return optimizer, learning_rate


def _is_normalized(config: Mapping[str, Any]) -> bool:
    """Whether it has layers of EDM2, in the network or in the loss: theirs are the leaves that forced normalisation takes."""
    return config["model"].get("name") in NORMALIZED_MODELS or config["loss"].get("uncertainty") == "edm2"


def init_params(config: Mapping[str, Any], event_shape: tuple[int, ...]) -> Any:
    """The initial parameters, of the network drawn from the config's seed, and of the loss if it has any."""

    def init(key: PRNGKey) -> Any:
        network = as_function(build_model(config, event_shape, key))
        params = with_loss_parameters(config, *network, jax.random.fold_in(key, _LOSS_STREAM))[1]
        return normalize_weights(params) if _is_normalized(config) else params

    return jax.jit(init)(jax.random.fold_in(jax.random.key(config["seed"]), 0))


def build_averages(config: Mapping[str, Any], batch_size: int) -> tuple[AbstractDecay, dict[str, AbstractDecay]]:
    """The rule of the main average, section `ema`, and those of the further ones, by their names."""

    def decay(section: str, settings: Section) -> AbstractDecay:
        takes_images = settings.get("name") == "half_life"  # the one rule that counts in images
        return named(section, DECAYS, settings, **({"batch_size": batch_size} if takes_images else {}))

    further = dict(config.get("averages", {}))
    for name in further:
        if name == MAIN or not name.isidentifier():
            raise ValueError(
                f"config.averages: the name {name!r} is not accepted; a name is letters, digits and _, and not {MAIN!r}."
            )
    return decay("ema", config["ema"]), {name: decay(f"averages.{name}", s) for name, s in further.items()}


def is_conditional(config: Mapping[str, Any]) -> bool:
    """Whether the network takes a label."""
    return config["model"].get("classes", 0) > 0


def build_model(config: Mapping[str, Any], event_shape: tuple[int, ...], key: PRNGKey) -> nnx.Module:
    """The model, given what its constructor asks of the data: the channels and side of an image, the dimension of a point."""
    *sides, channels = event_shape
    size = sides[0] if len(set(sides)) == 1 else tuple(sides)
    known = {"dim": channels, "image_channels": channels, "image_size": size, "dims": len(sides)}
    parameters = parameters_of(MODELS[name]) if (name := config["model"].get("name")) in MODELS else {}
    given = {key: value for key, value in known.items() if key in parameters}
    settings = dict(config["model"])
    if "positions" in settings and "positions" in parameters:
        if (positions := settings.pop("positions")) not in POSITIONS:
            raise unknown_name("positions", str(positions), POSITIONS)
        given["positions"] = POSITIONS[positions]()
    return named("model", MODELS, settings, **given, rngs=nnx.Rngs(params=key))


def _check_snapshots(run: Run, averages: Mapping[str, AbstractDecay]) -> None:
    if run.snapshot_every and not power_widths(averages):
        raise ValueError(
            f"config.run: snapshot_every = {run.snapshot_every} is not accepted without an average whose name is 'power', in "
            "ema or averages: others cannot be turned into one another."
        )


def _check_step(experiment: Experiment) -> None:
    """Traces one training step on shapes: what does not fit together fails here, and not when files have been made."""
    batch = batch_shapes(experiment.optim.batch_size, experiment.dataset.event_shape)
    state = jax.eval_shape(experiment.init_state, experiment.score.params)
    jax.eval_shape(experiment.train_step(), state, batch, jax.random.key(0))


def batch_shapes(size: int, event_shape: tuple[int, ...]) -> Batch:
    """Shapes and dtypes of a batch, as `sdelab.data.Batches` makes them."""
    return {
        "x": jax.ShapeDtypeStruct((size, *event_shape), jnp.float32),
        "label": jax.ShapeDtypeStruct((size,), jnp.int32),
        "index": jax.ShapeDtypeStruct((size,), jnp.int32),
    }


def check_sections(config: Mapping[str, Any]) -> None:
    """All sections are there, and no other. Errors: see `build`."""
    for name in config:
        if name not in (*SECTIONS, *OPTIONAL_SECTIONS):
            raise unknown_name("config section", name, (*SECTIONS, *OPTIONAL_SECTIONS))
    missing = [name for name in SECTIONS if name not in config]
    if missing:
        raise ValueError(f"the config lacks {', '.join(missing)}; a config has the sections {', '.join(SECTIONS)}.")
    seed = config["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed = {seed!r} is not accepted; seed must be an integer in [0, 2^32).")
