"""Imports point downward: the floors of the package, judged on its source and not on what happens to be loaded."""

import ast
import itertools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = {
    "_typing": 0,
    "_broadcast": 0,
    "_checks": 0,
    "_numerics": 0,
    "_callable": 0,
    "_compile": 0,
    "_extras": 0,
    "_rows": 0,
    "_host": 0,
    "sde": 1,
    "score": 2,
    "grids": 2,
    "reverse": 2,
    "exact": 3,
    "solvers": 3,
    "losses": 3,
    "guidance": 3,
    "adjoint": 4,
    "grid_loop": 4,
    "known_numbers": 4,
    "integration": 4,
    "divergence": 3,
    "forward": 4,
    "bounds": 4,
    "interpolation": 4,
    "optimised_grids": 4,
    "arguments": 4,
    "sampling": 4,
    "likelihood": 4,
    "geometry": 4,
    "testing": 4,
    "nn": 5,
    "data": 5,
    "plot": 5,
    "train": 6,
    "evaluate": 6,
    "report": 6,
    "interop": 6,
    "cli": 7,
    "loading": 7,
}
ISLANDS = {"nn", "data", "plot"}
ISLAND_CEILING = 2

ARRAYS = {"jax", "equinox", "jaxtyping", "numpy"}
SOLVING = ARRAYS | {"diffrax", "lineax", "optimistix"}
TRAINING = SOLVING | {
    "flax",
    "optax",
    "orbax",
    "etils",
    "grain",
    "safetensors",
    "sklearn",
    "tqdm",
    "tensorboardX",
    "wandb",
}
COMMANDS = TRAINING | {"absl", "ml_collections"}
BY_FLOOR = {0: ARRAYS, 1: ARRAYS, 2: ARRAYS, 3: SOLVING, 4: SOLVING, 6: TRAINING, 7: COMMANDS}
BY_ISLAND = {
    "nn": ARRAYS | {"flax"},
    "data": ARRAYS | {"grain", "sklearn", "PIL", "tqdm"},
    "plot": ARRAYS | {"matplotlib", "PIL"},
}
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "ml_collections": "ml-collections",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
    "tensorboardX": "tensorboardx",
}
OUTSIDE = {"configs", "experiments", "notebooks", "tests"}


def imported_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """`(line, dotted name)` of every import, wherever it stands.

    An import inside a function or under `TYPE_CHECKING` is a dependency like any other: it lets a floor know what it
    must not know. `from a import b` counts as `a.b`, and so does `import_module("a.b")`; a relative import is
    reported as `.`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, "." if node.level else f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            yield from ((node.lineno, str(name)) for name in names)


def facade(package: Path) -> dict[str, str]:
    """Where each name that the package re-exports at its root lives: `{"sample": "sampling", ...}`."""
    homes = {}
    for node in ast.walk(ast.parse((package / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package.name:
            for alias in node.names:
                homes[alias.name] = [*(node.module or "").split("."), alias.name][1]
    return homes


def eager(body: list[ast.stmt]) -> ast.Module:
    """The statements that run on import, without those under `if TYPE_CHECKING`."""
    kept = [s for s in body if not (isinstance(s, ast.If) and ast.unparse(s.test).endswith("TYPE_CHECKING"))]
    return ast.Module(kept, type_ignores=[])


def package_violations(package: Path) -> list[str]:
    """Every import of the package that points up, into an island's neighbour, or to what its floor must not load."""
    homes = facade(package)
    found = []
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text())
        parts = path.relative_to(package).with_suffix("").parts
        if parts == ("__init__",):  # the root: its lazy names may come from anywhere, its eager ones from the SDEs
            tree, module, floor = eager(tree.body), "", 1
        else:
            module = parts[0]
            floor = FLOORS.get(module, -1)
        where = path.relative_to(package.parent)
        if floor < 0:
            found.append(f"{where}: {module} stands on no floor; give it one in FLOORS.")
            continue
        for line, name in imported_names(tree):
            complaint = judge(name, module, floor, package.name, homes)
            if complaint:
                found.append(f"{where}:{line}: {complaint}")
    return found


def judge(name: str, module: str, floor: int, package: str, homes: dict[str, str]) -> str:
    """What is wrong with importing `name` in a module on a floor; empty if nothing is."""
    top, *rest = name.split(".")
    if top == "" or top == package:
        if top == "" or not rest:
            return f"import {name or '.'} hides what is needed: import the module that has it, absolutely."
        if rest == ["__version__"]:
            return ""
        target = rest[0] if rest[0] in FLOORS else homes.get(rest[0], rest[0])
        if target not in FLOORS:
            return f"{name} stands on no floor."
        if target == module:
            return ""
        ceiling = ISLAND_CEILING if module in ISLANDS else floor
        return f"{name} (floor {FLOORS[target]}) is above floor {ceiling}." if FLOORS[target] > ceiling else ""
    if top in OUTSIDE:
        return f"the package does not know {top}/."
    allowed = BY_ISLAND.get(module) or BY_FLOOR[floor]
    if top in sys.stdlib_module_names or top in allowed:
        return ""
    return f"{top} is not for floor {floor}; accepted there: {', '.join(sorted(allowed))}."


