"""Four layers of one size become four levels, as transformers makes them."""

import pytest
import torch
from transformers import BeitConfig
from transformers.models.beit.modeling_beit import BeitFPNNeck

from multimodal.heads import FeaturePyramid


def given(rows=6, columns=8, dim=8):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, dim, rows, columns, generator=generator) for _ in range(4)]


def test_levels_are_those_of_transformers():
    theirs, own = BeitFPNNeck(BeitConfig(hidden_size=8)).eval(), FeaturePyramid(8).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    values = list(theirs.state_dict().values())
    own.load_state_dict(dict(zip(own.state_dict(), values, strict=True)))
    for level, expected in zip(own(given()), theirs(tuple(given())), strict=True):
        torch.testing.assert_close(level, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("rows", "columns", "last"), [(6, 8, (3, 4)), (5, 7, (3, 4)), (1, 1, (1, 1))])
def test_levels_have_four_resolutions(rows, columns, last):
    shapes = [tuple(level.shape[2:]) for level in FeaturePyramid(8)(given(rows, columns))]
    assert shapes == [(4 * rows, 4 * columns), (2 * rows, 2 * columns), (rows, columns), last]
