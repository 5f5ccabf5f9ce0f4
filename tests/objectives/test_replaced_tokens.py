"""Replaced tokens are told from original ones: against a computation by hand, token by token."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from multimodal.batch import Item, Sample, collate
from multimodal.masking import Drop, MaskReplaceKeep, RandomMasking
from multimodal.masking.noise import uniform
from multimodal.modality import Modality
from multimodal.nn import Decoder, Encoder, LayerNorm, LearnedPosition, PredictionHead, SinCosPosition
from multimodal.objectives import MaskedPrediction, ReplacedTokenDetection
from multimodal.objectives.replaced_tokens import DRAWN, draw
from multimodal.pretrained.from_training import model_of
from multimodal.tokenizers.text import ByteTokenizer, TextEmbed, TextTransform
from multimodal.training import FusedAdamW, MaskedPretraining

VOCAB, MASK = 259, 2


class Marked(ByteTokenizer):
    """Bytes between marks."""

    start_ids, end_ids = (1,), (0,)


def modality(**more) -> partial:
    settings = {
        "transform": TextTransform(Marked(), max_tokens=40),
        "embed": partial(TextEmbed, mask_id=MASK, position=partial(LearnedPosition, size=[40]), norm=LayerNorm, width=12),
        "masking": RandomMasking(0.3),
        "corruption": MaskReplaceKeep(0.85, 0.0),
        "head": partial(PredictionHead, norm=LayerNorm, width=12),
        "tied": True,
    }
    return partial(Modality, **settings | more)


def model(**more) -> MaskedPretraining:
    torch.manual_seed(0)
    objective = partial(ReplacedTokenDetection, generator=Encoder(dim=8, depth=1, num_heads=2), detection=5.0)
    made = MaskedPretraining(Encoder(dim=16, depth=2, num_heads=2), {"bytes": modality(**more)}, [objective])
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():  # so large that mistakes show
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return made.eval()


def samples(*lengths: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(5)
    texts = [torch.randint(100, 110, (length,), generator=generator) for length in lengths]
    return [Sample(str(i), {"bytes": Item(Marked().mark(x), ragged=True)}, seed=900 + i) for i, x in enumerate(texts)]


def by_hand(made: MaskedPretraining, sample: Sample) -> tuple[float, float, int, int, torch.Tensor]:
    """Return the sums of both losses of one text, the right guesses of both, and what the encoder is shown."""
    part, goal = made.modalities["bytes"], made.objectives[0]
    items = collate([sample]).items["bytes"]
    ids, sequence = items.values, torch.zeros(len(items.values), dtype=torch.int64)
    view = part.masked_view(items)
    places = view.tokens.coordinates
    narrowed = goal.narrow(part.embed(view.tokens, view.shown_as_mask))
    generated = goal.widen(goal.generator(narrowed, sequence, places).tokens)
    generator_loss, generator_right, shown = 0.0, 0, ids.clone()
    for place in view.masked.nonzero()[:, 0].tolist():
        logits = part.head.hidden(generated[place]) @ part.embed.words.weight.T + part.head.proj.bias
        generator_loss -= float(logits.log_softmax(-1)[ids[place]])
        generator_right += int(logits.argmax() == ids[place])
        noise, below = float(uniform(torch.tensor([sample.seed]), torch.tensor([place]), DRAWN)), 0.0
        for number, chance in enumerate(logits.softmax(-1).tolist()):
            below += chance
            if below > noise:
                shown[place] = number
                break
    seen = made.encoder(part.embed(part.embed.tokens(shown, items.lengths)), sequence, places).tokens
    loss, right = 0.0, 0
    for place in range(1, len(ids) - 1):  # without the marks
        logit, truth = goal.heads["bytes"](seen[place])[0], float(shown[place] != ids[place])
        loss += float(F.softplus(logit) - truth * logit)
        right += int((logit > 0) == (truth == 1))
    return loss, generator_loss, right, generator_right, shown


def test_both_losses_are_those_computed_token_by_token():
    made, given = model(), samples(20, 7, 33)
    with torch.no_grad():
        encoded = made(collate(given))
        terms = made.objectives[0](encoded)
        expected = [by_hand(made, sample) for sample in given]
    detection, generator = terms["bytes"], terms["bytes_generator"]
    view = encoded.views["bytes"].view
    assert torch.equal(view.tokens.inputs, torch.cat([shown for *_, shown in expected]))
    assert (view.replaced <= view.masked).all() and view.replaced.any()
    assert detection.loss.item() == pytest.approx(sum(x[0] for x in expected), rel=1e-5)
    assert generator.loss.item() == pytest.approx(sum(x[1] for x in expected), rel=1e-5)
    assert detection.count == 60 and generator.count == view.masked.sum() == 6 + 2 + 10
    assert detection.correct.tolist() == [sum(x[2] for x in expected)]
    assert generator.correct.tolist() == [sum(x[3] for x in expected)]
    assert (detection.weight, generator.weight) == (5.0, 1.0)


def test_what_is_drawn_for_a_text_does_not_depend_on_the_batch():
    made, given = model(), samples(20, 7, 33)
    with torch.no_grad():
        together = made(collate(given)).views["bytes"].view.tokens.inputs[22:31]
        alone = made(collate(given[1:2])).views["bytes"].view.tokens.inputs
    assert torch.equal(together, alone)


def test_ids_are_drawn_as_often_as_they_are_likely():
    logits = torch.tensor([0.0, 1.0, -30.0, 2.0]).expand(100_000, -1)
    noise = uniform(torch.arange(100_000), torch.zeros(100_000, dtype=torch.int64))
    counts = torch.bincount(draw(logits, noise), minlength=4) / 100_000
    torch.testing.assert_close(counts, logits[0].softmax(-1), atol=0.005, rtol=0)
    assert draw(logits[:2], torch.tensor([0.0, 1 - 2.0**-24])).tolist() == [0, 3]


def test_a_drawn_id_that_is_the_original_one_counts_as_original():
    made = model()
    items = collate(samples(30)).items["bytes"]
    with torch.no_grad():
        made.modalities["bytes"].head.proj.bias[102] = 1e4  # always this id
        view = made(collate(samples(30))).views["bytes"].view
    hidden = view.masked
    assert (view.tokens.inputs[hidden] == 102).all()
    assert torch.equal(view.replaced, hidden & (items.values != 102)) and (items.values[hidden] == 102).any()


def test_no_gradient_goes_through_what_is_drawn():
    made = model().train()
    terms = made.objectives[0](made(collate(samples(20, 9))))
    goal = made.objectives[0]
    own = [*goal.generator.parameters(), *goal.narrow.parameters(), *goal.widen.parameters()]
    of_detection = torch.autograd.grad(terms["bytes"].loss, own, allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in of_detection)
    of_generator = torch.autograd.grad(terms["bytes_generator"].loss, own, allow_unused=True, retain_graph=True)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in of_generator)
    encoders = torch.autograd.grad(terms["bytes_generator"].loss, list(made.encoder.parameters()), allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in encoders)
    for term in terms.values():  # both learn the table, which they share
        (gradient,) = torch.autograd.grad(term.loss, [made.modalities["bytes"].embed.words.weight], retain_graph=True)
        assert gradient.abs().sum() > 0


def test_splitting_a_batch_changes_no_sum():
    made, given = model(), samples(20, 7, 33)
    with torch.no_grad():
        whole = made.objectives[0](made(collate(given)))
        parts = [made.objectives[0](made(collate(own))) for own in (given[:1], given[1:])]
    for name, term in whole.items():
        assert term.loss.item() == pytest.approx(sum(part[name].loss.item() for part in parts), rel=1e-5)
        assert term.count == sum(part[name].count for part in parts)


def test_a_run_reports_both_and_learns(loader):
    import lightning as L

    torch.manual_seed(0)
    objective = partial(ReplacedTokenDetection, generator=Encoder(dim=8, depth=1, num_heads=2))
    optimizer = partial(FusedAdamW, lr=1e-2)
    made = MaskedPretraining(Encoder(dim=16, depth=2, num_heads=2), {"bytes": modality()}, [objective], optimizer=optimizer)
    text = [replace(sample, items={"bytes": Item(Marked().mark(torch.arange(100, 130)), ragged=True)}) for sample in samples(*[30] * 8)]
    trainer = L.Trainer(
        max_epochs=40, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(made, loader([text]))
    trainer.validate(made, loader([text]), verbose=False)
    scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert scores["val/tokens/bytes"] == 8 * 30 and scores["val/tokens/bytes_generator"] == 8 * 9
    assert scores["val/loss/bytes_generator"] < 4.0 < torch.tensor(259.0).log()  # it began at 5.6
    assert scores["val/accuracy/bytes"] > 0.75


@pytest.fixture
def loader():
    return lambda batches: torch.utils.data.DataLoader([collate(samples) for samples in batches], batch_size=None)


def test_generator_and_heads_stay_behind_when_the_encoder_is_taken_away():
    made = model()
    kept = model_of(made)
    assert not kept.heads and sorted(kept.embeds) == ["bytes"]
    assert sum(x.numel() for x in kept.parameters()) == sum(
        x.numel() for part in (made.encoder, made.modalities["bytes"].embed) for x in part.parameters()
    )


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            {"tied": False, "corruption": Drop(), "decoder": partial(Decoder, width=16, num_heads=2, position=SinCosPosition)},
            "it has a decoder",
        ),
        ({"tokenizer": ByteTokenizer()}, "does not read the ids"),
    ],
)
def test_modalities_whose_tokens_cannot_be_replaced_are_refused(more, reason):
    with pytest.raises(ValueError, match=f"cannot replace tokens of modality 'bytes': .*{reason}"):
        model(**more)


def test_settings_are_checked():
    part = {"bytes": modality()(16)}
    with pytest.raises(ValueError, match="detection must be positive, got 0"):
        ReplacedTokenDetection(Encoder(16, 1, 2), part, Encoder(8, 1, 2), detection=0.0)


def test_it_does_not_stand_beside_what_it_replaces():
    objectives = [MaskedPrediction, partial(ReplacedTokenDetection, generator=Encoder(dim=8, depth=1, num_heads=2))]
    with pytest.raises(ValueError, match="would report 'bytes' twice"):
        MaskedPretraining(Encoder(dim=16, depth=1, num_heads=2), {"bytes": modality()}, objectives)


def test_a_tied_head_is_the_table_and_needs_its_shape():
    made = modality()(16)
    assert made.head.proj.weight is made.embed.words.weight
    with pytest.raises(ValueError, match=r"the table of a TextEmbed is \(259, 12\), the last layer of a PredictionHead \(259, 16\)"):
        modality(head=partial(PredictionHead, norm=LayerNorm))(16)
    assert isinstance(made.embed.proj, nn.Linear)
