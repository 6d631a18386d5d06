"""SOC with less memory in training: `lipref bench --layers soc,examples/soc_recompute.py:SOCRecompute`."""

from lipref.layers import SOCConv2d


class SOCRecompute(SOCConv2d):
    """SOC that keeps one tensor for the backward pass in place of one per term: the same function and gradients."""

    def __init__(self, *args, **options):
        super().__init__(*args, recompute=True, **options)
