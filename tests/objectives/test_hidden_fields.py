"""Single fields of notes are hidden and predicted: what the encoder is shown, the loss and the scores, against a computation by hand."""

from functools import partial

import pytest
import torch

from multimodal.batch import Batch
from multimodal.masking import Drop, FieldMasking, MaskReplaceKeep, RandomMasking
from multimodal.nn import Decoder, Encoder, PredictionHead, SinCosPosition
from multimodal.objectives import ClassAggregation, MaskedPrediction, ReplacedTokenDetection
from multimodal.protocols import Renderer, Tokenizer
from multimodal.tokenizers.midi import CompoundTokenizer
from multimodal.training import FusedAdamW
from tests.objectives.music import SIZES, batch, model
from tests.objectives.pictures import beit_encoder, beit_modality, build, fit, picture_batch


def test_the_loss_of_a_note_is_the_weighted_mean_over_its_hidden_fields():
    made, given = model().eval(), batch(20, 9, 33)
    with torch.no_grad():
        encoded = made(given)
        term = made.objectives[0](encoded)["music"]
        part = encoded.views["music"]
    view, head = part.view, made.modalities["music"].head
    assert view.asked.shape == (62, 4) and torch.equal(view.masked, view.asked.any(1)) and not view.asked[:, 0].any()
    loss, right, asked = 0.0, [0] * 4, [0] * 4
    logits = head.proj(part.hidden).detach().split(SIZES, 1)
    for row, token in enumerate(view.masked.nonzero()[:, 0].tolist()):
        total = weight = 0.0
        for field in range(4):
            if view.asked[token, field]:
                truth = view.targets[token, field]
                total -= SIZES[field] * float(logits[field][row].log_softmax(0)[truth])
                weight += SIZES[field]
                asked[field] += 1
                right[field] += int(logits[field][row].argmax() == truth)
        loss += total / weight
    assert term.loss.item() == pytest.approx(loss, rel=1e-5) and term.count == view.masked.sum()
    assert term.asked.tolist() == asked and term.correct.tolist() == right and min(asked[1:]) > 3


def test_shown_fields_reach_the_encoder_and_hidden_ones_do_not():
    made, given = model(corruption=MaskReplaceKeep(1.0, 0.0)).eval(), batch(20, 9)
    items = given.items["music"]
    view = made.modalities["music"].masked_view(items)
    changed = torch.where(view.asked, (items.values + 1) % 4, items.values)
    other = Batch({"music": items.map_tensors(lambda x: changed if x is items.values else x)}, given.keys)
    with torch.no_grad():
        one, two = made(given).encoded.tokens, made(other).encoded.tokens
        assert torch.equal(one, two)
        shown = ~view.asked & view.masked[:, None]
        moved = torch.where(shown, (items.values + 1) % 4, items.values)
        other = Batch({"music": items.map_tensors(lambda x: moved if x is items.values else x)}, given.keys)
        assert not torch.allclose(one, made(other).encoded.tokens)


def test_accuracy_of_a_field_counts_where_it_was_hidden_and_fields_never_hidden_have_none():
    made, given = model(masking=FieldMasking(RandomMasking(0.5), ["position", "pitch"], draw="one")).eval(), batch(40, 40)
    with torch.no_grad():
        term = made._terms(given, "val")["music", 0]
    scores = made.scores["val_scores"].compute()
    assert term.asked.sum() == term.count == scores["tokens/music"] == 40
    assert scores["accuracy/music_pitch"] == pytest.approx(float(term.correct[2] / term.asked[2]))
    assert "accuracy/music_bar" not in scores and "accuracy/music_duration" not in scores
    assert scores["accuracy/music"] == pytest.approx(float((scores["accuracy/music_pitch"] + scores["accuracy/music_position"]) / 2))


def test_a_field_of_no_weight_that_is_asked_alone_adds_nothing():
    head = PredictionHead(8, (4, 5), field_weights=(0.0, 1.0))
    prediction = head.predict(torch.randn(2, 8), torch.tensor([[1, -1], [1, 2]]))
    assert prediction.loss[0] == 0 and prediction.loss[1] > 0 and prediction.asked.tolist() == [[True, False], [True, True]]


