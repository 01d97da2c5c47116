"""`sdelab report`."""

import os
from pathlib import Path

from absl import flags

from sdelab.cli.usage import new_flags, parse
from sdelab.report import read_run, render
from sdelab.train.workdir import make_writable

SUMMARY = (
    "A run as one page of HTML: configuration, curves, samples over training, numbers. It may be still in progress."
)


def run(argv: list[str]) -> int:
    """Writes the page and says where it is."""
    values = new_flags()
    flags.DEFINE_string("output", None, "path of the page (default: report.html in workdir)", flag_values=values)
    given = parse(values, argv, SUMMARY)
    if given is None:
        return 0
    page = render(read_run(given.workdir))
    path = Path(given.output or Path(given.workdir) / "report.html")
    make_writable(path.parent, "directory of the output")
    part = path.with_name(path.name + ".part")
    part.write_text(page, encoding="utf-8")
    os.replace(part, path)
    print(f"written to {path}")
    return 0
