"""The attentive head: equal to dense attention, sequence by sequence."""

import pytest
import torch
from torch.nn import functional as F

from multimodal.heads import AttentiveHead
from multimodal.heads.attentive import attention_weights
from multimodal.nn import Encoded, Encoder, Mlp
from multimodal.recorded import build, settings_of

DIM, HEADS = 12, 3
SEQUENCE = torch.tensor([1, 0, 1, 3, 1, 0, 3, 3, 3])


@pytest.fixture
def tokens():
    return torch.randn(len(SEQUENCE), DIM, generator=torch.Generator().manual_seed(0)) * 3


def make(**settings) -> AttentiveHead:
    torch.manual_seed(0)
    head = AttentiveHead(DIM, 4, num_heads=HEADS, **settings)
    for parameter in head.parameters():
        parameter.data.normal_()
    return head.eval()


def by_multihead_attention(head: AttentiveHead, tokens: torch.Tensor) -> torch.Tensor:
    """The logits of one sequence, by torch's own attention with the head's weights."""
    attention = torch.nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    with torch.no_grad():
        attention.in_proj_weight[DIM:].copy_(head.key_value.weight)
        attention.in_proj_bias[DIM:].copy_(head.key_value.bias)
        attention.in_proj_weight[:DIM].copy_(torch.eye(DIM))
        attention.in_proj_bias[:DIM].zero_()
        attention.out_proj.weight.copy_(head.mix.weight)
        attention.out_proj.bias.copy_(head.mix.bias)
    read = F.layer_norm(tokens, (DIM,), head.input_norm.weight, head.input_norm.bias, head.input_norm.eps)
    pooled, _ = attention(head.query.flatten()[None, None], read[None], read[None])
    pooled = pooled[0] if head.mlp is None else pooled[0] + head.mlp(pooled[0])
    return head.proj(pooled)[0]


@pytest.mark.parametrize("settings", [{}, {"mlp": Mlp}])
def test_equals_torchs_attention_of_each_sequence(tokens, settings):
    head = make(**settings)
    logits = head(Encoded(tokens, None), SEQUENCE, 5)
    for number in (0, 1, 3):
        torch.testing.assert_close(logits[number], by_multihead_attention(head, tokens[number == SEQUENCE]), atol=1e-4, rtol=1e-4)


def test_special_tokens_are_read_too(tokens):
    head = make(read_special=True)
    special, registers = torch.randn(4, DIM), torch.randn(4, 2, DIM)
    logits = head(Encoded(tokens, special, registers), SEQUENCE, 4)
    for number in range(4):
        own = torch.cat([special[number][None], registers[number], tokens[number == SEQUENCE]])
        torch.testing.assert_close(logits[number], by_multihead_attention(head, own), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="read_special needs an encoder with a class token"):
        head(Encoded(tokens, None), SEQUENCE, 4)


def test_logits_do_not_depend_on_the_rest_of_the_batch(tokens):
    head = make()
    whole = head(Encoded(tokens, None), SEQUENCE, 4)
    own = SEQUENCE == 3
    alone = head(Encoded(tokens[own], None), torch.zeros(int(own.sum()), dtype=torch.int64), 1)
    torch.testing.assert_close(alone[0], whole[3])
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(head(Encoded(tokens[order], None), SEQUENCE[order], 4), whole)


def test_padding_is_not_read(tokens):
    head, valid = make(), torch.tensor([True] * 7 + [False] * 2)
    shorter = head(Encoded(tokens[:7], None), SEQUENCE[:7], 4)
    torch.testing.assert_close(head(Encoded(tokens, None), SEQUENCE, 4, valid), shorter)
    nothing = head(Encoded(tokens, None), SEQUENCE, 4, torch.zeros(9, dtype=torch.bool))
    torch.testing.assert_close(nothing, (head.mix.bias @ head.proj.weight.T + head.proj.bias).expand(4, -1))


def test_weights_of_a_sequence_add_up_to_one_however_large_the_logits():
    key, query = torch.randn(9, HEADS, 4) * 1e4, torch.randn(HEADS, 4)
    weight = attention_weights(key, query, SEQUENCE, 5)
    total = torch.zeros(5, HEADS).index_add(0, SEQUENCE, weight)
    torch.testing.assert_close(total, torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])[:, None].expand(-1, HEADS))
    assert weight.isfinite().all() and attention_weights(key.bfloat16(), query.bfloat16(), SEQUENCE, 5).dtype == torch.float32


def test_gradients_reach_the_query_and_the_tokens(tokens):
    head = make().train()
    tokens.requires_grad_()
    head(Encoded(tokens, None), SEQUENCE, 4).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())
    assert (tokens.grad.abs().sum(1) > 0).all()


def test_learns_which_token_to_read():
    """The class is that of one token of ten; its mean tells little."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 2
    x = torch.randn(60, 10, DIM)
    x[:, :, 0] = 0
    x[torch.arange(60), torch.randint(10, (60,)), 0] = 6.0  # marks the token that tells
    marked = x[:, :, 0] == 6.0
    x[marked] = torch.where((labels == 1)[:, None], x[marked].abs(), -x[marked].abs())
    x[:, :, 0] = marked * 6.0
    sequence = torch.arange(60).repeat_interleave(10)
    head = AttentiveHead(DIM, 2, num_heads=1, norm=None)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(100):
        loss = F.cross_entropy(head(Encoded(x.flatten(0, 1), None), sequence, 60), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    key = head.key_value(x.flatten(0, 1))[:, :DIM].unflatten(1, (1, DIM))
    weight = attention_weights(key, head.query, sequence, 60).view(60, 10)
    assert loss < 0.1 and weight[marked].mean() > 0.5


def test_is_built_again_from_its_settings(tokens):
    head = make(mlp=Mlp, read_special=False)
    again = build(settings_of(head, ("dim",)), DIM)
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.eval()(Encoded(tokens, None), SEQUENCE, 4), head(Encoded(tokens, None), SEQUENCE, 4))


def test_reads_what_an_encoder_returns():
    encoder = Encoder(dim=DIM, depth=1, num_heads=2, class_token=True).eval()
    assert make(read_special=True)(encoder(torch.randn(9, DIM), SEQUENCE), SEQUENCE, 4).shape == (4, 4)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="num_heads must divide the width 12, got 5"):
        AttentiveHead(DIM, 4, num_heads=5)
