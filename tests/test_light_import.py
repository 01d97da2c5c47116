"""What an author pays for `from sdelab import VP`, and what the lazy names give, each seen in a fresh interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sdelab

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"flax", "optax", "orbax", "grain", "diffrax", "ml_collections", "matplotlib", "sklearn", "absl", "PIL", "tqdm"}


def fresh(code: str) -> str:
    """Runs code in a new interpreter; returns the last line of what it prints."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip().splitlines()[-1]


LOADED = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


@pytest.mark.parametrize("statement", ["from sdelab import VP", "import sdelab; sdelab.VP(); dir(sdelab)"])
def test_an_sde_comes_without_the_training_stack(statement):
    loaded = set(json.loads(fresh(f"{statement}\n{LOADED}")))
    assert {"jax", "equinox"} <= loaded
    assert loaded & HEAVY == set()


def test_an_sde_loads_no_floor_above_its_own():
    modules = json.loads(
        fresh("from sdelab import VP\nimport json, sys; print(json.dumps([m for m in sys.modules if 'sdelab.' in m]))")
    )
    assert {module.split(".")[1] for module in modules} <= {
        "sde",
        "_typing",
        "_broadcast",
        "_checks",
        "_callable",
        "_numerics",
    }


@pytest.mark.slow
def test_every_listed_name_resolves():
    code = "import json, sdelab; print(json.dumps({n: type(getattr(sdelab, n)).__name__ for n in dir(sdelab)}))"
    kinds = json.loads(fresh(code))
    assert kinds["sample"] == "function"
    assert kinds["solvers"] == "module"
    assert kinds["testing"] == "module"
    assert kinds["load"] == "function"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["load", "sample", "log_prob"])
def test_a_lazy_function_is_one_whatever_was_imported_before(name):
    # Importing a submodule sets it as an attribute of the package: a module `sdelab.load` once hid the function.
    before = "import importlib, sdelab\nfor home in set(sdelab._ATTRIBUTES.values()): importlib.import_module(home)\n"
    assert fresh(f"{before}print(callable(getattr(sdelab, {name!r})))") == "True"


def test_reverse_process_is_lazy_and_real():
    assert sdelab.ReverseSDE is sdelab.reverse.ReverseSDE
    assert sdelab.reverse.ReverseSDE.__module__ == "sdelab.reverse"


def test_unknown_attribute_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'sampel'.*ReverseSDE.*VP.*sample"):
        sdelab.sampel  # noqa: B018


def test_unknown_import_is_an_import_error():
    with pytest.raises(ImportError, match="Nonsense"):
        from sdelab import Nonsense  # noqa: F401
