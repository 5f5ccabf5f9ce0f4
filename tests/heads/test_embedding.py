"""Embeddings of speakers: weighed statistics by hand, a margin for the true class in training alone, and what is learned with it."""

import math
from functools import partial

import lightning as L
import pytest
import torch
from torch.nn import functional as F

from multimodal.batch import Item, Sample, collate
from multimodal.heads import EmbeddingHead
from multimodal.heads.statistics import AttentiveStatistics
from multimodal.heads.verification import all_pairs, equal_error_rate
from multimodal.modality import Input
from multimodal.nn import Encoded, Encoder
from multimodal.pretrained.from_training import model_of
from multimodal.recorded import build, settings_of
from multimodal.tokenizers.audio import LogMel, SpectrogramEmbed, SpectrogramTransform
from multimodal.training import FineTuning

DIM = 12
SEQUENCE = torch.tensor([1, 0, 1, 3, 1, 0, 3, 3, 3])


@pytest.fixture
def tokens():
    return torch.randn(len(SEQUENCE), DIM, generator=torch.Generator().manual_seed(0)) * 3


def make(num_classes: int = 4, **settings) -> EmbeddingHead:
    torch.manual_seed(0)
    return EmbeddingHead(DIM, num_classes, **{"embedding_dim": 6, "attention_dim": 5} | settings).eval()


def by_hand(statistics: AttentiveStatistics, tokens: torch.Tensor) -> torch.Tensor:
    weight = torch.full((len(tokens), 1), 1 / len(tokens))
    if statistics.hidden is not None:
        scores = torch.tanh(tokens @ statistics.hidden.weight.T + statistics.hidden.bias) @ statistics.query.T
        weight = scores.exp() / scores.exp().sum()
    mean = (weight * tokens).sum(0)
    return torch.cat([mean, ((weight * tokens.square()).sum(0) - mean.square()).sqrt()])


@pytest.mark.parametrize("hidden_dim", [None, 5])
def test_statistics_are_those_of_each_sequence_by_hand(tokens, hidden_dim):
    statistics = AttentiveStatistics(DIM, hidden_dim)
    for parameter in statistics.parameters():
        parameter.data.normal_()
    made = statistics(tokens, SEQUENCE, 5)
    for number in (0, 1, 3):
        torch.testing.assert_close(made[number], by_hand(statistics, tokens[number == SEQUENCE]), atol=1e-4, rtol=1e-4)
    assert made[[2, 4], :DIM].abs().max() == 0 and made[[2, 4], DIM:].max() < 2e-3  # without tokens
    valid = torch.tensor([True] * 7 + [False] * 2)
    torch.testing.assert_close(statistics(tokens, SEQUENCE, 4, valid), statistics(tokens[:7], SEQUENCE[:7], 4))


def test_unweighed_statistics_are_mean_and_deviation(tokens):
    made = AttentiveStatistics(DIM, None)(tokens, SEQUENCE, 4)
    own = tokens[SEQUENCE == 3]
    torch.testing.assert_close(made[3], torch.cat([own.mean(0), own.std(0, correction=0)]))


def test_a_token_that_is_alone_gives_finite_gradients():
    statistics = AttentiveStatistics(DIM)
    token = torch.ones(1, DIM, requires_grad=True)
    statistics(token, torch.tensor([0]), 1).sum().backward()
    assert token.grad.isfinite().all()


@pytest.mark.parametrize("pooling", ["attentive", "statistics", "mean"])
def test_logits_are_scaled_cosines_and_embeddings_have_length_1(tokens, pooling):
    head = make(pooling=pooling, scale=20.0)
    encoded = Encoded(tokens, None)
    embeddings = head.embeddings(encoded, SEQUENCE, 4)
    torch.testing.assert_close(embeddings.norm(dim=1)[[0, 1, 3]], torch.ones(3))  # there are no tokens of 2
    cosines = F.cosine_similarity(embeddings[:, None], head.proj.weight[None], dim=2)
    torch.testing.assert_close(head(encoded, SEQUENCE, 4), 20 * cosines)
    assert head.proj.bias is None and head.embed.in_features == (DIM if pooling == "mean" else 2 * DIM)
    own = SEQUENCE == 3
    alone = head(Encoded(tokens[own], None), torch.zeros(int(own.sum()), dtype=torch.int64), 1)
    torch.testing.assert_close(alone[0], head(encoded, SEQUENCE, 4)[3])


def test_margins_by_hand():
    angles = torch.tensor([0.3, 1.2, 3.1])
    logits = 10 * torch.stack([torch.cos(angles), torch.full((3,), 0.5)], 1)
    classes = torch.zeros(3, dtype=torch.int64)
    cosine = make(2, scale=10.0, margin_of="cosine", margin=0.35).with_margin(logits, classes)
    torch.testing.assert_close(cosine, logits - torch.tensor([3.5, 0.0]))
    angle = make(2, scale=10.0, margin_of="angle", margin=0.2).with_margin(logits, classes)
    expected = [math.cos(0.5), math.cos(1.4), math.cos(3.1) - 0.2 * math.sin(0.2)]  # 3.3 is past half a turn
    torch.testing.assert_close(angle, torch.stack([10 * torch.tensor(expected), torch.full((3,), 5.0)], 1))
    torch.testing.assert_close(make(2, scale=10.0, margin=0.0).with_margin(logits, classes), logits)


@pytest.mark.parametrize("margin_of", ["angle", "cosine"])
def test_a_margin_always_lowers_and_the_better_stays_the_better(margin_of):
    cosines = torch.linspace(-1, 1, 201, dtype=torch.float64)
    lowered = make(1, scale=1.0, margin_of=margin_of).with_margin(cosines[:, None].float(), torch.zeros(201, dtype=torch.int64))[:, 0]
    assert bool((lowered < cosines.float()).all()) and bool((lowered.diff() > 0).all())


