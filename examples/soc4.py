"""SOC with four terms, a variant of one of the seven: `lipref reproduce --layers all,examples/soc4.py:SOC4`."""

from lipref.layers import SOCConv2d


class SOC4(SOCConv2d):
    """SOC whose exponential is cut after four terms, in training and in evaluation.

    On a skew map of norm up to 2.83 = sqrt(8) four terms do not expand: |1 + i t - t^2/2 - i t^3/6 + t^4/24|^2 is
    1 - t^6/72 + t^8/576, at most 1 where t^2 <= 8. SOC's maps have norms of at most 2.1 (0.7 times the side of a 3x3
    kernel). So unlike with five terms training does not expand either; but long norms shrink, where SOC preserves them.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, train_terms=4, eval_terms=4, **options)
