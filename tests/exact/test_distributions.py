"""Identities that hold for every exact distribution, whatever its formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdelab import VE, VP, FromSchedule, RectifiedFlow
from sdelab.exact import Empirical, Full, Gaussian, GaussianMixture, LowRank

RNG = np.random.default_rng(3)
FACTOR = RNG.normal(size=(4, 6, 2))
MATRICES = np.einsum("kdr,ker->kde", FACTOR, FACTOR) + 0.1 * np.eye(6)
MEANS = RNG.normal(size=(4, 6))
WEIGHTS = np.array([0.1, 0.4, 0.3, 0.2])


def distributions():
    """Built where they are used: in float64 inside `enable_x64`. Events have the shape (3, 2)."""
    means = MEANS.reshape(4, 3, 2)
    return {
        "isotropic": Gaussian(means[0], 0.3),
        "diagonal": Gaussian(means[0], np.linspace(0.1, 2.0, 6)),
        "full": Gaussian(means[0], MATRICES[0]),
        "low_rank": Gaussian(means[0], LowRank(FACTOR[0], 0.2)),
        "mixture_shared": GaussianMixture(means, 0.3),
        "mixture_isotropic": GaussianMixture(means, np.array([0.1, 0.2, 0.3, 0.4]), WEIGHTS),
        "mixture_diagonal": GaussianMixture(means, RNG.uniform(0.1, 1.0, size=(4, 6)), WEIGHTS),
        "mixture_full": GaussianMixture(means, MATRICES, WEIGHTS),
        "mixture_low_rank": GaussianMixture(means, LowRank(FACTOR, np.array([0.1, 0.2, 0.3, 0.4])), WEIGHTS),
        "empirical": Empirical(RNG.normal(size=(23, 3, 2)), chunk=5),
    }


NAMES = list(distributions())
DENSITIES = [name for name in NAMES if name != "empirical"]
PROCESSES = [VP(), VE(), RectifiedFlow()]  # alpha and sigma are all that a score reads of a process
by_name = pytest.mark.parametrize("name", NAMES)
by_density = pytest.mark.parametrize("name", DENSITIES)
by_name_in_turn = pytest.mark.parametrize(
    ("name", "sde"),
    [pytest.param(n, PROCESSES[i % 3], id=f"{type(PROCESSES[i % 3]).__name__}-{n}") for i, n in enumerate(NAMES)],
)


def at_one(function):
    """A function of `(batch, *event)` on one event."""
    return lambda x, t: function(x[None], t)[0]


def points(sde, n=5):
    """Points around the marginal at four times, one time per sample, near and far."""
    key = jax.random.key(1)
    t = sde.t_min + (sde.t_max - sde.t_min) * jnp.asarray([0.001, 0.05, 0.3, 0.7, 1.0])[:n]
    x0 = 1.5 * jax.random.normal(key, (n, 3, 2))
    return sde.perturb(jax.random.key(2), x0, t)[0], t


@by_name_in_turn
def test_the_derivatives_of_log_prob(name, sde):
    with jax.enable_x64(True):
        score = distributions()[name].score(sde)

        @jax.jit
        def values(x, t):
            hessian = jax.vmap(jax.jacrev(lambda x, t: score(x.reshape(1, 3, 2), t).ravel()))(x.reshape(5, 6), t)
            return score(x, t), jax.vmap(jax.grad(at_one(score.log_prob)))(x, t), score.divergence(x, t), hessian

        direct, gradient, divergence, hessian = values(*points(sde))
        np.testing.assert_allclose(direct, gradient, rtol=1e-8, atol=1e-8 * np.abs(gradient).max())
        scale = np.abs(hessian).max(axis=(1, 2))
        trace = np.trace(hessian, axis1=1, axis2=2)
        np.testing.assert_allclose(divergence / scale, trace / scale, rtol=1e-8, atol=1e-8)


@by_name_in_turn
def test_the_two_formulas_of_tweedie(name, sde):
    """The denoiser from the score, and the posterior covariance from the Jacobian of the denoiser."""
    with jax.enable_x64(True):
        score = distributions()[name].score(sde)
        x, t = points(sde)
        v = jax.random.normal(jax.random.key(3), x.shape)

        @jax.jit
        def values(x, t):
            jacobian = jax.vmap(jax.jacfwd(lambda x, t: score.denoise(x.reshape(1, 3, 2), t).ravel()))(
                x.reshape(5, 6), t
            )
            covariances = score.posterior_covariance_product(x, t, v), score.posterior_covariance_diagonal(x, t)
            return score(x, t), score.denoise(x, t), score.noise(x, t), *covariances, jacobian

        direct, denoise, noise, product, diagonal, jacobian = values(x, t)
        alpha, sigma = (np.asarray(v).reshape(5, 1, 1) for v in (sde.alpha(t), sde.sigma(t)))
        denoised = (x + sigma**2 * direct) / alpha
        scale = 1.0 / alpha.min()
        np.testing.assert_allclose(denoise, denoised, rtol=1e-10, atol=1e-11 * scale)
        np.testing.assert_allclose(noise, (x - alpha * denoised) / sigma, rtol=1e-6, atol=1e-7)
        covariance = sigma**2 / alpha * jacobian
        atol = 2e-9 * np.abs(covariance).max(axis=(1, 2)).reshape(5, 1, 1) + 1e-14  # all zero where one datum is left
        truth = np.einsum("bde,be->bd", covariance, v.reshape(5, 6)).reshape(x.shape)
        assert np.all(np.abs(product - truth) <= atol + 1e-10 * np.abs(truth))
        truth = np.diagonal(covariance, axis1=1, axis2=2).reshape(x.shape)
        assert np.all(np.abs(diagonal - truth) <= atol + 1e-10 * np.abs(truth))


@by_density
def test_matrices_agree_with_products_and_derivatives(name):
    with jax.enable_x64(True):
        sde = VP()
        score = distributions()[name].score(sde)
        eye = jnp.broadcast_to(jnp.eye(6)[:, None], (6, 5, 6)).reshape(6, 5, 3, 2)

        @jax.jit
        def values(x, t):
            columns = jax.vmap(lambda v: score.posterior_covariance_product(x, t, v))(eye).reshape(6, 5, 6)
            jacobian = jax.vmap(jax.jacfwd(lambda x, t: score(x.reshape(1, 3, 2), t).ravel()))(x.reshape(5, 6), t)
            return score.posterior_covariance(x, t), columns, score.jacobian(x, t), jacobian

        covariance, columns, direct, jacobian = values(*points(sde))
        np.testing.assert_allclose(np.moveaxis(columns, 0, -1), covariance, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(direct, jacobian, rtol=1e-8, atol=1e-8 * np.abs(jacobian).max())


@by_density
def test_the_diffused_distribution_is_the_score_at_that_time(name):
    with jax.enable_x64(True):
        sde = VP()
        distribution = distributions()[name]
        score, x, t = distribution.score(sde), points(sde)[0], 0.02
        marginal = distribution.diffused(sde, t)
        np.testing.assert_allclose(marginal.log_prob(x), score.log_prob(x, t), rtol=1e-12)
        gradient = jax.jit(jax.vmap(jax.grad(lambda x: marginal.log_prob(x[None])[0])))(x)
        np.testing.assert_allclose(score(x, t), gradient, rtol=1e-9, atol=1e-10)
        again = marginal.diffused(VE(), 0.5).log_prob(x)  # noise upon noise
        alpha, sigma, more = sde.alpha(t), sde.sigma(t), VE().sigma(0.5)
        both = distribution.score(FromSchedule(lambda t: alpha + 0.0 * t, lambda t: jnp.hypot(sigma, more) + 0.0 * t))
        np.testing.assert_allclose(again, both.log_prob(x, 0.5), rtol=1e-12)


@by_density
def test_log_prob_against_numpy(name):
    """The density of the data, from explicit matrices with a determinant and a solve."""
    with jax.enable_x64(True):
        d = distributions()[name]
        x = points(VP())[0]
        mixture = isinstance(d, GaussianMixture)
        means = np.asarray(d.means if mixture else d.mean[None]).reshape(-1, 6)
        matrices = (d.covariances if mixture else d.covariance).matrix(lambda value: value)
        weights = np.asarray(d.weights / d.weights.sum()) if mixture else np.ones(1)
        density = 0.0
        for w, m, c in zip(weights, means, np.reshape(matrices, (-1, 6, 6)), strict=True):
            r = np.asarray(x).reshape(-1, 6) - m
            exponent = -0.5 * np.sum(r * np.linalg.solve(c, r.T).T, axis=1)
            density = density + w * np.exp(exponent) / np.sqrt(np.linalg.det(2 * np.pi * c))
        np.testing.assert_allclose(d.log_prob(x), np.log(density), rtol=1e-11)


@by_name
def test_sampling_moments(name):
    """Means within 5 standard errors, covariances to 5 standard errors of a Gaussian's."""
    distribution, n = distributions()[name], 40_000
    x = np.asarray(distribution.sample(jax.random.key(0), n), np.float64).reshape(n, 6)
    if isinstance(distribution, Empirical):
        data = np.asarray(distribution.data, np.float64).reshape(-1, 6)
        mean, covariance = data.mean(axis=0), np.cov(data.T, bias=True)
    elif isinstance(distribution, Gaussian):
        mean, covariance = distribution.mean.ravel(), distribution.covariance.matrix(lambda value: value)
    else:
        mean, covariance = distribution.mean().ravel(), distribution.covariance()
    variances = np.diagonal(covariance)
    assert np.all(np.abs(x.mean(axis=0) - mean) < 5 * np.sqrt(variances / n))
    errors = np.sqrt((np.outer(variances, variances) + np.asarray(covariance) ** 2) / n)
    assert np.all(np.abs(np.cov(x.T) - covariance) < 5 * errors)


