"""The price of `from sdelab import VP`, in fresh interpreters."""

import subprocess
import sys

from experiments.overhead.timing import Comparison, compare

LIMIT = 1.5


def import_time(rounds: int) -> Comparison:
    """`from sdelab import VP` against `import jax, equinox`, which it needs."""
    return compare(
        "from sdelab import VP",
        lambda: seconds_in_fresh_interpreter("from sdelab import VP"),
        lambda: seconds_in_fresh_interpreter("import jax, equinox"),
        rounds=rounds,
        limit=LIMIT,
    )


def seconds_in_fresh_interpreter(statement: str) -> float:
    """Seconds that the statement takes, without the start of the interpreter."""
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)
