"""K-FAC of convolutions. Oracles: the gradient as a product of slopes and patches, and curvlinops' K-FAC operator."""

import numpy as np
import pytest
import torch
from kfac_tools import (
    EXACT,
    drawn,
    factors,
    filled,
    in_parameter_order,
    one_step,
)
from torch import nn

from gengap.optim.kfac import Curvature

CONVOLUTIONS = {
    "plain": nn.Conv2d(2, 3, 3),
    "padded, strided": nn.Conv2d(2, 3, (3, 2), stride=2, padding=(1, 2)),
    "same, dilated": nn.Conv2d(2, 3, (3, 2), padding="same", dilation=2),
    "no bias": nn.Conv2d(2, 3, 2, bias=False),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_patches_of_convolutions_make_their_gradient(name):
    """Exact identity: with one position's slope, weight gradient = slope^T patch; summed over positions here."""
    from gengap.optim.kfac_factors import input_rows, output_rows

    layer, x = filled(CONVOLUTIONS[name]), drawn(4, 2, 7, 6)
    outputs = layer(x)
    slope = drawn(*outputs.shape, seed=3)
    (outputs * slope).sum().backward()
    rows = output_rows(layer, slope).T @ input_rows(layer, x)
    torch.testing.assert_close(rows[:, : layer.weight[0].numel()].reshape(layer.weight.shape), layer.weight.grad)
    if layer.bias is not None:
        torch.testing.assert_close(rows[:, -1], layer.bias.grad)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.oracle
@pytest.mark.parametrize("likelihood", ["softmax", "gaussian"])
def test_factors_of_convolutions_are_those_of_curvlinops(likelihood):
    from curvlinops import FisherType, KFACLinearOperator, KFACType

    model = filled(
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, stride=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(18, 3))
    )
    x, y = drawn(5, 1, 6, 6), torch.arange(5) % 3
    if likelihood == "gaussian":
        loss, y = nn.MSELoss(reduction="mean"), drawn(5, 3, seed=9)
    else:
        loss = nn.CrossEntropyLoss()
    curvature = Curvature(likelihood=likelihood, **EXACT)
    optimizer = one_step(model, x, y, lambda f, y: loss(f, y), lr=0.0, curvature=curvature)
    optimizer.close()  # the hooks of one would see the backward passes of the other
    theirs = KFACLinearOperator(
        model,
        loss,
        list(model.parameters()),
        [(x, y)],
        fisher_type=FisherType.TYPE2,
        kfac_approx=KFACType.EXPAND,
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    dense = theirs @ torch.eye(theirs.shape[0], dtype=torch.float64)
    scale = {"softmax": 1.0, "gaussian": 3 / 2}[
        likelihood
    ]  # their squared error is a mean over three outputs, not halved
    start = 0
    for layer, inputs in ((model[0], 9), (model[3], 18)):
        size = layer.weight.numel() + layer.bias.numel()
        block = scale * dense[start : start + size, start : start + size].numpy()
        np.testing.assert_allclose(in_parameter_order(*factors(optimizer, layer), inputs), block, rtol=1e-9, atol=1e-13)
        start += size
