"""The schedule at known steps; which parameters are decayed."""

import math

import pytest
import torch
from torch import nn

from multimodal.training.optimization import WarmupCosine, parameter_groups


def rates(total: int, **settings) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupCosine(optimizer, total, **settings)
    values = []
    for _ in range(total + 3):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def test_warm_up_is_linear_then_a_cosine():
    values = rates(100, warmup=0.2, final=0.1)
    assert values[:20] == pytest.approx([2.0 * (step + 1) / 21 for step in range(20)])
    assert values[20] == pytest.approx(2.0)
    assert values[60] == pytest.approx(2.0 * 0.55)  # half of the way from 1 to 0.1
    assert values[40] == pytest.approx(2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2))
    assert values[100:] == pytest.approx([0.2] * 3)
    assert all(earlier > later for earlier, later in zip(values[20:100], values[21:101], strict=True))


def test_without_warm_up_the_first_step_has_the_peak():
    values = rates(10, warmup=0.0, final=0.0)
    assert values[0] == 2.0 and values[5] == pytest.approx(1.0) and values[10] == pytest.approx(0.0)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_short_runs_learn_at_every_step(total):
    assert all(0 < value <= 2.0 for value in rates(total))


@pytest.mark.parametrize("setting", [{"warmup": 1.0}, {"warmup": -0.1}, {"final": 1.5}, {"final": -0.1}])
def test_shares_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be a share"):
        rates(10, **setting)


def test_one_dimensional_parameters_are_not_decayed_and_frozen_ones_left_out():
    model = nn.ModuleDict({"linear": nn.Linear(3, 2), "norm": nn.LayerNorm(2), "codes": nn.Embedding(4, 2), "frozen": nn.Linear(2, 2)})
    model["frozen"].requires_grad_(False)
    model.register_parameter("scale", nn.Parameter(torch.ones(())))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, plain = ([names[id(parameter)] for parameter in group["params"]] for group in parameter_groups(model))
    assert sorted(decayed) == ["codes.weight", "linear.weight"]
    assert sorted(plain) == ["linear.bias", "norm.bias", "norm.weight", "scale"]


def test_decay_shrinks_the_decayed_only():
    model = nn.Linear(3, 2)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.5, weight_decay=0.1)
    (0 * (model.weight.sum() + model.bias.sum())).backward()
    optimizer.step()
    assert model.weight.allclose(torch.tensor(0.95)) and model.bias.allclose(torch.tensor(1.0))
