"""Flags of the subcommands."""

import sys
import types
from collections.abc import Callable
from typing import Any

from absl import flags


class UsageError(ValueError):
    """The command line asks for what is not there."""


def new_flags() -> flags.FlagValues:
    """Flags of one command, with `--workdir`."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may follow a word
    flags.DEFINE_string("workdir", None, "directory of the run", flag_values=values)
    return values


def parse(
    values: flags.FlagValues,
    argv: list[str],
    summary: str,
    required: tuple[str, ...] = ("workdir",),
    words: tuple[str, ...] = (),
) -> Any:
    """The values of the flags as attributes; None, and their help is printed, if `--help` is among them.

    `words` names what is given without a flag, in its order, among the flags or after them.
    Errors: `UsageError` on an unknown flag (with the closest), a value of the wrong type, a missing flag or word, words
    that are no flags.
    """
    if {"--help", "-h", "-help"} & set(argv[1:]):
        print(f"usage: {' '.join((argv[0], *words))} [flags]\n\n{summary}\n\n{_help(values)}")
        return None
    rest = checked(lambda: values(argv))[1:]
    if len(rest) > len(words):
        raise UsageError(f"{rest[len(words)]!r} is not a flag of `{argv[0]}`; flags are written --name=value.")
    if len(rest) < len(words):
        raise UsageError(f"{words[len(rest)]} is missing; `{argv[0]} --help` says what it is.")
    for name in required:
        if values[name].value is None:
            raise UsageError(f"--{name} is missing; `{argv[0]} --help` lists the flags.")
    return types.SimpleNamespace(**{name: values[name].value for name in values}, **dict(zip(words, rest, strict=True)))


def checked(parse_flags: Callable[[], Any]) -> Any:
    """What is wrong with a flag, in one line."""
    try:
        return parse_flags()
    except (AttributeError, KeyError) as error:  # a key that the config does not have
        raise UsageError(" ".join(f"no such key in the config: {error.args[0]}".split())) from error
    except (flags.Error, OSError, TypeError) as error:
        raise UsageError(" ".join(str(error).split())) from error


def _help(values: flags.FlagValues) -> str:
    lines = []
    for name in values:
        flag = values[name]
        default = "" if flag.default is None else f" (default {flag.default})"
        lines.append(f"  --{name}: {flag.help}{default}")
    return "\n".join(sorted(lines))


def print_table(rows: list[tuple[str, str]], file: Any = None, width: int = 0) -> None:
    """Two columns, aligned; the first of `width` letters at least."""
    width = max(width, *(len(name) for name, _ in rows))
    for name, value in rows:
        print(f"{name:{width}}  {value}", file=file or sys.stdout)
