"""Every test runs with strict dtype promotion, without rank promotion, and with the shapes of `sdelab` checked.

Most of the suite's time would be LLVM's, which optimises programs that run once, for milliseconds. So nothing is optimised
below XLA's own passes, in the tests and in the programs that they start, and what was compiled in the session is not compiled
again. Tests marked `as_users` have their programs optimised: those of an equality to the bit that users are promised. All of
them so: `JAX_DISABLE_MOST_OPTIMIZATIONS=false pytest`. With `as_users(again=True)` each program is compiled again wherever it
occurs, as when a run is resumed without a cache.
"""

import contextlib
import os
import pathlib
import tempfile
from typing import NamedTuple

import beartype.typing  # noqa: F401  (named in the string below)
import jax
import jaxtyping
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import install_import_hook

# beartype sees methods one by one, where it cannot know what `Self` is: it checks nothing of that annotation.
OVERRIDES = "beartype.FrozenDict({beartype.typing.Self: beartype.typing.Any})"
install_import_hook("sdelab", f"beartype.beartype(conf=beartype.BeartypeConf(hint_overrides={OVERRIDES}))")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

KEPT = tempfile.TemporaryDirectory(prefix="sdelab-programs-")  # of this session alone: nothing stale is run
CACHE = {
    "jax_compilation_cache_dir": KEPT.name,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
UNOPTIMISED, CACHED = "jax_disable_most_optimizations", "jax_enable_compilation_cache"
ALL_AS_USERS = os.environ.get(UNOPTIMISED.upper(), "true").lower() in ("false", "0")


def configure(**values):
    """Here, and in the programs that are started from here."""
    for name, value in values.items():
        os.environ[name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
        jax.config.update(name, value)


class How(NamedTuple):
    """How programs are compiled: `optimised` as users' are, or in haste; `cached` within the session, or each time again."""

    optimised: bool
    cached: bool

    @classmethod
    def asked_by(cls, test) -> "How":
        mark = test.get_closest_marker("as_users")
        again = mark is not None and mark.kwargs.get("again", False)
        return cls(optimised=ALL_AS_USERS or mark is not None, cached=not again)


@contextlib.contextmanager
def compiled(how: How):
    """What is compiled already is dropped where that changes: JAX does not tell the two programs apart."""
    before = How(os.environ[UNOPTIMISED.upper()] == "false", os.environ[CACHED.upper()] == "true")
    if how == before:
        yield
        return
    try:
        switch(how)
        yield
    finally:
        switch(before)


def switch(how: How):
    jax.clear_caches()
    compilation_cache.reset_cache()
    configure(**{UNOPTIMISED: not how.optimised, CACHED: how.cached})


configure(**CACHE)
switch(How(ALL_AS_USERS, cached=True))

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
def _module_compiled(request):
    """A module's mark holds for its fixtures too."""
    with compiled(How.asked_by(request.node)):
        yield


@pytest.fixture(autouse=True)
def _compiled(request, _module_compiled):
    with compiled(How.asked_by(request.node)):
        yield


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
