"""`sdelab report`."""

import os
from pathlib import Path

from absl import flags

from sdelab.cli.usage import UsageError, new_flags, parse
from sdelab.report import read_run, render
from sdelab.train.workdir import make_writable

SUMMARY = "A run, finished or in progress, as one page of HTML: curves, samples over training, numbers, configuration."


def run(argv: list[str]) -> int:
    """Writes the page and says where it is."""
    values = new_flags()
    flags.DEFINE_string("output", None, "path of the page (default: report.html in workdir)", flag_values=values)
    given = parse(values, argv, SUMMARY)
    if given is None:
        return 0
    path = Path(given.output or Path(given.workdir) / "report.html")
    if path.is_dir():
        raise UsageError(f"--output={path} is a directory; accepted: the path of a file.")
    page = render(read_run(given.workdir))
    make_writable(path.parent, "directory of the output")
    part = path.with_name(path.name + ".part")
    part.write_text(page, encoding="utf-8")
    os.replace(part, path)
    print(f"written to {path}")
    return 0
