"""The head of distilled classifiers."""

import pytest
import torch

from multimodal.heads import DistilledHead
from multimodal.nn import Encoded


def test_it_is_the_mean_of_two_classifiers():
    torch.manual_seed(0)
    head, first, registers = DistilledHead(4, 3), torch.randn(2, 4), torch.randn(2, 2, 4)
    torch.nn.init.normal_(head.distilled.bias)
    logits = head(Encoded(torch.randn(6, 4), first, registers), torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    torch.testing.assert_close(logits, (head.proj(first) + head.distilled(registers[:, 0])) / 2)


def test_a_sequence_without_tokens_after_the_last_has_logits_of_zeros():
    head = DistilledHead(4, 3)
    logits = head(Encoded(torch.randn(2, 4), torch.randn(1, 4), torch.randn(1, 1, 4)), torch.tensor([0, 0]), 2)
    torch.testing.assert_close(logits[1], (head.proj.bias + head.distilled.bias) / 2)


def test_an_encoder_without_registers_is_refused():
    with pytest.raises(ValueError, match="num_registers 1"):
        DistilledHead(4, 3)(Encoded(torch.randn(2, 4), torch.randn(1, 4)), torch.tensor([0, 0]), 1)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        DistilledHead(4, 0)