@by_name
def test_a_sample_does_not_depend_on_its_companions(name):
    sde = VE()
    score = distributions()[name].score(sde)
    x, t = points(sde)

    @jax.jit
    def values(x, t):
        return score(x, t), score.denoise(x, t), score.log_prob(x, t), score.divergence(x, t)

    each = jax.vmap(values)(x, t)
    one_by_one = [values(x[i : i + 1], t[i : i + 1]) for i in range(5)]
    same_time = values(x, t[2])
    for k, together in enumerate(values(x, t)):
        alone = np.concatenate([value[k] for value in one_by_one])
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5 * np.abs(alone).max())
        np.testing.assert_allclose(together[2], same_time[k][2], rtol=1e-5, atol=1e-6 * np.abs(alone).max())
        np.testing.assert_allclose(together, each[k], rtol=1e-5, atol=1e-5 * np.abs(alone).max())


@by_name
def test_float32_agrees_with_float64_near_t_min_and_in_the_tails(name):
    sde = VP()
    t = jnp.asarray([1e-5, 1e-5, 1e-3, 1e-3], jnp.float32)
    x0 = jnp.asarray(np.concatenate([MEANS[:2], 1e3 * MEANS[2:]]).reshape(4, 3, 2), jnp.float32)
    x = x0 + 0.1 * jax.random.normal(jax.random.key(0), x0.shape)
    single = distributions()[name]

    @jax.jit
    def evaluate(distribution, x, t):
        score = distribution.score(sde)
        return score(x, t), score.denoise(x, t), score.log_prob(x, t)

    values = evaluate(single, x, t)
    with jax.enable_x64(True):
        # The same numbers, so that the comparison sees the arithmetic and not the rounding of the data.
        double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), single)
        x, t = x.astype(jnp.float64), t.astype(jnp.float64)
        truths = evaluate(double, x, t)
        sigma = np.asarray(sde.sigma(t)).reshape(4, 1, 1)
    rounding = 4 * 6e-8 * np.abs(np.asarray(x)).max(axis=(1, 2), keepdims=True) / np.maximum(sigma, 1e-3) ** 2
    for value, truth in zip(values, truths, strict=True):
        truth = np.asarray(truth)
        scale = np.abs(truth).max(axis=tuple(range(1, truth.ndim)), keepdims=True)
        assert value.dtype == jnp.float32
        extra = rounding if truth.ndim == 3 and name == "empirical" else 0.0
        assert np.all(np.abs(value - truth) <= 3e-5 * scale + extra), (value, truth)


