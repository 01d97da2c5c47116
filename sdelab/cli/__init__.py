"""The command `sdelab`: `train`, `ema`, `sample`, `evaluate`, `data`, `import`, `export`, `sweep` and `diff`."""

from sdelab.cli.main import main as main
