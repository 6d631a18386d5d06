"""Single precision beside the certified function."""

import pytest
import torch
from torch import nn

from lipref.certification.precision import deviation
from lipref.errors import LiprefError
from lipref.layers import LAYERS
from lipref.nets import convnet


class Double(nn.Module):
    """Another function in float32."""

    def forward(self, x):
        return x.flatten(1) * (2 if x.dtype == torch.float32 else 1)


@pytest.mark.parametrize("layer", LAYERS)
def test_float32_is_close_and_the_model_is_left_alone(layer):
    torch.manual_seed(0)
    model = convnet("XS", layer, 3, 3, 4)
    x = torch.randn(20, 3, 4, 4)
    found = deviation(model, [(x[:15].double(), None), (x[15:].double(), None)])
    assert found.images == 20
    assert 0 < found.largest < 1e-4
    assert model.training
    assert next(model.parameters()).dtype == torch.float32


def test_what_differs_is_counted():
    x = torch.tensor([[3.0, 4.0], [1.0, 0.0]])[:, :, None, None]
    found = deviation(Double(), [(x, None)])
    assert (found.largest, found.changed) == (5.0, 0)


def test_what_does_not_fit_is_refused():
    x = [(torch.zeros(1, 2, 1, 1), None)]
    with pytest.raises(LiprefError, match="float32, tf32"):
        deviation(Double(), x, "bf16")
    with pytest.raises(LiprefError, match="CUDA"):
        deviation(Double(), x, "tf32")
    with pytest.raises(LiprefError, match="no images"):
        deviation(Double(), [])