def write_package(root: Path, files: dict[str, str]) -> Path:
    package = root / "sdelab"
    for name, text in {"__init__.py": "", **files}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


def test_package_imports_point_downward():
    assert package_violations(ROOT / "sdelab") == []


ROOT_FACADE = """
from typing import TYPE_CHECKING
from sdelab.sde import VP as VP
if TYPE_CHECKING:
    from sdelab.sampling import sample as sample
"""


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("sde/vp.py", "from sdelab.solvers import Heun", "above floor 1"),
        ("sde/vp.py", "def f():\n    from sdelab.sampling import sample", "above floor 1"),
        ("grids.py", "if TYPE_CHECKING:\n    import sdelab.solvers.heun", "above floor 2"),
        ("score/base.py", "from sdelab import sample", "above floor 2"),
        ("solvers/heun.py", "import importlib\nimportlib.import_module('sdelab.train.state')", "above floor 3"),
        ("nn/mlp.py", "from sdelab.solvers import Heun", "above floor 2"),
        ("nn/mlp.py", "from sdelab.data import digits", "above floor 2"),
        ("train/state.py", "from sdelab.cli import train", "above floor 6"),
        ("sde/vp.py", "from sdelab.mystery import thing", "no floor"),
        ("mystery.py", "import jax", "no floor"),
        ("score/base.py", "from . import network", "absolutely"),
        ("score/base.py", "import sdelab", "absolutely"),
        ("sde/vp.py", "import diffrax", "not for floor 1"),
        ("solvers/heun.py", "from flax import nnx", "not for floor 3"),
        ("plot.py", "import flax", "not for floor 5"),
        ("train/loop.py", "from ml_collections import ConfigDict", "not for floor 6"),
        ("__init__.py", "from sdelab.sampling import sample", "above floor 1"),
        ("cli/train.py", "import experiments.quickstart", "does not know experiments"),
        ("cli/train.py", "from configs.digits import vp", "does not know configs"),
    ],
)
def test_forbidden_imports_are_found(tmp_path, file, source, complaint):
    package = write_package(tmp_path, {"__init__.py": ROOT_FACADE, file: source})
    violations = package_violations(package)
    assert len(violations) == 1, violations
    assert complaint in violations[0]
    assert violations[0].startswith(f"sdelab/{file}")


def test_downward_imports_pass(tmp_path):
    files = {
        "__init__.py": ROOT_FACADE,
        "sde/vp.py": "import abc\nimport jax.numpy as jnp\nfrom sdelab._checks import check_positive",
        "solvers/heun.py": "import diffrax\nfrom sdelab.reverse import ReverseSDE\nfrom sdelab.solvers import base",
        "losses/denoising.py": "from sdelab import VP\nfrom sdelab import grids",
        "data/digits.py": "def load():\n    import sklearn.datasets",
        "cli/train.py": "from absl import flags\nfrom sdelab import __version__, sample\nfrom sdelab.train import loop",
    }
    assert package_violations(write_package(tmp_path, files)) == []


def test_configs_know_neither_experiments_nor_tests():
    for path in sorted((ROOT / "configs").rglob("*.py")):
        tops = {name.split(".")[0] for _, name in imported_names(ast.parse(path.read_text()))}
        assert not tops & {"experiments", "tests", "notebooks"}, path


def test_third_party_imports_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements}
    used = {}
    for path in sorted((ROOT / "sdelab").rglob("*.py")):
        for _, name in imported_names(ast.parse(path.read_text())):
            used[name.split(".")[0]] = path
    for top, path in used.items():
        if top not in sys.stdlib_module_names and top != "sdelab":
            assert DISTRIBUTIONS.get(top, top).lower() in declared, f"{path} imports {top}: not in pyproject.toml"


def sources() -> list[Path]:
    folders = ("sdelab", "configs", "experiments", "tests")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_file_is_long_and_none_is_a_drawer():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {path: length for path, length in lengths.items() if length > 400} == {}
    assert [path for path in lengths if Path(path).stem in {"utils", "util", "helpers", "misc", "common"}] == []


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring: a network's arguments, one a line, are no code to follow."""
    has_docstring = ast.get_docstring(function, clean=False) is not None
    body = function.body[1:] if has_docstring else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_function_is_long():
    functions = [
        (path, node)
        for path in sorted((ROOT / "sdelab").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    long = {
        f"{path.relative_to(ROOT)}:{f.lineno} {f.name}": code_lines(f) for path, f in functions if code_lines(f) >= 40
    }
    assert long == {}