@by_name
def test_pytree(name):
    sde = VP()
    distribution = distributions()[name]
    x, t = points(sde)
    leaves, structure = jax.tree.flatten(distribution)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree.unflatten(structure, leaves)
    eager = distribution.score(sde)(x, t)
    jitted = jax.jit(lambda d, sde, x, t: d.score(sde)(x, t))(again, sde, x, t)
    np.testing.assert_allclose(jitted, eager, rtol=1e-4, atol=1e-5 * np.abs(eager).max())


@by_name
def test_gradients_by_the_fields(name):
    """Autodiff against a central difference along a random direction of all leaves."""
    with jax.enable_x64(True):
        sde = VP()
        distribution = distributions()[name]
        x, t = points(sde)
        objective = jax.jit(jax.value_and_grad(lambda d: jnp.sum(jnp.sin(d.score(sde)(x[1:], t[1:])))))
        keys = iter(jax.random.split(jax.random.key(5), 10))
        direction = jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape), distribution)

        def along(h):
            return objective(jax.tree.map(lambda a, b: a + h * b, distribution, direction))[0]

        numeric = (along(1e-6) - along(-1e-6)) / 2e-6
        gradient = objective(distribution)[1]
        analytic = sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), gradient, direction)))
        np.testing.assert_allclose(analytic, numeric, rtol=1e-5)


