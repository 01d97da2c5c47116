"""The command `sdelab`: `train`, `ema`, `sample` and `evaluate`."""

from sdelab.cli.main import main as main
