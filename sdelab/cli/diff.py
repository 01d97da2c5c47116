"""`sdelab diff`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from sdelab._checks import unknown_name
from sdelab.cli.usage import UsageError, parse
from sdelab.train import read_json_lines
from sdelab.train.log import TIMES
from sdelab.train.record import flatten
from sdelab.train.workdir import RECORD

SUMMARY = """Says what differs between the runs in two workdirs: config, versions, revision, devices, data, command line, final metrics.

The exit code is that of diff: 0 without differences, 1 with some, 2 for what is no run. When a run was started and how fast
it went is not compared; of several starts, the last is."""

METRICS, EVALUATION = "metrics.jsonl", "evaluation.json"
DIFFERENT = 1
ABSENT = "-"
UNCOMPARED = ("start.time", *(f"metrics.{name}" for name in TIMES))
"""Keys in which two runs of one config differ always."""


def run(argv: list[str]) -> int:
    """Prints a line for each key in which the two differ; 1 if there is one."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    help = "sections to compare, as config,metrics (default: all)"
    flags.DEFINE_list("only", [], help, flag_values=values)
    given = parse(values, argv, SUMMARY, required=(), words=("RUN", "OTHER"))
    if given is None:
        return 0
    one, other = (read_account(Path(folder)) for folder in (given.RUN, given.OTHER))
    known = sorted({key.partition(".")[0] for key in one | other})
    for section in given.only:
        if section not in known:
            raise UsageError(str(unknown_name("section", section, known)))
    differing = {
        key: (one.get(key, ABSENT), other.get(key, ABSENT))
        for key in sorted(one | other)
        if one.get(key, ABSENT) != other.get(key, ABSENT) and (not given.only or key.partition(".")[0] in given.only)
    }
    for key, (here, there) in differing.items():
        print(f"{key}: {_shown(here)} -> {_shown(there)}")
    return DIFFERENT if differing else 0


def read_account(folder: Path) -> dict[str, Any]:
    """What a run says about itself and how it ended, by dotted keys: its record, last metrics and evaluation.

    Errors: `UsageError` for a folder without a record, or with a damaged file.
    """
    path = folder / RECORD
    if not path.is_file():
        raise UsageError(f"no run in {folder}: it has no {RECORD}.")
    record = _read(path)
    account = dict(record) if isinstance(record, Mapping) else {"record": record}
    if isinstance(account.get("starts"), list) and account["starts"]:
        account["start"] = account.pop("starts")[-1]
    if (folder / METRICS).is_file():
        account["metrics"] = (_read(folder / METRICS, read_json_lines) or [{}])[-1]
    if (folder / EVALUATION).is_file():
        account["evaluation"] = _read(folder / EVALUATION)
    return {key: value for key, value in flatten(account).items() if key not in UNCOMPARED}


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def _read(path: Path, reader: Callable[[Path], Any] = _read_json) -> Any:
    try:
        return reader(path)
    except ValueError as error:
        raise UsageError(f"{path} is damaged: {error}.") from error


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
