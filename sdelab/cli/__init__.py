"""The command `sdelab`: `train`, `ema`, `sample`, `evaluate`, `data`, `import` and `export`."""

from sdelab.cli.main import main as main
