"""For people who write their own: what does not fit together, in words and figures."""

from sdelab.testing.report import Finding as Finding
from sdelab.testing.report import Level as Level
from sdelab.testing.report import Report as Report
from sdelab.testing.sde import check_sde as check_sde
from sdelab.testing.sde import report_sde as report_sde