def test_whole_tokens_hidden_as_all_fields_are_the_same_loss():
    given = batch(20, 9)
    terms = []
    for masking in (RandomMasking(0.5), FieldMasking(RandomMasking(0.5))):
        made = model(masking=masking).eval()
        with torch.no_grad():
            terms.append(made.objectives[0](made(given))["music"])
    torch.testing.assert_close(terms[0].loss, terms[1].loss)
    assert torch.equal(terms[0].correct, terms[1].correct) and terms[1].asked.tolist() == [int(terms[0].count)] * 4


def test_the_head_is_run_once_for_all_who_ask():
    made, calls = model().eval(), []
    made.modalities["music"].head.proj.register_forward_hook(lambda *_: calls.append(1))
    encoded = made(batch(12))
    assert made.objectives[0](encoded)["music"].loss > 0 and encoded.views["music"].prediction.loss.sum() > 0
    assert len(calls) == 1


def test_a_generator_fills_in_hidden_fields_alone():
    objective = partial(ReplacedTokenDetection, generator=Encoder(dim=8, depth=1, num_heads=2))
    made, given = model([objective]), batch(30, 20)
    view = made(given).views["music"].view
    changed = view.tokens.inputs != view.targets
    assert changed.any() and not (changed & ~view.asked).any() and torch.equal(view.replaced, changed.any(1))
    terms = made.objectives[0](made(given))
    assert torch.equal(terms["music_generator"].asked, view.asked.sum(0)) and all(term.loss.isfinite() for term in terms.values())


def test_clones_hide_different_fields():
    made = model(clones=2).train()
    view = made.modalities["music"].masked_view(batch(30).items["music"])
    assert view.asked.shape == (60, 4) and not torch.equal(view.asked[:30], view.asked[30:])


def test_it_trains_beside_another_objective():
    made = model([MaskedPrediction, partial(ClassAggregation, early_layer=1, depth=1)])
    made.make_optimizer = partial(FusedAdamW, lr=1e-2)
    losses = fit(made, [batch(30, 20)] * 20)
    assert losses[-1] < 0.8 * losses[0]


class Kept(Renderer):
    """Keeps what it is to draw."""

    columns = ("piece",)

    def __init__(self):
        self.given = []

    def render(self, tokenizer, values, ids, predicted, masked):
        self.given.append((ids, predicted, masked))
        return {"piece": torch.zeros(3, 1, 1, dtype=torch.uint8)}


def test_pictures_show_the_true_fields_where_these_were_shown():
    kept = Kept()
    made, given = model(renderer=kept).eval(), batch(30, 20)
    kept.given.clear()  # the example, on which the parts were tried
    asked = made.modalities["music"].masked_view(given.items["music"]).asked.split([30, 20])
    assert len(made.pictures(given, 2)["music"]) == 2
    for (ids, predicted, masked), own in zip(kept.given, asked, strict=True):
        assert torch.equal(masked, own.any(1)) and torch.equal(predicted[~own], ids[~own]) and not torch.equal(predicted[own], ids[own])


class TwoIds(Tokenizer):
    """Two ids for each patch of a picture."""

    vocab_sizes = (2, 2)

    def encode(self, values):
        return torch.zeros(len(values) * 16, 2, dtype=torch.int64)

    def fingerprint(self):
        return "two"


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (
            lambda: model(corruption=Drop(), decoder=partial(Decoder, width=16, depth=1, num_heads=2, position=SinCosPosition)),
            "Drop hides whole tokens",
        ),
        (
            lambda: build(beit_encoder(), beit_modality(masking=FieldMasking(RandomMasking()), tokenizer=TwoIds()))(picture_batch(2)),
            "its embedding does not read the ids",
        ),
        (lambda: model(masking=FieldMasking(RandomMasking(), ["tempo"])), "no field is called 'tempo'"),
    ],
)
def test_what_cannot_hide_single_fields_says_so(build_it, message):
    with pytest.raises(ValueError, match=message):
        build_it()


def test_the_names_are_those_of_the_tokenizer():
    assert CompoundTokenizer().field_names == ("bar", "position", "pitch", "duration")
    assert model().modalities["music"].field_names == CompoundTokenizer().field_names
