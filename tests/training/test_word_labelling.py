"""Tags of words: windows that are sequences of their own, exact means over words, lines of predictions with every word, and learning."""

import json

import lightning as L
import pytest
import torch
from torch.nn import functional as F

from multimodal.batch import collate
from multimodal.heads import TokenClassifier
from multimodal.tokenizers.text import FileTokenizer, TextTransform, WordTagTransform
from multimodal.training import WordLabelling
from multimodal.training.callbacks import PredictionWriter
from tests.tokenizers.text.word_pieces import write_vocabulary
from tests.training.text_tasks import QUIET, loader, read, small

CLASSES = ("O", "B-PER", "I-PER")
WORDS = ["ada", "king", "met", "the", "mr", "babbage", "in", "turin"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return FileTokenizer(str(write_vocabulary(tmp_path_factory.mktemp("vocabulary"), WORDS)), special_tokens=True)


def build(tokenizer, max_tokens=16, **settings):
    transform = WordTagTransform(tokenizer, CLASSES, max_tokens, overlap=4)
    encoder, modalities = small(transform, tokenizer.vocab_sizes[0])
    return WordLabelling(encoder, modalities, lambda dim: TokenClassifier(dim, len(CLASSES)), **settings), transform


def text(seed, length=12, tagged=True):
    """Words drawn at random, and among them a name of two words."""
    generator, words, tags = torch.Generator().manual_seed(seed), [], []
    while len(words) < length:
        if torch.rand((), generator=generator) < 0.2:
            words += ["ada", "king"]
            tags += ["B-PER", "I-PER"]
        else:
            words.append(WORDS[int(torch.randint(2, len(WORDS), (), generator=generator))])
            tags.append("O")
    return json.dumps({"words": words} | ({"tags": tags} if tagged else {})).encode()


def test_words_of_a_window_are_told_as_if_it_stood_alone(tokenizer):
    model, transform = build(tokenizer)
    model.eval()
    samples = [read(transform, text(0, 40)), read(transform, text(1, 5)), read(transform, text(2, 30))]
    items = collate(samples).items["text"]
    expected = []
    for sample in samples:
        item = sample.items["text"]
        for window in range(int(item.labels[:, 0].max()) + 1):
            there = item.labels[:, 0] == window
            ids = item.values[there]
            tokens = model.modality.embed.tokens(ids[None], None)
            own = model.encode({"text": (model.modality.embed(tokens), tokens.item, tokens.coordinates)}).tokens
            expected.append(model.head(own[item.labels[there, 1] >= 0]))
    assert len(expected) > 6
    torch.testing.assert_close(model(items), torch.cat(expected), atol=1e-5, rtol=1e-4)


def test_the_loss_is_the_sum_over_tagged_words(tokenizer):
    model, transform = build(tokenizer)
    model.eval()
    batch = collate([read(transform, text(0)), read(transform, text(1, tagged=False)), read(transform, text(2))])
    term = model._terms(batch, "val")["text", 0]
    tags = [[CLASSES.index(tag) for tag in json.loads(text(seed))["tags"]] for seed in (0, 2)]
    logits = model(batch.items["text"])
    middle = len(json.loads(text(1))["words"])
    kept = torch.cat([logits[: len(tags[0])], logits[len(tags[0]) + middle :]])
    truth = torch.tensor(tags[0] + tags[1])
    torch.testing.assert_close(term.loss, F.cross_entropy(kept, truth, reduction="sum"))
    assert term.count == len(truth) and term.correct == (kept.argmax(1) == truth).sum()


@pytest.mark.parametrize("samples", [[], [text(1, tagged=False)], [text(1)]])
def test_every_parameter_has_a_gradient(tokenizer, samples):
    model, transform = build(tokenizer)
    model.log = lambda *args, **kwargs: None
    loss = model.training_step(collate([read(transform, data) for data in samples]), 0)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert (loss > 0) == (bool(samples) and b"tags" in samples[0])


def test_names_are_learned_and_every_word_is_written(tokenizer, tmp_path):
    model, transform = build(tokenizer, optimizer=lambda groups: torch.optim.AdamW(groups, lr=5e-3))
    train = [[read(transform, text(seed + 8 * i), train=True) for seed in range(8)] for i in range(30)]
    test = [read(transform, text(1000 + i, 30), key=f"k{i}") for i in range(6)]
    trainer = L.Trainer(max_epochs=2, default_root_dir=tmp_path, callbacks=[PredictionWriter()], **QUIET)
    trainer.fit(model, loader(train), loader([test[:4], test[4:]]))
    scores = {name: value.item() for name, value in trainer.callback_metrics.items()}
    words = [json.loads(text(1000 + i, 30)) for i in range(6)]
    assert scores["val/words"] == sum(len(row["words"]) for row in words)
    assert scores["val/entities"] == sum(row["tags"].count("B-PER") for row in words)
    assert scores["val/entity_f1"] > 0.9 and scores["val/accuracy"] > 0.95
    trainer.predict(model, loader([test[:4], [], test[4:]]), return_predictions=False)
    lines = [json.loads(line) for line in (tmp_path / "predictions/tagged.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"k{i}" for i in range(6)]
    assert [line["tagged"]["words"] for line in lines] == [row["words"] for row in words]
    right = [
        own == tag for line, row in zip(lines, words, strict=True) for own, tag in zip(line["tagged"]["tags"], row["tags"], strict=True)
    ]
    assert sum(right) / len(right) == pytest.approx(scores["val/accuracy"], abs=1e-6)


def test_parts_that_do_not_fit_are_refused(tokenizer):
    model, transform = build(tokenizer)
    encoder, modalities = small(transform, tokenizer.vocab_sizes[0])
    with pytest.raises(ValueError, match="the head's num_classes is 2, the transform has 3 classes"):
        WordLabelling(encoder, modalities, lambda dim: TokenClassifier(dim, 2))
    with pytest.raises(ValueError, match="reads no tags: use one that does, such as"):
        WordLabelling(*small(TextTransform(tokenizer), tokenizer.vocab_sizes[0]), lambda dim: TokenClassifier(dim, 2))
    trainer = L.Trainer(max_epochs=1, **QUIET)
    with pytest.raises(
        ValueError, match=r"no word of the epoch has a label: do the shards of the training split hold tags in a field conll, json"
    ):
        trainer.fit(model, loader([[read(transform, text(0, tagged=False), train=True)]]))
