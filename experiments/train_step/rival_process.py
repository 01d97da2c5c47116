# pyright: reportMissingImports=false
"""The process that runs the rival: one request a line on standard input, one answer a line on standard output, in JSON.

    {"do": "make", "network": {...}, "dropout": 0.1, "mode": "default", ...}  ->  {"parameters": number}
    {"do": "evaluate", "inputs": path, "outputs": path}                       ->  {}
    {"do": "forward"} or {"do": "step"}                                       ->  {"seconds": [wall, cores]}

`mode` of `torch.compile`, null without it. It is started as a file, by an interpreter that has torch and nothing of ours,
with `rival.py` beside it.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rival import DDPMpp  # pyright: ignore[reportImplicitRelativeImport]


class Run:
    """A network with its optimiser and average; the training step is the published one.

    Parameters are float32; with `dtype` bfloat16 the network runs under autocast. On a GPU float32 products may be rounded to
    TF32, as JAX's are by default. `repeats` are timed as one run, and waited for once.
    """

    def __init__(
        self,
        *,
        network: dict[str, Any],
        dropout: float,
        mode: str | None,
        weights: str,
        batch: int,
        threads: int,
        device: str = "cpu",
        dtype: str = "float32",
        repeats: int = 1,
    ):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        if device == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
        self.device, self.dtype, self.repeats = torch.device(device), getattr(torch, dtype), repeats
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in network.items()
        }
        model = DDPMpp(**settings, dropout=dropout)
        np.savez(weights, **{name: value.numpy() for name, value in model.state_dict().items()})
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.call = self.model if mode is None else torch.compile(self.model, mode=mode)
        self.average = [p.detach().clone() for p in self.model.parameters()]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-4, fused=True)
        self.x = torch.randn(batch, 3, 32, 32).to(self.device, memory_format=torch.channels_last)
        self.label = torch.linspace(1.0, 998.0, batch, device=self.device)

    def rounded(self) -> Any:
        """The context in which the network is called."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def evaluate(self, inputs: str, outputs: str) -> None:
        with np.load(inputs) as arrays, torch.no_grad(), self.rounded():
            x, label = (torch.from_numpy(arrays[name]).to(self.device) for name in ("x", "c_noise"))
            out = self.model.eval()(x.permute(0, 3, 1, 2), label)
        np.savez(outputs, out=out.permute(0, 2, 3, 1).float().cpu().numpy())

    def forward(self) -> None:
        self.model.eval()
        with torch.no_grad(), self.rounded():
            self.call(self.x, self.label)

    def step(self) -> None:
        self.model.train()
        t = 1e-5 + (1.0 - 1e-5) * torch.rand(len(self.x), device=self.device)
        integral = 0.5 * t * t * (20.0 - 0.1) + 0.1 * t
        alpha, sigma = torch.exp(-0.5 * integral), torch.sqrt(-torch.expm1(-integral))
        eps = torch.randn_like(self.x)
        xt = alpha[:, None, None, None] * self.x + sigma[:, None, None, None] * eps
        with self.rounded():
            out = self.call(xt, 999.0 * t)
        self.loss = torch.mean((out.float() - eps) ** 2)
        self.optimizer.zero_grad(set_to_none=True)
        self.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.model.parameters()), 1e-4)

    def timed(self, function: Callable[[], None]) -> list[float]:
        """Seconds of one call, on the wall and of all cores."""
        wall, cores = time.perf_counter(), time.process_time()
        for _ in range(self.repeats):
            function()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return [(time.perf_counter() - wall) / self.repeats, (time.process_time() - cores) / self.repeats]


def answer(run: Run | None, request: dict[str, Any]) -> tuple[Run | None, dict[str, Any]]:
    what = request.pop("do")
    if what == "make":
        run = Run(**request)
        return run, {"parameters": sum(p.numel() for p in run.model.parameters())}
    assert run is not None
    if what == "evaluate":
        run.evaluate(**request)
        return run, {}
    return run, {"seconds": run.timed({"forward": run.forward, "step": run.step}[what])}


def main() -> None:
    run = None
    for line in sys.stdin:
        run, reply = answer(run, json.loads(line))
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
