from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from multimodal.batch import Batch, Item, Sample, collate
from multimodal.masking import RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder
from multimodal.objectives import Alignment, MaskedPrediction
from multimodal.tokenizers.text import CharacterTokenizer, TextEmbed, TextTransform
from multimodal.training import MaskedPretraining

SIZE, MASK = 26, 25


def modality(dim: int, clones: int = 1) -> Modality:
    transform = TextTransform(CharacterTokenizer("abcdefghijklmnopqrstuvwxyz"))
    return Modality(dim, transform, TextEmbed(dim, SIZE, MASK), RandomMasking(0.3), clones=clones)


def model(clones: int = 1, weight: float = 3.0) -> MaskedPretraining:
    torch.manual_seed(0)
    objectives = [MaskedPrediction, lambda encoder, modalities: Alignment(encoder, modalities, weight)]
    return MaskedPretraining(Encoder(16, 2, 2), {"film": lambda dim: modality(dim, clones)}, objectives).eval()


def batch(labels: list[int], length: int = 6, labelled: bool = True) -> Batch:
    """Items whose first token has these labels, of lengths that differ."""
    samples = []
    for number, label in enumerate(labels):
        values = torch.randint(25, (length + number,), generator=torch.Generator().manual_seed(number))
        of_tokens = torch.full_like(values, -1)
        of_tokens[0] = label
        samples.append(Sample(str(number), {"film": Item(values, ragged=True, labels=of_tokens if labelled else None)}, seed=number))
    return collate(samples)


def test_the_loss_is_that_of_the_outputs_at_labelled_tokens() -> None:
    own, data = model(), batch([0, 1, -1, 0])
    encoded = own(data)
    goal = own.objectives[1]
    term = goal(encoded)["film"]
    firsts = encoded.views["film"].seen[[0, 6, 13, 21]]
    logits = goal.proj(firsts[[0, 1, 3]])
    torch.testing.assert_close(term.loss, F.cross_entropy(logits, torch.tensor([0, 1, 0]), reduction="sum"))
    assert int(term.count) == 3 and term.weight == 3.0
    assert term.ids.tolist() == logits.argmax(1).tolist() and int(term.correct) == int((term.ids == torch.tensor([0, 1, 0])).sum())


def test_every_clone_of_an_item_is_labelled() -> None:
    term = model(clones=2).objectives[1]
    own = model(clones=2)
    assert int(own.objectives[1](own(batch([0, 1, -1])))["film"].count) == 4 and term.suffix == "_alignment"


def test_the_score_is_named_after_the_modality() -> None:
    own = model()
    own._evaluate(batch([0, 1, -1, 0, 1]), "val")
    scores = own._metric("val").compute()
    assert float(scores["tokens/film_alignment"]) == 4 and 0 <= float(scores["accuracy/film_alignment"]) <= 1
    assert {"loss/film", "loss/film_alignment"} <= scores.keys()


def test_items_without_labels_have_no_term_and_unlabelled_ones_no_loss() -> None:
    own = model()
    assert own.objectives[1](own(batch([0, 1], labelled=False))) == {}
    term = own.objectives[1](own(batch([-1, -1])))["film"]
    assert int(term.count) == 0 and float(term.loss) == 0 and term.loss.requires_grad


def test_labels_must_be_those_of_two_classes_one_for_each_token() -> None:
    own = model()
    with pytest.raises(ValueError, match="Alignment needs one for each token, 0, 1 or -1"):
        own.objectives[1](own(batch([0, 2])))
    items = batch([0, 1]).items["film"]
    with pytest.raises(ValueError, match=r"labels of modality 'film' have the shape \(5,\) for 13 tokens"):
        own.objectives[1](own(Batch({"film": replace(items, labels=items.labels[:5])}, ("a", "b"))))
    with pytest.raises(ValueError, match="weight must be positive"):
        model(weight=0.0)


@pytest.mark.slow
def test_it_learns_what_the_first_token_cannot_tell_alone() -> None:
    own = model().train()
    optimizer = torch.optim.Adam(own.parameters(), 5e-3)
    right = []
    for step in range(40):
        samples = []
        for number in range(16):
            label = number % 2
            values = torch.tensor([0] + [5 + 2 * label] * 6)
            labels = torch.tensor([label] + [-1] * 6)
            samples.append(Sample(str(number), {"film": Item(values, ragged=True, labels=labels)}, seed=step * 100 + number))
        term = own.objectives[1](own(collate(samples)))["film"]
        optimizer.zero_grad()
        (term.loss / term.count).backward()
        optimizer.step()
        right.append(int(term.correct) / 16)
    assert sum(right[-5:]) / 5 > 0.95 and right[0] < 0.8
