"""Packages that come with an extra of sdelab."""

import importlib
from typing import Any


class MissingExtra(ImportError):
    """A package that an extra of sdelab installs is not there."""


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """The module that `pip install 'sdelab[extra]'` brings. Errors: `MissingExtra`, with `purpose` and that command."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(f"{purpose} needs {module}: pip install 'sdelab[{extra}]'.") from error