def test_the_margin_counts_in_training_alone():
    head, logits, labels = make(), torch.randn(5, 4).tanh() * 30, torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(head.losses(logits, labels), F.cross_entropy(logits, labels, reduction="none"))
    head.train()
    expected = F.cross_entropy(head.with_margin(logits, labels), labels, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(head.losses(logits, labels, 0.1), expected)
    assert bool((head.losses(logits, labels) > F.cross_entropy(logits, labels, reduction="none")).all())
    assert head.losses(logits[:0], labels[:0]).shape == (0,)


def test_gradients_at_the_class_itself_are_finite():
    head = make(3).train()
    embedding = F.normalize(head.proj.weight.detach()[:1], dim=1).requires_grad_()
    head.losses(head.logits(embedding), torch.tensor([0])).sum().backward()
    assert embedding.grad.isfinite().all() and head.proj.weight.grad.isfinite().all()


def test_a_head_is_built_again_from_its_settings(tokens):
    head = make(pooling="statistics", margin_of="cosine")
    again = build(settings_of(head, ("dim",)), DIM)
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again.eval()(Encoded(tokens, None), SEQUENCE, 4), head(Encoded(tokens, None), SEQUENCE, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim and attention_dim must be at least 1, got 0 and 5"),
        ({"scale": 0.0}, r"scale must be positive and margin in \[0, 1\), got 0.0 and 0.2"),
        ({"margin": 1.0}, r"margin in \[0, 1\), got 30.0 and 1.0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def utterances(speakers: range, count: int, seed: int) -> tuple[Encoded, torch.Tensor, torch.Tensor]:
    """Tokens of many utterances: each speaker varies in a way of their own, and each utterance has a mean of its own."""
    generator = torch.Generator().manual_seed(seed)
    voices = torch.exp(0.7 * torch.randn(100, DIM, generator=torch.Generator().manual_seed(9)))
    labels = torch.tensor(speakers).repeat(count)
    tokens = torch.randn(len(labels), 30, DIM, generator=generator) * voices[labels][:, None]
    tokens = tokens + 2 * torch.randn(len(labels), 1, DIM, generator=generator)
    return Encoded(tokens.flatten(0, 1), None), torch.arange(len(labels)).repeat_interleave(30), labels


def error_of(head: EmbeddingHead) -> float:
    """The equal error rate of speakers that were in no training."""
    encoded, sequence, labels = utterances(range(40, 60), 5, seed=10_000)
    with torch.no_grad():
        return equal_error_rate(all_pairs(head.eval().embeddings(encoded, sequence, len(labels)), labels))


@pytest.mark.parametrize(("pooling", "error"), [("attentive", 0.05), ("statistics", 0.05), ("mean", None)])
def test_speakers_that_were_never_heard_are_told_by_how_they_vary(pooling, error):
    head = make(40, pooling=pooling, embedding_dim=16).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for step in range(150):
        encoded, sequence, labels = utterances(range(40), 2, seed=step)
        loss = head.losses(head(encoded, sequence, len(labels)), labels).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert error_of(head) < error if error else error_of(head) > 0.4


def test_it_is_a_head_of_fine_tuning():
    torch.manual_seed(0)
    features = LogMel(num_bins=16)
    sounds = {"voice": partial(Input, transform=SpectrogramTransform(features=features), embed=SpectrogramEmbed)}
    head = partial(EmbeddingHead, num_classes=3, embedding_dim=8, attention_dim=8)
    training = FineTuning(Encoder(dim=16, depth=1, num_heads=2), sounds, {"label": head}, optimizer=lambda x: torch.optim.AdamW(x, lr=1e-2))
    waves = [0.1 * torch.randn(4000 + 500 * n, generator=torch.Generator().manual_seed(n)).cumsum(0) ** (1 + n % 3) for n in range(6)]
    items = [Item(features(wave.clamp(-1, 1)), ragged=True) for wave in waves]
    batch = collate([Sample(str(n), {"voice": item}, labels={"label": n % 3}) for n, item in enumerate(items)])
    training.train()
    expected = training.heads["label"].losses(training(batch)["label"], batch.labels["label"]).sum()
    losses: list[float] = []
    training.on_train_batch_end = lambda outputs, *_: losses.append(float(outputs["loss"].detach()))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    loader = torch.utils.data.DataLoader([batch] * 40, batch_size=None)
    L.Trainer(accelerator="cpu", max_epochs=1, **quiet).fit(training, loader)
    assert losses[0] == pytest.approx(float(expected), rel=1e-4)  # with the margin
    assert losses[-1] < 0.3 * losses[0]
    predicted = training.eval().predict_step(batch, 0)
    keys, found = predicted["label"]
    assert keys == [str(n) for n in range(6)] and found.shape == (6, 3)

    model, items = model_of(training), batch.items["voice"]
    with torch.no_grad():
        encoded, _, sample, _ = model.encode({"voice": items.values}, {"voice": items.lengths})
        embeddings = model.heads["classes"].embeddings(encoded, sample, 6)
        torch.testing.assert_close(model.heads["classes"].logits(embeddings).softmax(1), found, atol=1e-5, rtol=1e-5)
    assert embeddings.shape == (6, 8)
    torch.testing.assert_close(predicted["label_embeddings"][1], embeddings, atol=1e-5, rtol=1e-5)
    assert predicted["label_embeddings"][0] == keys
