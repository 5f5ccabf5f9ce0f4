from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.masking.noise import hashed
from multimodal.tokenizers.text import HashedNgrams, TextEmbed
from multimodal.tokenizers.text.ngrams import MULTIPLIER


def row(gram: list[int], rows: int) -> int:
    """The row of one n-gram, by the definition."""
    number = torch.tensor(gram[0])
    for one in gram[1:]:
        number = number * MULTIPLIER + one
    return int(hashed(number + len(gram)) % rows)


TEXTS = st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_each_token_has_the_mean_of_the_whole_unhidden_ngrams_of_its_text(texts: list[list[tuple[int, bool]]]) -> None:
    module = HashedNgrams(3, (2, 4), rows=50)
    ids = torch.tensor([x for text in texts for x, _ in text])
    hidden = torch.tensor([x for text in texts for _, x in text])
    position = torch.cat([torch.arange(len(text)) for text in texts])
    expected = []
    for text in texts:
        for last in range(len(text)):
            grams = [text[last + 1 - n : last + 1] for n in (2, 4) if last + 1 >= n]
            rows = [row([x for x, _ in gram], 50) for gram in grams if not any(dark for _, dark in gram)]
            expected.append(module.table.weight[rows].mean(0) if rows else torch.zeros(3))
    assert torch.allclose(module(ids, position, hidden), torch.stack(expected), atol=1e-6)


def test_lengths_are_told_apart_and_nothing_hidden_is_as_none() -> None:
    module = HashedNgrams(4, (2, 3), rows=1000)
    ids, position = torch.tensor([1, 2, 3, 4]), torch.arange(4)
    assert torch.equal(module(ids, position), module(ids, position, torch.zeros(4, dtype=torch.bool)))
    assert row([0, 1], 1000) != row([0, 0, 1], 1000)
    assert module(ids[:0], position[:0], torch.zeros(0, dtype=torch.bool)).shape == (0, 4)


def test_an_embedding_adds_them_and_learns_their_table() -> None:
    torch.manual_seed(0)
    embed = TextEmbed(8, 10, mask_id=9, ngrams=partial(HashedNgrams, lengths=(2,), rows=64))
    tokens = embed.tokens(torch.tensor([1, 2, 1, 2, 3]), torch.tensor([2, 3]))
    x = embed(tokens)
    assert torch.equal(x[0], embed.words.weight[1]) and torch.equal(x[1], x[3]) and not torch.equal(x[0], x[1])
    embed(tokens, torch.tensor([False, True, False, False, False]))[3].sum().backward()
    assert embed.ngrams.table.weight.grad.abs().sum(1).count_nonzero() == 1


@pytest.mark.parametrize(
    ("lengths", "rows", "message"), [((), 8, "lengths"), ((1, 2), 8, "lengths"), ((2, 2), 8, "lengths"), ((2,), 0, "rows")]
)
def test_bad_settings_are_refused(lengths: tuple[int, ...], rows: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HashedNgrams(4, lengths, rows)
