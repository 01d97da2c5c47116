"""A run as one page of HTML that needs nothing else."""

from sdelab.report.page import render as render
from sdelab.report.run_files import RunFiles as RunFiles
from sdelab.report.run_files import read_run as read_run