def test_the_covariance_matrix_is_differentiable():
    with jax.enable_x64(True):
        x, mean = jnp.asarray(MEANS), jnp.zeros(6)

        def objective(matrix):
            return jnp.sum(Gaussian(mean, 0.5 * (matrix + matrix.T)).log_prob(x))

        matrix = MATRICES[0] + np.diag(np.arange(6.0))  # eigenvalues apart
        c, inverse = jnp.asarray(matrix), np.linalg.inv(matrix)
        truth = 0.5 * sum(inverse @ np.outer(r, r) @ inverse - inverse for r in MEANS)
        np.testing.assert_allclose(jax.grad(objective)(c), truth, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("event", [(6,), (3, 2), (1, 6, 1)])
def test_events_are_flattened_in_c_order(event):
    sde = VP()
    flat = GaussianMixture(MEANS, MATRICES, WEIGHTS).score(sde)
    shaped = GaussianMixture(MEANS.reshape(4, *event), MATRICES, WEIGHTS).score(sde)
    x = jax.random.normal(jax.random.key(0), (7, 6))
    np.testing.assert_array_equal(shaped(x.reshape(7, *event), 0.3).reshape(7, 6), flat(x, 0.3))
    assert shaped.log_prob(x.reshape(7, *event), 0.3).shape == (7,)


def test_low_rank_equals_full():
    with jax.enable_x64(True):
        scales = np.array([0.1, 0.2, 0.3, 0.0])
        matrices = np.einsum("kdr,ker->kde", FACTOR, FACTOR) + scales[:, None, None] ** 2 * np.eye(6)
        sde = VP()
        low = GaussianMixture(MEANS, LowRank(FACTOR, scales), WEIGHTS).score(sde)
        full = GaussianMixture(MEANS, Full(matrices), WEIGHTS).score(sde)
        x = jax.random.normal(jax.random.key(0), (7, 6))
        for method in ("__call__", "denoise", "log_prob", "divergence", "jacobian", "posterior_covariance"):
            ours, truth = getattr(low, method)(x, 0.1), getattr(full, method)(x, 0.1)
            np.testing.assert_allclose(ours, truth, rtol=1e-9, atol=1e-10)


def test_low_rank_costs_no_square_matrix():
    d = 4096
    gaussian = Gaussian(np.zeros(d), LowRank(RNG.normal(size=(d, 3)), 0.1))
    function = jax.jit(lambda gaussian, x: gaussian.score(VP()).denoise(x, 0.1))
    memory = function.lower(gaussian, jnp.ones((2, d))).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 100 * d  # a (d, d) matrix would take 4 * 4096 * d
