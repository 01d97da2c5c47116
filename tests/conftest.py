"""Every test runs with strict dtype promotion, without rank promotion, and with the shapes of `sdelab` checked."""

import pathlib

import beartype.typing  # noqa: F401  (named in the string below)
import jax
import jaxtyping
import numpy as np
import pytest
from jaxtyping import install_import_hook

# beartype sees methods one by one, where it cannot know what `Self` is: it checks nothing of that annotation.
OVERRIDES = "beartype.FrozenDict({beartype.typing.Self: beartype.typing.Any})"
install_import_hook("sdelab", f"beartype.beartype(conf=beartype.BeartypeConf(hint_overrides={OVERRIDES}))")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def load_fixture():
    """Loads `tests/fixtures/<name>.npz` as a dict of arrays: `load_fixture("A_sde/vp")`."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files if key != "__meta__"}

    return load


@pytest.fixture
def unhooked():
    """As a user has it: without the runtime type checks of this suite, which would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


MAPS = pathlib.Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def _programs_of_a_module_are_dropped():
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _programs_are_dropped_in_time():
    """A compiled solve takes some two hundred memory maps. Linux allows a process 65 530; at the next one the compiler
    ends it with a segmentation fault."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
