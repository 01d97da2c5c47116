"""What the doctor computes against closed forms, and what it says of configurations that are known to be well or ill."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import VE, VP, SubVP, VPCosine
from sdelab.cli.main import run
from sdelab.data import Dataset, GreyLevels, Unscaled
from sdelab.evaluate.doctor import BAD, OK, WARN, Examination, bounded, examine, measured, prior_mismatch
from sdelab.evaluate.doctor.schedule import is_variance_preserving, kernel_at, levels_at, rates_at, time_at


def dataset(x, scaling=None):
    return Dataset("x", x, x[:1], scaling or Unscaled())


def points(*values):
    return dataset(np.asarray(values, np.float32).reshape(len(values), -1))


@pytest.mark.parametrize("shape", [(400, 3), (4, 6)], ids=["more samples", "more dimensions"])
def test_the_lower_bound_is_the_divergence_of_gaussians(shape):
    """Of the Gaussian with the moments of the samples, by the formula with matrices."""
    random = np.random.RandomState(0)
    x = (random.normal(size=shape) @ random.normal(size=(shape[1], shape[1])) + 0.5).astype(np.float32)
    alpha, sigma, std = 0.3, 0.9, 1.1
    mean, covariance = alpha * x.mean(0), alpha**2 * np.cov(x.T, bias=True) + sigma**2 * np.eye(shape[1])
    expected = 0.5 * (np.trace(covariance) + mean @ mean) / std**2 - 0.5 * shape[1]
    expected -= 0.5 * np.linalg.slogdet(covariance / std**2)[1]
    lower, upper = prior_mismatch(alpha, sigma, std, measured(dataset(x)))
    assert lower == pytest.approx(expected, rel=1e-5)
    assert lower < upper


def test_the_divergence_lies_between_its_bounds():
    """Of two points under a wide kernel, by quadrature."""
    alpha, sigma, std = 0.8, 0.9, 1.0
    x = np.linspace(-12.0, 12.0, 20_001)
    p = sum(np.exp(-0.5 * ((x - alpha * m) / sigma) ** 2) for m in (-1.0, 1.0)) / (2 * sigma * math.sqrt(2 * math.pi))
    log_prior = -0.5 * (x / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))
    exact = np.trapezoid(p * (np.log(p) - log_prior), x)
    lower, upper = prior_mismatch(alpha, sigma, std, measured(points(-1.0, 1.0)))
    assert lower < exact < upper


def test_one_point_leaves_nothing_between_the_bounds():
    """The kernel is the process then; a mismatch of 1e-12 has its digits."""
    lower, upper = prior_mismatch(0.5, 0.8, 1.0, measured(points(2.0, 2.0)))
    assert lower == pytest.approx(upper) == pytest.approx(0.5 * (0.64 + 1.0 - 1.0 - math.log(0.64)))
    tiny, _ = prior_mismatch(0.0, math.sqrt(1.0 + 1e-6), 1.0, measured(points(2.0, 2.0)))
    assert tiny == pytest.approx(0.25e-12, rel=1e-4)


def test_measures_are_those_of_all_pairs_and_places():
    x = np.random.RandomState(1).normal(size=(50, 4)).astype(np.float32)
    found = measured(dataset(x))
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
    assert found.diameter == pytest.approx(distances.max(), rel=1e-6)
    assert found.std == pytest.approx(math.sqrt(x.var(axis=0).mean()), rel=1e-6)
    assert found.mean_square == pytest.approx(np.mean(x.astype(np.float64) ** 2))
    few = measured(dataset(x), count=10)
    assert few.samples == 10
    assert few.diameter <= found.diameter


def test_bounds_without_the_images_hold_for_the_worst_of_them():
    scaling = GreyLevels(256, -1.0, 1.0)
    worst = np.stack([np.zeros((4, 4, 1), np.uint8), np.full((4, 4, 1), 255, np.uint8)])
    most, found = bounded(dataset(worst, scaling)), measured(dataset(worst, scaling))
    assert found.diameter < most.diameter < 1.01 * found.diameter
    assert found.mean_square < most.mean_square < 1.01 * found.mean_square
    assert most.grain == found.grain
    with pytest.raises(ValueError, match="no scale before it is read"):
        bounded(points(1.0, 2.0))


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE(), VPCosine()], ids=lambda sde: type(sde).__name__)
def test_a_schedule_in_plain_numbers_is_that_of_the_process(sde):
    alpha, sigma = kernel_at(sde, 0.3)
    assert levels_at(sde, 0.3) == pytest.approx(sigma / alpha)
    assert time_at(sde, sigma / alpha) == pytest.approx(0.3, rel=1e-6)
    assert time_at(sde, 1e9) == sde.t_max
    # the drift is -1/2 beta x
    drift = sde.drift(jnp.ones((1, 1)), jnp.asarray(0.3))
    assert rates_at(sde, 0.3)[0] == pytest.approx(-2.0 * float(drift[0, 0]), rel=1e-5)
    assert is_variance_preserving(sde) == isinstance(sde, (VP, VPCosine))


def images(low=-1.0, high=1.0):
    pixels = np.random.RandomState(0).randint(0, 256, (200, 8, 8, 1)).astype(np.uint8)
    return measured(dataset(pixels, GreyLevels(256, low, high)))


def verdicts(**changes):
    case = dataclasses.replace(Examination(VP(), images(), data_std=0.58), **changes)
    return {finding.name: finding for finding in examine(case)}


def test_a_usual_configuration_is_well():
    assert {finding.verdict for finding in verdicts().values()} == {OK}
    wide = Examination(VE(sigma_min=0.01, sigma_max=50.0), images(0.0, 1.0), centred=False)
    assert {finding.verdict for finding in examine(wide)} == {OK}


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({"sde": VP(beta_max=2.0)}, "prior mismatch", WARN),
        ({"sde": VP(beta_max=0.2)}, "prior mismatch", BAD),
        ({"sde": VP(beta_max=2.0)}, "terminal SNR", BAD),
        ({"sde": VE(sigma_max=0.5)}, "largest noise and distance", BAD),
        ({"sde": VE(sigma_min=1e-9), "t_min": 1e-5}, "float32 resolution", BAD),
        ({"dtype": "bfloat16"}, "bfloat16 resolution", WARN),
        ({"steps": 30}, "beta_i of a discretisation", WARN),
        ({"steps": 10}, "beta_i of a discretisation", BAD),
        ({"sde": VP(t_min=0.2)}, "t_min of sampling", BAD),
        ({"steps": 10}, "grid of sampling", WARN),
        ({"moments": images(0.0, 255.0)}, "range of the data", BAD),
        ({"centred": False}, "range of the data", BAD),
        ({"moments": images(0.0, 1.0), "centred": True}, "range of the data", BAD),
        ({"data_std": 1.0}, "data_std of the preconditioner", WARN),
        ({"data_std": 127.0}, "data_std of the preconditioner", BAD),
    ],
)
def test_what_is_wrong_is_found_and_what_to_change_is_said(changes, name, verdict):
    finding = verdicts(**changes)[name]
    assert finding.verdict == verdict, finding
    assert finding.advice


def test_the_smallest_sigma_is_where_the_largest_value_changes():
    """Of points up to 3 in float32: half of the gap between neighbours is lost."""
    finding = verdicts(moments=measured(points(0.0, 3.0)))["float32 resolution"]
    assert f"sigma >= {float(np.spacing(np.float32(3.0))):.2g} " in finding.value


def test_the_command_fails_if_something_is_bad(capsys, monkeypatch, tmp_path):
    """With data that are not there, by bounds."""
    monkeypatch.setenv("SDELAB_DATA", str(tmp_path))
    command = ["sdelab", "doctor", "--config", "configs/mnist/vp.py"]
    assert run([*command, "--config.model.classes=0"]) == 0
    assert "What is known without it are bounds" in capsys.readouterr().err
    assert run([*command, "--config.sde.beta_max=1"]) == 0  # a bound is no proof
    assert run([*command, "--steps=15"]) == 1
    words = capsys.readouterr().out
    assert "bad   beta_i of a discretisation" in words
    assert "change: 21 steps at least" in words
