"""Methods that the paper discusses and leaves out of its comparison (Prach et al., CVPR 2024, appendix B).

They keep the contract of every layer and are found by name, but no table or figure of the comparison takes them up.
"""

from lipref.layers.base import LipschitzConv2d
from lipref.layers.excluded.bnb import BnBConv2d
from lipref.layers.excluded.eco import ECOConv2d
from lipref.layers.excluded.sandwich import SandwichConv2d

EXCLUDED: dict[str, type[LipschitzConv2d]] = {"eco": ECOConv2d, "sandwich": SandwichConv2d, "bnb": BnBConv2d}

__all__ = ["EXCLUDED", "BnBConv2d", "ECOConv2d", "SandwichConv2d"]
