"""Our side of the processes that run PyTorch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np

from experiments.train_step.seconds import Seconds

PROCESS = Path(__file__).with_name("rival_process.py")


def torch_version(python: str) -> str | None:
    """Of the PyTorch that an interpreter has; None if it has none, or none that works."""
    try:
        found = subprocess.run([python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"--torch-python {python}: {error}") from error
    return found.stdout.strip() if found.returncode == 0 else None


class Rival:
    """One network in PyTorch, in a process of its own; a context manager."""

    def __init__(self, python: str, folder: Path, **settings: Any):
        self.folder, self.weights = folder, folder / "weights.npz"
        self.process = subprocess.Popen(
            [python or sys.executable, str(PROCESS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.parameters = self.ask("make", weights=str(self.weights), **settings)["parameters"]

    def ask(self, what: str, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": what, **request}) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        if not reply:
            raise RuntimeError(f"the process of PyTorch ended at {what!r}; what it said is above.")
        return json.loads(reply)

    def state(self) -> dict[str, np.ndarray]:
        """Its initial weights, by name."""
        with np.load(self.weights) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def evaluate(self, x: Any, c_noise: Any) -> np.ndarray:
        """The network's output without dropout, channels last."""
        inputs, outputs = self.folder / "inputs.npz", self.folder / "outputs.npz"
        np.savez(inputs, x=np.asarray(x), c_noise=np.asarray(c_noise))
        self.ask("evaluate", inputs=str(inputs), outputs=str(outputs))
        with np.load(outputs) as arrays:
            return arrays["out"]

    def forward(self) -> Seconds:
        return Seconds(*self.ask("forward")["seconds"])

    def step(self) -> Seconds:
        return Seconds(*self.ask("step")["seconds"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
