"""All ways through attention give the same, and the choice between them follows from facts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.nn.attention import flex_attention

from multimodal.nn import AttentionPlan, Packing
from multimodal.nn.flex import block_mask
from multimodal.nn.kernels import Facts, attend, attend_dense, attend_flex, attend_grouped, choose_dense_kernel, choose_path

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
LENGTHS = [3, 1, 130, 3, 3, 130, 70]


def packing_of(lengths, device="cpu"):
    return Packing.from_sequence(torch.repeat_interleave(torch.tensor(lengths, device=device)))


def tokens_of(packing, heads=2, width=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, len(packing.sequence), heads, width, generator=generator)
    return [x.to(packing.sequence.device, dtype).requires_grad_() for x in drawn]


def biases_of(packing, kind, heads=2):
    """``shared``: of all sequences of a length; ``own``: of each; ``some``: of every second length; ``keys``: as padding has it."""
    made = []
    for i, (count, length) in enumerate(packing.groups):
        generator = torch.Generator().manual_seed(i)
        shape = {"own": (count, heads, length, length), "keys": (count, 1, 1, length)}.get(kind, (1, heads, length, length))
        bias = torch.randn(shape, generator=generator).to(packing.sequence.device).requires_grad_()
        made.append(None if kind == "some" and i % 2 else bias)
    return tuple(made)


def gradients(way, tokens, plan):
    """Return the result of a way, and the gradients of a sum that weighs all of it differently."""
    mixed = way(*tokens, plan)
    leaves = [*tokens, *(bias for bias in plan.biases if bias is not None)]
    weights = torch.arange(mixed.numel(), device=mixed.device).view_as(mixed).sin()
    return mixed, torch.autograd.grad((mixed * weights).sum(), leaves)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 9),
    st.sampled_from(["none", "full", "one sequence", "one head", "keys"]),
    st.sampled_from([1, 100, 2**19]),
    st.integers(0, 2**31),
)
def test_the_blocked_softmax_equals_the_fused_kernel_and_so_do_its_gradients(count, heads, length, kind, block, seed):
    from multimodal.nn import softmax_attention

    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randn(count, length, heads, 4, dtype=torch.float64, generator=generator).transpose(1, 2) for _ in range(3)]
    shapes = {"full": (count, heads, length, length), "one sequence": (1, heads, length, length), "one head": (count, 1, length, length)}
    bias = None if kind == "none" else torch.randn(shapes.get(kind, (count, 1, 1, length)), dtype=torch.float64, generator=generator)
    leaves = [x.requires_grad_() for x in (*tokens, *([] if bias is None else [bias]))]
    expected = F.scaled_dot_product_attention(*tokens, attn_mask=bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax_attention, "BLOCK_LOGITS", block)
        mixed = softmax_attention.softmax_attention(*tokens, bias)
        weights = torch.randn(mixed.shape, dtype=torch.float64, generator=generator)
        own = torch.autograd.grad((mixed * weights).sum(), leaves)
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(own, torch.autograd.grad((expected * weights).sum(), leaves))


def test_dropped_weights_have_the_gradients_of_those_that_are_kept():
    from multimodal.nn.softmax_attention import softmax_attention

    def dropping(*tokens):
        torch.manual_seed(1)
        return softmax_attention(*tokens, None, 0.4)

    tokens = [torch.randn(2, 2, 5, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(dropping, tokens)


def test_dropout_drops_its_share_and_keeps_the_mean():
    from multimodal.nn.softmax_attention import softmax_attention

    torch.manual_seed(0)
    flat = torch.zeros(1, 1, 400, 400)
    weights = softmax_attention(flat, flat, torch.eye(400)[None, None], None, 0.25) * 400
    assert (weights == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert weights[weights > 0].unique().tolist() == pytest.approx([1 / 0.75])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_more_exact_than_the_formula_in_half_precision(dtype):
    """The softmax is taken in float32, and the bias is not rounded."""
    torch.manual_seed(0)
    tokens = [2 * torch.randn(2, 3, 50, 16) for _ in range(3)]
    bias = 2 * torch.randn(1, 3, 50, 50)
    exact = F.scaled_dot_product_attention(*tokens, attn_mask=bias)
    query, key, value = rounded = [x.to(dtype).requires_grad_() for x in tokens]
    plain = ((query @ key.transpose(2, 3)) / 4 + bias.to(dtype)).softmax(-1) @ value
    assert choose_dense_kernel("cpu", dtype, 50, True, False) == "softmax"
    own = attend_dense(*rounded, bias, 0.0)
    assert own.dtype == dtype
    assert (own - exact).abs().mean() < 0.85 * (plain - exact).abs().mean()


@pytest.mark.parametrize(
    ("facts", "path"),
    [
        ({}, "grouped"),
        ({"device": "cuda"}, "grouped"),
        ({"device": "cuda", "num_groups": 5}, "flex"),
        ({"device": "cuda", "window": True}, "flex"),
        ({"device": "cuda", "dtype": torch.bfloat16}, "varlen"),
        ({"device": "cuda", "dtype": torch.float16, "num_groups": 5, "window": True}, "varlen"),
        ({"device": "cuda", "dtype": torch.bfloat16, "head_dim": 12}, "grouped"),
        ({"device": "cuda", "dtype": torch.bfloat16, "head_dim": 12, "num_groups": 2}, "grouped"),
        ({"device": "cuda", "dtype": torch.bfloat16, "head_dim": 320, "num_groups": 2}, "flex"),
        ({"device": "cuda", "dtype": torch.bfloat16, "biased": True}, "grouped"),
        ({"device": "cuda", "dtype": torch.bfloat16, "biased": True, "num_groups": 2}, "flex"),
        ({"device": "cuda", "dtype": torch.bfloat16, "own_bias": True, "num_groups": 2}, "grouped"),
        ({"device": "cuda", "dtype": torch.bfloat16, "dropout": True, "num_groups": 2}, "grouped"),
        ({"device": "cuda", "dtype": torch.bfloat16, "static": True}, "grouped"),
        ({"dtype": torch.bfloat16, "num_groups": 5, "window": True}, "grouped"),
        ({"device": "mps", "num_groups": 5}, "grouped"),
    ],
)
def test_the_path_follows_from_the_facts(facts, path):
    plain = {"device": "cpu", "dtype": torch.float32, "head_dim": 64, "num_groups": 1}
    assert choose_path(Facts(**{**plain, **facts})) == path


@pytest.mark.parametrize(
    ("device", "dtype", "length", "gradient", "bias_gradient", "kernel"),
    [
        ("cpu", torch.float32, 197, True, True, "softmax"),
        ("cpu", torch.float32, 197, True, False, "fused"),
        ("cpu", torch.float32, 197, False, False, "fused"),
        ("cpu", torch.bfloat16, 197, True, False, "softmax"),
        ("cpu", torch.bfloat16, 197, False, False, "fused"),
        ("cpu", torch.bfloat16, 4096, True, False, "fused"),
        ("cpu", torch.float32, 4096, True, True, "softmax"),
        ("cuda", torch.float32, 197, True, True, "fused"),
    ],
)
def test_the_dense_kernel_follows_from_the_gradients_that_are_wanted(device, dtype, length, gradient, bias_gradient, kernel):
    assert choose_dense_kernel(device, dtype, length, gradient, bias_gradient) == kernel


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_learned_bias_goes_by_our_kernel_and_a_fixed_one_by_the_fused(monkeypatch, dropout):
    from multimodal.nn import kernels

    seen = []
    monkeypatch.setattr(kernels, "softmax_attention", lambda *given: seen.append(given[4]) or given[0])
    tokens = [torch.randn(1, 2, 4, 8, requires_grad=True) for _ in range(3)]
    bias = torch.randn(1, 2, 4, 4)
    attend_dense(*tokens, bias, dropout)
    assert seen == []
    attend_dense(*tokens, bias.requires_grad_(), dropout)
    assert seen == [dropout]
    with torch.no_grad():
        attend_dense(*tokens, bias, dropout)
    assert len(seen) == 1


@pytest.mark.parametrize("window", [None, 2, 100])
@pytest.mark.parametrize("kind", [None, "shared", "own", "some", "keys"])
def test_flex_attention_gives_what_grouped_calls_give(monkeypatch, kind, window):
    packing = packing_of(LENGTHS)
    plan = AttentionPlan(packing, biases=() if kind is None else biases_of(packing, kind), window=window)
    tokens = [x.detach() for x in tokens_of(packing)]
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)  # what checks types in tests cannot be traced
    with torch.no_grad():
        mixed = attend_flex(*tokens, plan, compiled=False)
        torch.testing.assert_close(mixed, attend_grouped(*tokens, plan), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["shared", "own", "some", "keys"])
def test_the_score_of_two_tokens_is_their_bias_and_hands_its_gradient_on(kind):
    packing = packing_of(LENGTHS)
    plan = AttentionPlan(packing, biases=biases_of(packing, kind))
    heads, token = torch.arange(2)[:, None, None], torch.arange(len(packing.sequence))
    scores = plan.flex.score(torch.ones(()), torch.zeros((), dtype=torch.int64), heads, token[:, None], token)  # h n n
    start, total, leaves = 0, torch.zeros(()), []
    for i, (count, length) in enumerate(packing.groups):
        for own in range(count):
            bias = plan.bias(i)
            expected = torch.zeros(1) if bias is None else bias[own if len(bias) > 1 else 0]
            block = scores[:, start : start + length, start : start + length]
            torch.testing.assert_close(block, (1 + expected).expand(2, length, length))
            total = total + (start + 1) * block.sum()
            start += length
        leaves += [] if plan.bias(i) is None else [plan.bias(i)]
    firsts = torch.tensor([sum(c * k for c, k in packing.groups[:i]) + 1 for i in range(len(packing.groups)) if plan.bias(i) is not None])
    grads = torch.autograd.grad(total, leaves)
    assert all(grad[0].flatten()[0] >= first for grad, first in zip(grads, firsts, strict=True))
    assert sum(float(grad.sum()) for grad in grads) == pytest.approx(_weighted_pairs(packing, plan))


def _weighted_pairs(packing, plan):
    """Sum over sequences with a bias: (start + 1) times 2 heads times pairs of tokens, each of which adds its bias once."""
    total, start = 0, 0
    for i, (count, length) in enumerate(packing.groups):
        for _ in range(count):
            total += 0 if plan.bias(i) is None else (start + 1) * 2 * length**2
            start += length
    return total


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.sampled_from([None, 1, 50, 200]))
def test_the_counted_blocks_are_those_that_hold_two_tokens_that_see_each_other(lengths, window):
    packing = packing_of(lengths)
    apart = (packing.index[:, None] - packing.index).abs()
    seen = (packing.sequence[:, None] == packing.sequence) & (apart <= (window or sum(lengths)))
    padded = F.pad(seen, (0, -len(seen) % 128) * 2).unflatten(1, (-1, 128)).unflatten(0, (-1, 128))
    assert torch.equal(block_mask(packing, window).to_dense()[0, 0].bool(), padded.any(3).any(1))


def test_nothing_is_moved_where_tokens_come_in_packed_order():
    for lengths in ([4, 4, 4], [1, 2, 2, 7]):
        packing = packing_of(lengths)
        x = torch.randn(sum(lengths), 3)
        assert packing.order is None and packing.pack(x) is x and packing.unpack(x) is x
    assert packing_of([2, 1]).order is not None


def test_a_sequence_that_is_cut_in_two_by_another_is_moved():
    packing = Packing.from_sequence(torch.tensor([0, 1, 0, 1]))
    assert packing.pack(torch.arange(4)).tolist() == [0, 2, 1, 3]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8).filter(any))
def test_ends_and_indices_tell_where_sequences_lie(lengths):
    packing = packing_of(lengths)
    packed = sorted(length for length in lengths if length)
    assert packing.ends.tolist() == [sum(packed[:i]) for i in range(len(packed) + 1)] and packing.ends.dtype == torch.int32
    assert packing.index.tolist() == [place for length in packed for place in range(length)]


@CUDA
@pytest.mark.parametrize("window", [None, 16])
def test_the_flash_kernel_gives_what_grouped_calls_give(window):
    packing = packing_of(LENGTHS, "cuda")
    plan = AttentionPlan(packing, window=window)
    for own, other in zip(
        _flat(gradients(attend, tokens_of(packing, dtype=torch.bfloat16), plan)),
        _flat(gradients(attend_grouped, tokens_of(packing), plan)),
        strict=True,
    ):
        torch.testing.assert_close(own.float(), other, atol=3e-2, rtol=3e-2)


@CUDA
@pytest.mark.parametrize("kind", [None, "shared", "own", "some"])
def test_flex_attention_on_a_gpu_gives_what_grouped_calls_give(kind):
    packing = packing_of(LENGTHS, "cuda")
    biases = () if kind is None else biases_of(packing, kind)
    for own, other in zip(
        _flat(gradients(attend, tokens_of(packing), AttentionPlan(packing, biases=biases))),
        _flat(gradients(attend_grouped, tokens_of(packing), AttentionPlan(packing, biases=biases))),
        strict=True,
    ):
        torch.testing.assert_close(own, other, atol=1e-2, rtol=1e-2)


def _flat(result):
    return [result[0], *result[1]]
