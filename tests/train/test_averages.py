"""Rules of averages against their definitions, and an average made afterwards against one kept during training."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab.train import ConstantDecay, HalfLifeDecay, PowerDecay, build, fit, load_run, reconstruct, save_average
from sdelab.train.checkpoint import newest_sound_step
from sdelab.train.ema import power_of
from sdelab.train.ema_posthoc import coefficients, inner
from sdelab.train.ema_snapshots import Snapshots

pytestmark = pytest.mark.as_users  # equal to the bit


def weights(decay, updates):
    """What each of the parameters after update 1, 2, ... weighs in the average, in float64."""
    rates = np.asarray(jax.vmap(decay.rate)(jnp.arange(1, updates + 1)), np.float64)
    kept = np.cumprod((1.0 - rates)[::-1])[::-1]
    return rates * np.append(kept[1:], 1.0)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.2])
def test_a_power_average_has_the_weights_and_the_width_of_its_profile(sigma_rel):
    n = 2000
    found, gamma = weights(PowerDecay(sigma_rel), n), power_of(sigma_rel)
    edges = (np.arange(n + 1) / n) ** (gamma + 1)
    np.testing.assert_allclose(found, np.diff(edges), rtol=1e-3, atol=1e-9)
    tau = (np.arange(n) + 0.5) / n
    width = np.sqrt(np.sum(found * tau**2) - np.sum(found * tau) ** 2)
    np.testing.assert_allclose(width, sigma_rel, rtol=2e-3)


def test_the_published_powers():
    """Karras et al. (2024), section 3.1: 16.97 and 6.94."""
    np.testing.assert_allclose([power_of(0.05), power_of(0.10)], [16.97, 6.94], atol=5e-3)
    assert power_of(12**-0.5) == pytest.approx(0.0, abs=1e-6)
    for wrong in (0.0, -0.1, 0.3):
        with pytest.raises(ValueError, match=rf"sigma_rel = {wrong} is not accepted; .* \(0, 0\.2887\]"):
            PowerDecay(wrong)


def test_a_rate_keeps_its_digits_when_the_decay_is_near_one():
    """After 10^7 updates the decay itself has one digit of its distance from 1."""
    n = 10**7
    expected = 1 - (1 - 1 / np.float64(n)) ** (power_of(0.05) + 1)
    np.testing.assert_allclose(float(PowerDecay(0.05).rate(jnp.asarray(n, jnp.int32))), expected, rtol=1e-5)


def test_half_the_weight_is_newer_than_the_half_life():
    decay = HalfLifeDecay(half_life=6400, batch_size=64, ramp_up=0)
    np.testing.assert_allclose(weights(decay, 2000)[-100:].sum(), 0.5, rtol=1e-5)


def test_the_half_life_ramps_up_with_the_images_seen():
    """EDM's rule in its own numbers: images before the update, and none kept of the initial parameters."""
    decay = HalfLifeDecay(half_life=500_000, batch_size=512, ramp_up=0.05)
    for n in (1, 2, 100, 19_532, 10**6):
        half_life = min(500_000, (n - 1) * 512 * 0.05)
        expected = 0.5 ** (512 / max(half_life, 1e-8))
        np.testing.assert_allclose(float(decay(jnp.asarray(n, jnp.int32))), expected, rtol=1e-6)


def test_inner_products_are_the_integrals():
    grid = (np.arange(200_000) + 0.5) / 200_000 * 70.0

    def profile(gamma, t):
        return np.where(grid <= t, (gamma + 1) / t * (grid / t) ** gamma, 0.0)

    for a, b in (((6.9, 30), (16.9, 70)), ((6.9, 70), (16.9, 30)), ((2.0, 50), (2.0, 50))):
        np.testing.assert_allclose(inner(a, b), np.sum(profile(*a) * profile(*b)) * 70.0 / 200_000, rtol=1e-4)


def test_a_stored_profile_is_made_of_itself():
    stored = [(width, step) for step in (10, 20, 30, 40) for width in (0.05, 0.1)]
    factors, residual = coefficients(stored, stored[3])
    np.testing.assert_allclose(factors, np.eye(8)[3], atol=1e-6)
    assert residual < 1e-6


