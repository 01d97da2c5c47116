"""For people who write their own: what does not fit together, in words and figures."""

from sdelab.testing.one_of import OneOf as OneOf
from sdelab.testing.order import Convergence as Convergence
from sdelab.testing.order import flow_convergence as flow_convergence
from sdelab.testing.order import weak_convergence as weak_convergence
from sdelab.testing.report import Finding as Finding
from sdelab.testing.report import Level as Level
from sdelab.testing.report import Report as Report
from sdelab.testing.sde import check_sde as check_sde
from sdelab.testing.sde import report_sde as report_sde
from sdelab.testing.solver import check_solver as check_solver
from sdelab.testing.solver import report_solver as report_solver
