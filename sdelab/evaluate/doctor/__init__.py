"""Do the process, the data and the arithmetic of a configuration belong together? Answers before anything is trained."""

from sdelab.evaluate.doctor.examination import Examination as Examination
from sdelab.evaluate.doctor.examination import examine as examine
from sdelab.evaluate.doctor.finding import BAD as BAD
from sdelab.evaluate.doctor.finding import OK as OK
from sdelab.evaluate.doctor.finding import WARN as WARN
from sdelab.evaluate.doctor.finding import Finding as Finding
from sdelab.evaluate.doctor.moments import Moments as Moments
from sdelab.evaluate.doctor.moments import bounded as bounded
from sdelab.evaluate.doctor.moments import measured as measured
from sdelab.evaluate.doctor.prior import prior_mismatch as prior_mismatch
