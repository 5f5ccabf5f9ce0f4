"""The schedule at known steps; which parameters are decayed."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from multimodal.nn import Attention, Encoder
from multimodal.training.optimization import (
    WarmupCosine,
    WarmupLinear,
    WarmupPolynomial,
    WarmupStableDecay,
    optimization,
    parameter_groups,
    plain_name,
)


def rates(total: int, kind=WarmupCosine, **settings) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = kind(optimizer, total, **settings)
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


def test_a_straight_line_follows_the_warm_up():
    values = rates(100, WarmupLinear, warmup=0.06, final=0.02)  # MosaicBERT
    assert values[:6] == pytest.approx([2.0 * (step + 1) / 7 for step in range(6)])
    assert values[6] == pytest.approx(2.0) and values[53] == pytest.approx(2.0 * 0.51) and values[100:] == pytest.approx([0.04] * 3)
    assert torch.tensor(values[6:101]).diff().std() < 1e-6


def test_a_stable_stretch_ends_in_one_minus_a_root():
    values = rates(100, WarmupStableDecay, warmup=0.1, decay=0.4, final=0.1)
    assert values[:10] == pytest.approx([2.0 * (step + 1) / 11 for step in range(10)])
    assert values[10:61] == pytest.approx([2.0] * 51)
    assert values[70] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # a quarter of the decay: its root is a half
    assert values[61] == pytest.approx(2.0 * (0.1 + 0.9 * (1 - math.sqrt(1 / 40)))) and values[100:] == pytest.approx([0.2] * 3)
    assert rates(10, WarmupStableDecay, warmup=0.0, decay=0.0) == [2.0] * 13


def test_a_decay_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match=r"decay must be a share of the steps in \[0, 1 - warmup 0.1\], got 0.95"):
        rates(10, WarmupStableDecay, warmup=0.1, decay=0.95)


@pytest.mark.parametrize("kind", [WarmupCosine, WarmupLinear, WarmupStableDecay])
@pytest.mark.parametrize("setting", [{"warmup": 1.0}, {"warmup": -0.1}, {"final": 1.5}, {"final": -0.1}])
def test_shares_out_of_range_are_refused(setting, kind):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be a share"):
        rates(10, kind, **setting)


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


class Model(nn.Module):
    def __init__(self, depth):
        super().__init__()
        attention = partial(Attention, bias="query_value")
        self.encoder = Encoder(dim=8, depth=depth, num_heads=2, class_token=True, attention=attention)
        self.embeds = nn.ModuleDict({"drawing": nn.Linear(3, 8)})
        self.head = nn.Linear(8, 2)


def scales_of(groups, model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group.get("lr_scale") for group in groups for parameter in group["params"]}


def test_learning_rates_decay_as_in_beit():
    model = Model(12)
    groups = parameter_groups(model, 0.65, 12)
    assert len(groups) == 14 * 2
    scales = sorted({group["lr_scale"] for group in groups})
    assert scales == pytest.approx([0.65**power for power in range(13, -1, -1)])
    assert [round(scale, 5) for scale in scales[:2]] == [0.0037, 0.00569] and scales[-2:] == [0.65, 1.0]
    by_name = scales_of(groups, model)
    assert len(by_name) == len(list(model.parameters()))
    assert by_name["embeds.drawing.weight"] == by_name["encoder.special.tokens"] == scales[0]
    assert by_name["encoder.blocks.0.attn.qkv.weight"] == scales[1] and by_name["encoder.blocks.11.norm1.bias"] == 0.65
    assert by_name["head.weight"] == by_name["encoder.norm.weight"] == 1.0


def test_schedules_keep_the_ratios_of_the_layers():
    built = optimization(parameter_groups(Model(2), 0.5, 2), partial(torch.optim.SGD, lr=2.0), WarmupCosine, 10)
    optimizer, schedule = built["optimizer"], built["lr_scheduler"]["scheduler"]
    plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    one = WarmupCosine(plain, 10)
    for _ in range(10):
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(plain.param_groups[0]["lr"] * group["lr_scale"])
        for scheduler, optimizer_of in ((schedule, optimizer), (one, plain)):
            optimizer_of.step()
            scheduler.step()


def test_the_polynomial_schedule_is_that_of_mmseg():
    found = rates(100, WarmupPolynomial, warmup_steps=10, power=0.9)
    for step, rate in enumerate(found[:101]):
        regular = 2.0 * (1 - step / 100) ** 0.9
        ramp = 1 - (1 - step / 10) * (1 - 1e-6) if step < 10 else 1.0
        assert rate == pytest.approx(regular * ramp)
    assert found[-1] == 0 and found[0] == pytest.approx(2e-6)


def test_the_polynomial_schedule_may_end_above_zero_and_start_at_once():
    found = rates(4, WarmupPolynomial, warmup_steps=0, final=0.5)
    assert found == pytest.approx([2.0, 1.75, 1.5, 1.25, 1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("setting", "message"), [({"warmup_steps": -1}, "warmup_steps"), ({"power": 0.0}, "power"), ({"final": 2.0}, "final")]
)
def test_settings_of_the_polynomial_schedule_are_checked(setting, message):
    with pytest.raises(ValueError, match=f"{message} must be"):
        rates(4, WarmupPolynomial, **setting)


def test_biases_and_class_tokens_of_two_axes_are_not_decayed():
    model = Model(1)
    decayed, plain = (set(scales_of([group], model)) for group in parameter_groups(model))
    assert {"encoder.special.tokens", "encoder.blocks.0.attn.query_value_bias"} <= plain
    assert decayed == {name for name, p in model.named_parameters() if name.endswith("weight") and p.ndim == 2}


def test_parameters_that_a_strategy_has_flattened_are_decayed_as_before():
    model = Model(1)
    axes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    expected = [set(scales_of([group], model)) for group in parameter_groups(model)]
    for parameter in model.parameters():
        parameter.data = parameter.data.flatten()
    assert [set(scales_of([group], model)) for group in parameter_groups(model, axes=axes)] == expected


def test_wrappers_leave_no_trace_in_names():
    assert plain_name("module.encoder.blocks.3._fsdp_wrapped_module.mlp._orig_mod.fc1.weight") == "encoder.blocks.3.mlp.fc1.weight"


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.5])
def test_a_layer_decay_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"layer_decay must be in \(0, 1\]"):
        parameter_groups(nn.Linear(2, 2), rate, 1)
