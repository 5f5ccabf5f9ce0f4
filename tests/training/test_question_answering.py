"""Questions about texts: BERT's logits, answers over several windows, silence where there is none, and learning."""

import json

import lightning as L
import pytest
import torch
import transformers

from multimodal.batch import collate
from multimodal.heads import TokenClassifier
from multimodal.tokenizers.text import FileTokenizer, QuestionTransform, TextTransform
from multimodal.training import QuestionAnswering
from multimodal.training.callbacks import PredictionWriter
from multimodal.windowed import AnswerColumn
from tests.tokenizers.text.word_pieces import write_vocabulary
from tests.training.text_tasks import QUIET, loader, published, read, small

NAMES = [f"{first}{second}" for first in "bdfgk" for second in ("a", "e", "i", "o")]
COLOURS = ["red", "blue", "green", "black", "white"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    words = [*NAMES, *COLOURS, "which", "colour", "has", "is"]
    return FileTokenizer(str(write_vocabulary(tmp_path_factory.mktemp("vocabulary"), words)), special_tokens=True)


def question(seed, things=8, impossible=False, known=True):
    """Things of a colour each; what colour has one of them, or one that is not there?"""
    generator = torch.Generator().manual_seed(seed)
    names = [NAMES[i] for i in torch.randperm(len(NAMES), generator=generator)[: things + 1]]
    colours = [COLOURS[i] for i in torch.randint(len(COLOURS), (things,), generator=generator)]
    parts = [f"{name} is {colour}." for name, colour in zip(names, colours, strict=False)]
    context, asked = " ".join(parts), int(torch.randint(things, (), generator=generator))
    answers = [] if impossible else [{"text": colours[asked], "answer_start": context.index(parts[asked]) + len(names[asked]) + 4}]
    content = {"question": f"which colour has {names[-1] if impossible else names[asked]}?", "context": context}
    return json.dumps(content | ({"answers": answers} if known else {})).encode()


def build(tokenizer, max_tokens=24, overlap=8, **settings):
    transform = QuestionTransform(tokenizer, max_tokens, overlap, max_question_tokens=6)
    return QuestionAnswering(*small(transform, tokenizer.vocab_sizes[0]), **settings), transform


@torch.no_grad()
def test_logits_are_those_of_bert(tokenizer, tmp_path):
    transform = QuestionTransform(tokenizer, 64, 8, max_question_tokens=8)
    reference, encoder, modalities = published(tmp_path, transformers.BertForQuestionAnswering, transform, tokenizer.vocab_sizes[0])
    model = QuestionAnswering(encoder, modalities).eval()
    model.head.proj.load_state_dict(reference.qa_outputs.state_dict())
    for seed, things in enumerate((2, 5, 9)):
        item = read(transform, question(seed, things)).items["text"]
        ids, types = item.values.unbind(1)
        expected = reference(input_ids=ids[None], token_type_ids=types[None])
        found = model(collate([read(transform, question(seed, things))]).items["text"])
        allowed = found.starts[0].isfinite()
        assert allowed.sum() == (item.labels[:, AnswerColumn.FROM] >= 0).sum() + 1 and allowed[0]
        for own, theirs in ((found.starts, expected.start_logits), (found.ends, expected.end_logits)):
            assert theirs.abs().max() > 0.1
            assert (own[0, allowed] - theirs[0, allowed]).abs().max() <= 1e-5


@torch.no_grad()
def test_the_loss_is_the_sum_over_windows(tokenizer):
    model, transform = build(tokenizer)
    model.eval()
    batch = collate([read(transform, question(0)), read(transform, question(1, known=False)), read(transform, question(2, 3))])
    read_ = model(batch.items["text"])
    term = model._terms(batch, "val")["text", 0]
    expected, count = torch.zeros(()), 0
    for starts, ends, item, labels in zip(*read_, strict=True):
        if item != 1:
            first, last = labels[:, AnswerColumn.STARTS].argmax(), labels[:, AnswerColumn.ENDS].argmax()
            expected, count = expected - (starts.log_softmax(0)[first] + ends.log_softmax(0)[last]) / 2, count + 1
    torch.testing.assert_close(term.loss, expected, atol=1e-4, rtol=1e-5)
    assert term.count == count > 2


def test_a_window_is_read_as_if_it_stood_alone(tokenizer):
    model, transform = build(tokenizer)
    model.eval()
    samples = [read(transform, question(seed, things)) for seed, things in ((0, 9), (1, 2))]
    found = model(collate(samples).items["text"])
    item = samples[0].items["text"]
    assert found.item.tolist() == [0] * (int(item.labels[:, 0].max()) + 1) + [1] and len(found.item) > 3
    for window in range(int(found.item.bincount()[0])):
        own = item.values[item.labels[:, 0] == window]
        tokens = model.modality.embed.tokens(own[None], None)
        logits = model.head(model.encode({"text": (model.modality.embed(tokens), tokens.item, tokens.coordinates)}).tokens)
        there = found.starts[window, : len(own)].isfinite()
        torch.testing.assert_close(found.ends[window, : len(own)][there], logits[there, 1], atol=1e-5, rtol=1e-4)


def answered(model, transform, data, starts, ends):
    """Return what is told where these are the scores of characters to be the first and the last of the answer."""
    items = collate([read(transform, data)]).items["text"]
    found = model(items)
    place = found.labels[..., AnswerColumn.FROM]
    wanted = torch.zeros(2, *found.starts.shape)
    for logits, scores in zip(wanted, (starts, ends), strict=True):
        for character, score in scores.items():
            logits[place == character] = score
    allowed = found.starts.isfinite()
    changed = found._replace(starts=wanted[0].masked_fill(~allowed, -torch.inf), ends=wanted[1].masked_fill(~allowed, -torch.inf))
    ((_, told),) = model._told(items, changed)
    return told


@torch.no_grad()
def test_the_best_span_of_all_windows_is_the_answer(tokenizer):
    model, transform = build(tokenizer, n_best=3, max_answer_tokens=4)
    data = question(0, 9)
    context = json.loads(data)["context"]
    words = [place for place in range(len(context)) if place == 0 or context[place - 1] == " "]
    told = answered(model, transform, data, {words[2]: 3.0, words[20]: 5.0}, {words[3]: 3.0, words[21]: 5.0, words[1]: 9.0})
    end = context.index(" ", words[21]) if " " in context[words[21] :] else len(context)
    assert told["score"] == 10.0 and told["start"] == words[20] and context[words[20] : end].startswith(told["span"])
    assert [candidate["score"] for candidate in told["n_best"]] == sorted((c["score"] for c in told["n_best"]), reverse=True)
    assert len({(c["start"], c["end"]) for c in told["n_best"]}) == 3 and told["n_best"][0]["span"] == told["span"]
    assert all(context[c["start"] : c["end"]] == c["span"] for c in told["n_best"])


@torch.no_grad()
def test_nothing_is_told_where_that_scores_more(tokenizer):
    model, transform = build(tokenizer, unanswerable=True, null_threshold=1.0)
    data = question(1, 2)  # one window, whose first token scores 0
    assert answered(model, transform, data, {0: -0.4}, {})["span"] != ""
    everything = {place: -2.0 for place in range(len(json.loads(data)["context"]))}
    told = answered(model, transform, data, everything, everything)
    assert (told["span"], told["start"], told["score"]) == ("", -1, 0.0) and told["n_best"][0]["span"] == ""
    model.unanswerable, model.null_threshold = False, 0.0
    told = answered(model, transform, data, everything, everything)
    assert told["span"] and all(candidate["span"] for candidate in told["n_best"])


@pytest.mark.parametrize("samples", [[], [question(1, known=False)], [question(1)]])
def test_every_parameter_has_a_gradient(tokenizer, samples):
    model, transform = build(tokenizer)
    model.log = lambda *args, **kwargs: None
    loss = model.training_step(collate([read(transform, data) for data in samples]), 0)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert (loss > 0) == (bool(samples) and b"answers" in samples[0])


def coloured(seed):
    """A text in which at most one word is a colour; which?"""
    generator = torch.Generator().manual_seed(seed)
    words = [NAMES[i] for i in torch.randint(len(NAMES), (24,), generator=generator)]
    answers = []
    if seed % 4:
        place = int(torch.randint(24, (), generator=generator))
        words[place] = COLOURS[seed % 5]
        answers = [{"text": words[place], "answer_start": sum(len(word) + 1 for word in words[:place])}]
    return json.dumps({"question": "which colour?", "context": " ".join(words), "answers": answers}).encode()


def test_answers_are_learned_and_written(tokenizer, tmp_path):
    model, transform = build(tokenizer, unanswerable=True, optimizer=lambda groups: torch.optim.AdamW(groups, lr=3e-3))
    train = [[read(transform, coloured(seed + 16 * i)) for seed in range(16)] for i in range(20)]
    test = [read(transform, coloured(1000 + i), key=f"k{i}") for i in range(40)]
    trainer = L.Trainer(max_epochs=3, default_root_dir=tmp_path, callbacks=[PredictionWriter()], **QUIET)
    trainer.fit(model, loader(train))
    (scores,) = trainer.test(model, loader([test[:25], [], test[25:]]), verbose=False)
    assert scores["test/questions"] == 40 and scores["test/exact_match"] > 0.9
    assert scores["test/f1_answerable"] > 0.8 and scores["test/accuracy_unanswerable"] > 0.8
    trainer.predict(model, loader([test[:25], test[25:]]), return_predictions=False)
    lines = [json.loads(line) for line in (tmp_path / "predictions/answer.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"k{i}" for i in range(40)]
    right = 0
    for number, line in enumerate(lines):
        own, told = json.loads(coloured(1000 + number)), line["answer"]
        assert told["span"] == (own["context"][told["start"] : told["end"]] if told["start"] >= 0 else "")
        right += told["span"] == (own["answers"][0]["text"] if own["answers"] else "")
    assert right / 40 == pytest.approx(scores["test/exact_match"])


def test_parts_that_do_not_fit_are_refused(tokenizer):
    with pytest.raises(ValueError, match="null_threshold has no effect where every question has an answer"):
        build(tokenizer, null_threshold=1.0)
    with pytest.raises(ValueError, match="the head's num_classes must be 2"):
        build(tokenizer, head=lambda dim: TokenClassifier(dim, 3))
    with pytest.raises(ValueError, match="max_answer_tokens and n_best must be at least 1, got 0 and 5"):
        build(tokenizer, max_answer_tokens=0)
    with pytest.raises(ValueError, match="a TextTransform, makes no windows of questions and texts"):
        QuestionAnswering(*small(TextTransform(tokenizer), tokenizer.vocab_sizes[0]))
    model, transform = build(tokenizer)
    with pytest.raises(ValueError, match="no question of the epoch has an entry 'answers'"):
        L.Trainer(max_epochs=1, **QUIET).fit(model, loader([[read(transform, question(0, known=False), train=True)]]))
