"""The command `sdelab`: `train`, `sample`, `evaluate`, `import` and `export`."""

from sdelab.cli.main import main as main
