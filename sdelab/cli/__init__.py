"""The command `sdelab`: `train`, `sample` and `evaluate`."""

from sdelab.cli.main import main as main
