"""A model held aside: it moves with its owner, and is told from others by its fingerprint."""

import copy

import pytest
import torch
from torch import nn

from multimodal.nn import Frozen


class Model(nn.Module):
    def __init__(self, layer=1, sizes=(2, 2), place="a"):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.layer, self.sizes, self.place = nn.Linear(3, 2), layer, sizes, place
        self.register_buffer("mean", torch.zeros(3), persistent=False)

    def forward(self, x):
        return self.linear(x - self.mean)


def test_it_is_no_part_of_its_owner_but_moves_with_it():
    owner = nn.Sequential(Frozen(Model())).double().train()
    assert not list(owner.parameters()) and not owner.state_dict()
    made = owner(torch.zeros(1, 3, dtype=torch.float64))
    assert made.dtype == torch.float64 and not made.requires_grad and not owner[0].held.training


def test_equal_models_have_equal_fingerprints_wherever_they_are_and_in_whatever_type():
    fingerprint = Frozen(Model()).fingerprint()
    assert len(fingerprint) == 64 and fingerprint == Frozen(Model(place="b")).fingerprint()
    assert Frozen(Model()).bfloat16().fingerprint() == Frozen(Model()).double().fingerprint() == fingerprint
    assert copy.deepcopy(Frozen(Model()).half()).fingerprint() == fingerprint


def other_weight(model):
    model.linear.weight.data[1, 2] += 1e-6


def other_buffer(model):
    model.mean[0] = 1


@pytest.mark.parametrize("change", [other_weight, other_buffer])
def test_weights_and_buffers_count(change):
    model = Model()
    change(model)
    assert Frozen(model).fingerprint() != Frozen(Model()).fingerprint()


@pytest.mark.parametrize("settings", [{"layer": 2}, {"layer": None}, {"sizes": (2, 3)}])
def test_numbers_count(settings):
    assert Frozen(Model(**settings)).fingerprint() != Frozen(Model()).fingerprint()


def test_the_class_counts():
    class Other(Model):
        pass

    assert Frozen(Other()).fingerprint() != Frozen(Model()).fingerprint()
