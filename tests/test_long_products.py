"""Products of a small matrix with a long one, some rows at a time."""

import pytest
import torch

from lipref.linalg.long_products import LONG, ROWS, small_times_long


@pytest.mark.parametrize("rows", [1, ROWS, ROWS + 1, 22, 26, 37, 94, 121])
@pytest.mark.parametrize("columns", [5, LONG, LONG + 7])
@pytest.mark.parametrize("transposed", [False, True])
def test_they_are_the_products(rows, columns, transposed):
    draw = torch.Generator().manual_seed(rows)
    matrix = torch.randn(rows, 9, dtype=torch.float64, generator=draw)
    values = torch.randn(9, columns, dtype=torch.float64, generator=draw)
    values = values.mT.contiguous().mT if transposed else values
    found = small_times_long(matrix, values)
    assert found.shape == (rows, columns)
    torch.testing.assert_close(found, matrix @ values, rtol=1e-13, atol=1e-13)


def test_they_have_gradients_and_batches():
    matrix = torch.randn(30, 3, dtype=torch.float64)
    values = torch.randn(2, 3, LONG, dtype=torch.float64, requires_grad=True)
    found = torch.func.vmap(lambda one: small_times_long(matrix, one))(values)
    torch.testing.assert_close(found, matrix @ values)
    weights = torch.randn_like(found)
    of_values = torch.autograd.grad(small_times_long(matrix, values[0]), values, weights[0])[0]
    torch.testing.assert_close(of_values[0], matrix.mT @ weights[0])
