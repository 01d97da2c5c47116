# pyright: reportMissingImports=false
"""The process that runs the rival: one request a line on standard input, one answer a line on standard output, in JSON.

    {"do": "make", "network": {...}, "dropout": 0.1, "compiled": false, "weights": path}  ->  {"parameters": number}
    {"do": "evaluate", "inputs": path, "outputs": path}                                   ->  {}
    {"do": "forward"} or {"do": "step"}                                                   ->  {"seconds": [wall, cores]}

It is started as a file, by an interpreter that has torch and nothing of ours, with `rival.py` beside it.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from rival import DDPMpp  # pyright: ignore[reportImplicitRelativeImport]


class Run:
    """A network with its optimiser and average; the training step is the published one."""

    def __init__(self, network: dict[str, Any], dropout: float, compiled: bool, weights: str, batch: int, threads: int):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in network.items()
        }
        self.model = DDPMpp(**settings, dropout=dropout).to(memory_format=torch.channels_last)
        np.savez(weights, **{name: value.numpy() for name, value in self.model.state_dict().items()})
        self.call = torch.compile(self.model) if compiled else self.model
        self.average = [p.detach().clone() for p in self.model.parameters()]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-4, fused=True)
        self.x = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
        self.label = torch.linspace(1.0, 998.0, batch)

    def evaluate(self, inputs: str, outputs: str) -> None:
        with np.load(inputs) as arrays, torch.no_grad():
            x, label = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["c_noise"])
            out = self.model.eval()(x.permute(0, 3, 1, 2), label)
        np.savez(outputs, out=out.permute(0, 2, 3, 1).numpy())

    def forward(self) -> None:
        self.model.eval()
        with torch.no_grad():
            self.call(self.x, self.label)

    def step(self) -> None:
        self.model.train()
        t = 1e-5 + (1.0 - 1e-5) * torch.rand(len(self.x))
        integral = 0.5 * t * t * (20.0 - 0.1) + 0.1 * t
        alpha, sigma = torch.exp(-0.5 * integral), torch.sqrt(-torch.expm1(-integral))
        eps = torch.randn_like(self.x)
        xt = alpha[:, None, None, None] * self.x + sigma[:, None, None, None] * eps
        loss = torch.mean((self.call(xt, 999.0 * t) - eps) ** 2)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.model.parameters()), 1e-4)
        loss.item()


def answer(run: Run | None, request: dict[str, Any]) -> tuple[Run | None, dict[str, Any]]:
    what = request.pop("do")
    if what == "make":
        run = Run(**request)
        return run, {"parameters": sum(p.numel() for p in run.model.parameters()), "torch": torch.__version__}
    assert run is not None
    if what == "evaluate":
        run.evaluate(**request)
        return run, {}
    start = time.perf_counter(), time.process_time()
    getattr(run, what)()
    return run, {"seconds": [time.perf_counter() - start[0], time.process_time() - start[1]]}


def main() -> None:
    run = None
    for line in sys.stdin:
        run, reply = answer(run, json.loads(line))
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
