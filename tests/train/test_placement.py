"""The same numbers whatever the placement; a state that is split is split; sizes that do not fit are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdelab.train import ConstantDecay, OneDevice, init_state, make_train_step
from sdelab.train.accumulate import accumulated
from sdelab.train.dispatch import plan, with_token
from sdelab.train.run import Run, build_placement
from sdelab.train.step import METRICS
from sdelab.train.window import empty_window, with_window
from tests.train.processes import run

pytestmark = pytest.mark.as_users  # equal to the bit

CASES = ("jit", "data", "fsdp", "pmap", "fsdp:2:5")


def assert_agree(arrays, case, reference):
    """To 1e-5 of the way that training went, and so of the parameters; bit-equal from run to run."""
    way = np.linalg.norm(reference["params"] - reference["before"])
    assert way > 1e-3 * np.linalg.norm(reference["params"])
    assert np.linalg.norm(arrays[f"{case} params"] - reference["params"]) < 1e-5 * way
    np.testing.assert_array_equal(arrays[f"{case} again"], arrays[f"{case} params"])


@pytest.fixture(scope="module")
def on_eight_devices(tmp_path_factory):
    path = tmp_path_factory.mktemp("eight") / "parameters.npz"
    run(1, 8, "sgd", path, *CASES)
    return dict(np.load(path))


@pytest.fixture(scope="module")
def reference(on_eight_devices):
    return {name: on_eight_devices[f"jit {name}"] for name in ("before", "params")}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_all_placements_train_alike_on_eight_devices(on_eight_devices, reference, case):
    """With dropout, whose masks too belong to the global sample; with gradient accumulation and steps in one call."""
    assert_agree(on_eight_devices, case, reference)


@pytest.mark.slow
def test_a_state_that_is_split_is_split_and_the_others_are_not(on_eight_devices):
    shares = {case: float(on_eight_devices[f"{case} share"]) for case in CASES}
    assert shares["fsdp"] < 0.5  # small arrays stay whole, and this network has many
    assert {shares[case] for case in ("jit", "data", "pmap")} == {1.0}


@pytest.mark.slow
def test_two_processes_of_two_devices_train_alike(tmp_path, reference):
    cases = ("data", "fsdp", "pmap")
    run(2, 2, "sgd", tmp_path / "parameters.npz", *cases)
    arrays = dict(np.load(tmp_path / "parameters.npz"))
    for case in cases:
        assert_agree(arrays, case, reference)


@pytest.mark.parametrize(
    ("batch_size", "pieces", "message"),
    [
        (10, 4, r"batch_size = 10 .* multiple of 4 \(1 devices x 4 pieces\)\. Nearest: 8 and 12\."),
        (3, 4, r"batch_size = 3 .* Nearest: 4\."),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_would(batch_size, pieces, message):
    with pytest.raises(ValueError, match=rf"config\.run: placement = 'jit': {message}"):
        build_placement(Run(steps=1, pieces=pieces), batch_size)
    OneDevice().check_batch_size(12, 4)


def test_an_unknown_placement_is_refused_with_the_closest():
    with pytest.raises(ValueError, match=r"unknown placement 'fdsp'\. Did you mean 'fsdp'\?"):
        Run(steps=1, placement="fdsp")


def test_accumulation_is_the_mean_over_the_whole_batch():
    """Of a loss that is not linear in the parameters, in pieces that hold every third row."""
    x = jnp.arange(12.0).reshape(12, 1)

    def loss(params, batch):
        return jnp.mean(jnp.sin(params["w"] * batch["x"][:, 0]) ** 2)

    params = {"w": jnp.asarray(0.3)}
    whole = jax.value_and_grad(loss)(params, {"x": x})
    parts = accumulated(jax.value_and_grad(loss), 3)(params, {"x": x})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), parts, whole)
    seen = accumulated(lambda params, batch: batch["x"] * 3.0, 3)(params, {"x": x})
    np.testing.assert_allclose(seen[:, 0], 3.0 * x[:, 0].reshape(4, 3).sum(1) / 3.0)


@pytest.mark.parametrize(("start", "steps", "together"), [(0, 20, 5), (3, 21, 4), (0, 7, 10), (8, 8, 2)])
def test_calls_end_where_the_host_has_something_to_do(start, steps, together):
    calls = list(plan(start, steps, (6, 10), together))
    ends = [first + count for first, count in calls]
    assert [first for first, _ in calls] == [start, *ends][: len(calls)]
    assert sum(count for _, count in calls) == steps - start
    assert {count for _, count in calls} <= {1, together}
    assert {n for n in range(start + 1, steps + 1) if n % 6 == 0 or n % 10 == 0 or n == steps} <= set(ends)


def reductions(jaxpr, looped=False):
    """Whether it is within a loop, and how many numbers it has, of every sum over devices."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith("psum"):
            yield from ((looped, variable.aval.size) for variable in equation.invars)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from reductions(inner, looped or equation.primitive.name == "scan")


@pytest.mark.parametrize("name", ["data", "pmap"])
def test_gradients_of_pieces_are_averaged_over_devices_once(name):
    """Nothing is in the loop over the pieces; after it, a number for each parameter, and the loss."""
    run = Run(steps=1, placement=name, pieces=4)
    placement = build_placement(run, 8)

    def loss(params, keys, batch):
        return jnp.sum((batch["x"] @ params["w"]) ** 2, 1) + jnp.sum(params["b"])

    def step(mean):
        settings = {"ema": ConstantDecay(0.9), "learning_rate": optax.constant_schedule(0.1), "mean": mean}
        return with_token(with_window(make_train_step(loss, optax.sgd(0.1), pieces=run.pieces, **settings)))

    def start():
        state = init_state({"w": jnp.ones((5, 7)), "b": jnp.ones(3)}, optax.sgd(0.1))
        return {"state": state, "window": empty_window(METRICS)}

    carry, key = (placement.enter(placement.maker(make)()) for make in (start, lambda: jax.random.key(0)))
    batch = placement.send({"x": np.ones((8, 5), np.float32), "index": np.arange(8, dtype=np.int32)})
    found = [*reductions(jax.make_jaxpr(placement.compile(step))(carry, batch, key).jaxpr)]
    assert [size for looped, size in found if looped] == []
    assert sum(size for _, size in found) == 5 * 7 + 3 + 1
