"""One vector for each sequence."""

import pytest
import torch

from multimodal.heads import pool
from multimodal.nn import Encoded, Encoder

TOKENS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.0]])
SEQUENCE = torch.tensor([2, 0, 2, 0, 2])
CLASS = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
REGISTERS = torch.tensor([[[4.0, 0.0]], [[5.0, 0.0]], [[6.0, 0.0]]])


@pytest.mark.parametrize(
    "how, expected",
    [
        ("mean", [[5.0, 6.0], [0.0, 0.0], [5.0, 6.0], [0.0, 0.0]]),
        ("first", [[3.0, 4.0], [0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]),
        ("class", [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [0.0, 0.0]]),
        ("special", [[2.5, 0.5], [3.5, 1.0], [4.5, 1.5], [0.0, 0.0]]),
    ],
)
def test_each_sequence_has_a_vector_and_one_without_tokens_zeros(how, expected):
    assert pool(Encoded(TOKENS, CLASS, REGISTERS), SEQUENCE, 4, how).tolist() == expected


def test_special_tokens_may_be_the_class_token_alone():
    assert torch.equal(pool(Encoded(TOKENS, CLASS), SEQUENCE, 3, "special"), CLASS)


def test_padding_is_no_part_of_the_mean():
    valid = torch.tensor([True, True, False, False, True])
    assert pool(Encoded(TOKENS, None), SEQUENCE, 3, valid=valid).tolist() == [[3.0, 4.0], [0.0, 0.0], [5.0, 6.0]]


def test_a_mean_of_many_tokens_in_bfloat16_is_exact():
    tokens = torch.ones(3000, 1, dtype=torch.bfloat16)
    pooled = pool(Encoded(tokens, None), torch.zeros(3000, dtype=torch.int64), 1)
    assert pooled.dtype == torch.bfloat16 and pooled.item() == 1.0


def test_the_mean_of_what_an_encoder_returns():
    encoder = Encoder(dim=8, depth=1, num_heads=2, class_token=True).eval()
    tokens, sequence = torch.randn(6, 8), torch.tensor([1, 0, 1, 1, 0, 1])
    encoded = encoder(tokens, sequence)
    pooled = pool(encoded, sequence, 3)
    torch.testing.assert_close(pooled[1], encoded.tokens[[0, 2, 3, 5]].mean(0))
    assert (pooled[2] == 0).all() and (pool(encoded, sequence, 3, "class")[2] == 0).all()


@pytest.mark.parametrize("how", ["class", "special"])
def test_an_encoder_without_class_token_is_named(how):
    with pytest.raises(ValueError, match=f"pool '{how}' needs an encoder with a class token"):
        pool(Encoded(TOKENS, None), SEQUENCE, 3, how)
