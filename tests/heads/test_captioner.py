"""The decoder of captions: nothing ahead is seen, filling up changes nothing, and the search finds the best text."""

from itertools import product

import pytest
import torch

from multimodal.heads.caption_search import write_texts
from multimodal.heads.captioner import CaptionDecoder


def decoder(num_ids: int = 3, seed: int = 0, **settings) -> CaptionDecoder:
    torch.manual_seed(seed)
    own = CaptionDecoder(8, num_ids, **{"width": 16, "num_heads": 2, "max_ids": 4} | settings).eval()
    torch.nn.init.normal_(own.bias, std=1.0)
    return own


def test_what_comes_later_is_not_seen():
    own, memory = decoder(max_ids=8), torch.randn(1, 5, 16)
    ids = torch.tensor([[own.begin_id, 0, 1, 2, 0]])
    other = torch.tensor([[own.begin_id, 0, 1, 1, 1]])
    valid = torch.ones(1, 5, dtype=torch.bool)
    first, second = own(ids, memory, valid), own(other, memory, valid)
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3], second[:, 3]) and first.shape == (1, 5, 4)


def test_what_fills_up_the_memory_changes_nothing():
    own, tokens = decoder(), torch.randn(2, 5, 8)
    memory, valid = own.read(tokens), torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    ids = torch.tensor([[own.begin_id, 1], [own.begin_id, 2]])
    alone = own(ids[:1], own.read(tokens[:1, :3]), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(own(ids, memory, valid)[:1], alone)


def test_layers_do_not_begin_alike():
    own = decoder(depth=2)
    first, second = (layer.linear1.weight for layer in own.layers.layers)
    assert not torch.equal(first, second)


def score_of(own: CaptionDecoder, memory: torch.Tensor, text: tuple[int, ...], penalty: float) -> float:
    ids = torch.tensor([[own.begin_id, *text]])
    logits = own(ids, memory, torch.ones(memory.shape[:2], dtype=torch.bool))[0].double().log_softmax(1)
    truth = [*text, own.end_id] if len(text) < own.max_ids else list(text)
    return float(logits[torch.arange(len(truth)), truth].sum()) / len(truth) ** penalty


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_a_wide_search_finds_the_best_of_all_texts(seed, penalty):
    own = decoder(seed=seed, max_ids=3)
    memory = own.read(torch.randn(1, 3, 8))
    with torch.no_grad():
        own.bias[own.end_id] += 2.0  # else hardly a text ends
        scores = {text: score_of(own, memory, text, penalty) for size in range(4) for text in product(range(3), repeat=size)}
        found = write_texts(own, memory, torch.ones(1, 3, dtype=torch.bool), beam_size=50, length_penalty=penalty)[0]
    best = max(scores, key=lambda text: scores[text])
    assert tuple(found.ids.tolist()) == best and found.score == pytest.approx(scores[best], abs=1e-6)


def test_one_beam_is_greedy_and_samples_do_not_meet():
    own = decoder(num_ids=6, max_ids=10)
    memory, valid = own.read(torch.randn(3, 4, 8)), torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] * 4])
    found = write_texts(own, memory, valid, beam_size=1)
    for place, text in enumerate(found):
        ids: list[int] = []
        with torch.no_grad():
            while len(ids) < 10:
                given = torch.tensor([[own.begin_id, *ids]])
                best = int(own(given, memory[place : place + 1], valid[place : place + 1])[0, -1].argmax())
                if best == own.end_id:
                    break
                ids.append(best)
        assert text.ids.tolist() == ids
    assert write_texts(own, memory[:0], valid[:0]) == []


@pytest.mark.parametrize("settings", [{"width": 15}, {"depth": 0}, {"dropout": 1.0}, {"max_ids": 0}])
def test_settings_outside_their_range_are_refused(settings):
    with pytest.raises(ValueError, match="must be"):
        decoder(**settings)


def test_a_search_outside_its_range_is_refused():
    own = decoder()
    with pytest.raises(ValueError, match=r"beam_size must be at least 1 and length_penalty in \[0, 2\], got 0 and 1.0"):
        write_texts(own, torch.zeros(1, 1, 16), torch.ones(1, 1, dtype=torch.bool), beam_size=0)