def test_more_snapshots_bring_the_profile_closer():
    residuals = []
    for count in (5, 10, 20, 40):
        stored = [(width, 1000 * k // count) for k in range(1, count + 1) for width in (0.05, 0.1)]
        factors, residual = coefficients(stored, (0.15, 1000))
        np.testing.assert_allclose(factors.sum(), 1.0, rtol=1e-12)  # an untrained constant is its own average
        residuals.append(residual)
    assert all(finer < 0.5 * coarser for coarser, finer in itertools.pairwise(residuals))
    with pytest.raises(ValueError, match="at least one stored profile"):
        coefficients([], (0.1, 10))
    with pytest.raises(ValueError, match=r"wanted = \(0.001, 100\) .* overlaps"):
        coefficients([(0.05, 10), (0.1, 10)], (0.001, 100))


AVERAGES = {
    "wide": {"name": "power", "sigma_rel": 0.1},
    "asked": {"name": "power", "sigma_rel": 0.15},
    "slow": {"name": "constant", "decay": 0.9},
    "edm": {"name": "half_life", "half_life": 200, "ramp_up": 0.5},
}


def config(**changes):
    base = {
        "seed": 3,
        "sde": {"name": "VP"},
        "data": {"name": "two_moons"},
        "model": {"name": "mlp", "width": 16, "depth": 1},
        "preconditioner": {"name": "edm", "data_std": 1.0},
        "loss": {},
        "optim": {"batch_size": 32, "learning_rate": 1e-3, "warmup_steps": 3},
        "ema": {"name": "power", "sigma_rel": 0.05},
        "averages": AVERAGES,
        "run": {"steps": 200, "log_every": 50, "checkpoint_every": 100, "snapshot_every": 10},
    }
    return {**base, **changes}


def vector(tree):
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(tree)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, fit(config(), workdir)


def test_an_average_made_afterwards_is_the_one_kept_during_training(run):
    """Width 0.15, from the snapshots of widths 0.05 and 0.10 alone."""
    workdir, state = run
    made = without(workdir, "asked")
    kept = vector(state["averages"]["asked"])
    assert np.linalg.norm(vector(made.params) - kept) < 1e-3 * np.linalg.norm(kept)
    way = np.linalg.norm(vector(state["ema"]) - kept)
    assert np.linalg.norm(vector(made.params) - kept) < 0.1 * way  # and not another width that happens to be near
    assert made.stored == 40


def without(workdir, name):
    """The reconstruction of an average without its own snapshots."""
    import sdelab.train.ema_snapshots as module

    widths = module._widths
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_widths", lambda d: {k: v for k, v in widths(d).items() if k != name})
        return reconstruct(workdir, load_run(workdir).score.params, 0.15)


def test_all_averages_of_a_run_can_be_loaded_and_so_can_one_made_of_them(run):
    workdir, state = run
    for name in AVERAGES:
        np.testing.assert_array_equal(vector(load_run(workdir, name).score.params), vector(state["averages"][name]))
    np.testing.assert_array_equal(vector(load_run(workdir).score.params), vector(state["ema"]))
    made = reconstruct(workdir, load_run(workdir).score.params, 0.07, step=150)
    save_average(workdir, "sigma_rel_0.07", made)
    loaded = load_run(workdir, "sigma_rel_0.07")
    np.testing.assert_array_equal(vector(loaded.score.params), vector(made.params))
    assert loaded.step == 150
    with pytest.raises(ValueError, match=r"unknown weights 'sloow'\. Did you mean 'slow'"):
        load_run(workdir, "sloow")
    with pytest.raises(ValueError, match="name = 'slow' is not accepted"):
        save_average(workdir, "slow", made)
    with pytest.raises(FileExistsError, match=r"sigma_rel_0\.07 is there already"):
        save_average(workdir, "sigma_rel_0.07", made)


def test_further_averages_do_not_change_the_run(run, tmp_path):
    """Parameters and main average are, bit for bit, those of a run without."""
    alone = {key: value for key, value in config(run={"steps": 200}).items() if key != "averages"}
    state = fit(alone, tmp_path)
    for part in ("params", "ema"):
        np.testing.assert_array_equal(vector(state[part]), vector(run[1][part]))
    assert set(state) == {"step", "params", "ema", "opt_state"}


@pytest.mark.slow
def test_a_resumed_run_has_the_same_snapshots_though_one_was_torn(run, tmp_path):
    short = {**config()["run"], "steps": 15, "checkpoint_every": 5}
    fit(config(run=short), tmp_path)
    (tmp_path / "snapshots" / "10" / "manifest.json").unlink()
    (tmp_path / "checkpoints" / "15" / "manifest.json").unlink()
    (tmp_path / "checkpoints" / "10" / "manifest.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(config(run={**short, "steps": 30}), tmp_path)
    params = load_run(run[0]).score.params
    for step in (10, 30):
        np.testing.assert_array_equal(*(vector(reconstruct(w, params, 0.1, step).params) for w in (run[0], tmp_path)))
    assert newest_sound_step(tmp_path / "snapshots").name == "30"


def test_what_cannot_be_kept_or_made_is_refused(run, tmp_path):
    plain = config(ema={"name": "warmup", "decay": 0.9}, averages={"slow": AVERAGES["slow"]})
    with pytest.raises(
        ValueError, match="snapshot_every = 10 is not accepted without an average whose name is 'power'"
    ):
        build(plain)
    with pytest.raises(ValueError, match=r"config\.averages: the name 'ema' is not accepted"):
        build(config(averages={"ema": AVERAGES["slow"]}))
    with pytest.raises(ValueError, match=r"unknown key of config\.averages\.slow 'decai'\. Did you mean 'decay'"):
        build(config(averages={"slow": {"name": "constant", "decai": 0.9}}))
    with pytest.raises(FileNotFoundError, match="no snapshots in"):
        reconstruct(tmp_path, load_run(run[0]).score.params, 0.1)
    with pytest.raises(ValueError, match=r"step = 5 is not accepted; the first snapshot is of step 10"):
        reconstruct(run[0], load_run(run[0]).score.params, 0.1, step=5)


def test_only_power_averages_are_kept(tmp_path):
    decays = {"ema": ConstantDecay(0.9), "wide": PowerDecay(0.1)}
    trees = {name: {"w": jnp.full((2,), value)} for name, value in (("ema", 1.0), ("wide", 2.0))}
    with Snapshots(tmp_path, decays) as snapshots:
        snapshots.save(3, {"ema": trees["ema"], "averages": {"wide": trees["wide"]}}, {})
    made = reconstruct(tmp_path, trees["wide"], 0.1)
    np.testing.assert_allclose(made.params["w"], 2.0)
    assert (made.stored, made.step) == (1, 3)
