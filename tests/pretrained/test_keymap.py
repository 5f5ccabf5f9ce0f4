"""Every tensor of a foreign layout has one place, in both directions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.pretrained.keymap import KeyMap, equal_copies, joined, pair, same, shaped, split, stacked


def example_map() -> KeyMap:
    entries = [
        same("a", "x.a"),
        *pair("norm", "ln"),
        shaped("flat", "conv", (4, 12), (4, 3, 2, 2)),
        joined("qkv", ["q", "k", "v"]),
        stacked("query_value", ["qb", "vb"]),
        split(["first", "rest"], "table", (1, 4)),
        equal_copies("bias", ["b.0", "b.1"]),
    ]
    return KeyMap(entries, {"*.index": "computed"}, {"mask": "none there"})


def their_state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    bias = torch.randn(3)
    return {
        "x.a": torch.randn(2),
        "ln.weight": torch.randn(2),
        "ln.bias": torch.randn(2),
        "conv": torch.randn(4, 3, 2, 2),
        **{name: torch.randn(2, 2) for name in "qkv"},
        "qb": torch.randn(2),
        "vb": torch.randn(2),
        "table": torch.randn(5, 2),
        "b.0": bias,
        "b.1": bias.clone(),
    }


@given(st.integers(0, 1000))
def test_a_round_trip_is_exact(seed):
    theirs = their_state(seed)
    back = example_map().to_theirs(example_map().to_ours(theirs))
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], x) for name, x in theirs.items())


def test_ours_are_made_of_theirs():
    theirs = their_state()
    ours = example_map().to_ours(theirs)
    assert torch.equal(ours["qkv"], torch.cat([theirs["q"], theirs["k"], theirs["v"]]))
    assert torch.equal(ours["query_value"], torch.stack([theirs["qb"], theirs["vb"]]))
    assert torch.equal(ours["flat"][0], theirs["conv"][0].flatten())
    assert torch.equal(ours["rest"], theirs["table"][1:])


def test_missing_tensors_are_named():
    theirs = their_state()
    del theirs["k"], theirs["ln.bias"]
    with pytest.raises(ValueError, match=r"2 tensors are missing: ln.bias, k\."):
        example_map().to_ours(theirs)


def test_a_tensor_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"tensors \{'conv': \(4, 3, 2, 1\)\} do not fit \['flat'\]"):
        example_map().to_ours({**their_state(), "conv": torch.randn(4, 3, 2, 1)})


def test_copies_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"b.1 differs from b.0"):
        example_map().to_ours({**their_state(), "b.1": torch.zeros(3)})


def test_prefixes_and_reasons():
    prefixed = example_map().with_prefix(ours="model.", theirs="net.")
    ours = prefixed.to_ours({f"net.{name}": x for name, x in their_state().items()})
    assert "model.qkv" in ours
    assert prefixed.reason("net.layer.index") == "computed"
    assert prefixed.reason("other") is None
    assert list(prefixed.kept) == ["model.mask"]
    assert prefixed.unused({"net.q": torch.ones(1), "new": torch.ones(1)}) == ["new"]
