from sdelab.score.preconditioning.base import Coefficient
from sdelab.score.preconditioning.scaled_noise import AbstractScaledNoise


class ScoreSDEVE(AbstractScaledNoise):
    r"""score_sde's networks of VE in continuous time: $F$ is the score, the label is $\sigma$.

    The network takes the logarithm of its label, and divides its output by it, itself. For any affine process: in the
    variable $x/\alpha$, whose noise is $r = \sigma/\alpha$ and whose score is $\alpha s$, it sees $c_{in} x = x/\alpha$ and the label
    $r$, and returns $F = \alpha s$; so $n_{out} = -\sigma/\alpha$. With $\alpha = 1$ that is $s = F$, the label $\sigma$.
    Song et al. (2021), appendix C and H, https://arxiv.org/abs/2011.13456, and its code,
    https://github.com/yang-song/score_sde, models/utils.py.
    """

    def n_out(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return -sigma / alpha

    def c_in(self, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return 1.0 / alpha

    def c_noise(self, t: Coefficient, alpha: Coefficient, sigma: Coefficient) -> Coefficient:
        return sigma / alpha
