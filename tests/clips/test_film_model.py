"""A pretrained model of words and clips: what it says of films equals what its parts say, one sequence at a time."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from multimodal.batch import Item, Sample, collate
from multimodal.cli import main
from multimodal.clips import film_model
from multimodal.clips.caption_features import TEMPLATE, caption_features
from multimodal.clips.classify import TemplateClassifier
from multimodal.clips.continuation import continued
from multimodal.clips.film_model import FilmModel
from multimodal.clips.films import Stretch, sequence_of, stretches_of
from multimodal.clips.retrieve import retrieve
from multimodal.lightning_cli import load_run

GAPS = "now [MASK] the [MASK]."


@pytest.fixture(scope="module")
def model(film_run) -> FilmModel:
    return FilmModel.from_run(film_run)


@pytest.fixture(scope="module")
def parts(spoken, model) -> list[Stretch]:
    return [stretch for stretch, _ in stretches_of(spoken, "test", model.transform, spans=True)]


def alone(model: FilmModel, ids: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
    """The encoder's output for one sequence, by the parts themselves."""
    items = collate([Sample("0", {"film": Item(ids, ragged=True)})]).items["film"]
    tokens = model.modality.embed.tokens(items.values, items.lengths)
    with torch.no_grad():
        x = model.modality.embed(tokens, hidden)
        return model.encoder(x, torch.zeros(len(ids), dtype=torch.int64), tokens.coordinates).tokens


def test_the_weights_are_those_of_the_last_checkpoint(film_run, model):
    module, _ = load_run(film_run)
    saved = torch.load(film_run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(model.aligned.proj.weight, saved["objectives.1.proj.weight"], rtol=0, atol=0)
    torch.testing.assert_close(dict(model.encoder.state_dict()), dict(module.encoder.state_dict()), rtol=0, atol=0)
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


def test_stretches_are_sentences_with_their_clips_or_whole_films(spoken, model):
    whole = [stretch for stretch, _ in stretches_of(spoken, "test", model.transform, spans=False)]
    assert [len(own.clips) for own in whole] == [10, 10, 10] and [own.key for own in whole if not own.text] == ["film11"]
    spans = [stretch for stretch, _ in stretches_of(spoken, "test", model.transform, spans=True)]
    assert len(spans) == 8, "a film without words has no sentence"
    for own in spans:
        film = next(other for other in whole if other.key == own.key)
        middles = 2.0 * torch.arange(10) + 1
        inside = (middles >= own.start_s) & (middles < own.end_s)
        assert torch.equal(own.clips, film.clips[inside]) and torch.equal(own.numbers, inside.nonzero()[:, 0])
        assert own.name == f"{own.key}-{own.number:04d}"
    with pytest.raises(ValueError, match="has no split 'dev'; splits there: "):
        list(stretches_of(spoken, "dev", model.transform, spans=False))


def test_a_batch_says_of_each_sequence_what_it_says_alone(model, parts, monkeypatch):
    words = model.vocabulary.encode_template(GAPS)
    sequences = [sequence_of(model.transform, words if i % 2 else None, own.clips) for i, own in enumerate(parts)]
    expected = [alone(model, ids, ids == model.vocabulary.mask_id) for ids in sequences]
    torch.testing.assert_close(torch.cat([seen.tokens for seen in model.see(sequences)]), torch.cat(expected), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(film_model, "TOKENS_AT_ONCE", 40)
    found = list(model.see(sequences, wanted="first"))
    assert len(found) > 1
    torch.testing.assert_close(torch.cat([seen.tokens for seen in found]), torch.stack([own[0] for own in expected]), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_thinned_and_words_stay_whole(model):
    words, clips = model.vocabulary.encode_template(TEMPLATE), torch.arange(200) % 12 + model.vocabulary.clip_offset
    ids = sequence_of(model.transform, words, clips)
    kept = ids[model.vocabulary.is_clip(ids)]
    step = round(200 / len(kept))
    assert len(ids) <= 80 and torch.equal(kept, clips[::step]) and int((ids == model.vocabulary.mask_id).sum()) == 5
    with pytest.raises(ValueError, match="leave no room for a clip among the 80 tokens"):
        sequence_of(model.transform, words.repeat(3), clips)


def test_words_are_ranked_by_the_log_probabilities_at_as_many_masks(model, parts):
    lists = [["ab", "c", "put"], ["d", "ef"]]
    found = TemplateClassifier(model, [GAPS], lists)(parts[:3])
    offset, encode = model.vocabulary.clip_offset, model.vocabulary.encode_text
    for gap, words in enumerate(lists):
        scores = []
        for word in words:
            masks = [len(word) if own == gap else 1 for own in range(2)]
            text = f"now {' '.join(['[MASK]'] * masks[0])} the {' '.join(['[MASK]'] * masks[1])}."
            ids = sequence_of(model.transform, model.vocabulary.encode_template(text), parts[1].clips)
            places = (ids == model.vocabulary.mask_id).nonzero()[:, 0][gap : gap + len(word)]
            with torch.no_grad():
                logits = model.modality.head(alone(model, ids, ids == model.vocabulary.mask_id)[places])[0][:, :offset]
            scores.append(logits.log_softmax(1)[torch.arange(len(word)), encode(word)].mean())
        torch.testing.assert_close(found[gap][1], torch.stack(scores).softmax(0).double(), rtol=1e-4, atol=1e-6)


def test_templates_are_averaged_and_combinations_are_products(model, parts):
    lists = [["a", "b", "c"], ["d", "e", "f", "g"]]
    one, other = (TemplateClassifier(model, [text], lists)(parts[:2]) for text in (GAPS, "[MASK] a [MASK]"))
    both = TemplateClassifier(model, [GAPS, "[MASK] a [MASK]"], lists)
    found = both(parts[:2])
    for gap in range(2):
        torch.testing.assert_close(found[gap], (one[gap] + other[gap]) / 2)
    own = [probabilities[0] for probabilities in found]
    combined = both.combined(own, 12)
    table = (own[0][:, None] * own[1]).flatten().sort(descending=True).values.tolist()
    assert [guess.probability for guess in combined] == pytest.approx(table) and math.fsum(table) == pytest.approx(1.0)
    assert both.combined(own, 3) == combined[:3] and len({guess.words for guess in combined}) == 12
    assert [guess.words[0] for guess in both.ranked(own, 1)[0]] == [lists[0][int(own[0].argmax())]]


@pytest.mark.parametrize(
    ("templates", "lists", "said"),
    [
        ([], [["a"]], "at least one template"),
        (["a [MASK]"], [["a"], ["b"]], "has 1 gaps"),
        (["a [MASK]"], [["a", "b", "a"]], "'a' stands twice"),
        (["a [MASK]"], [["a", "\u4e00"]], "is no word of the vocabulary"),
        (["a [MASK]"], [[]], "a list of words is empty"),
    ],
)
def test_templates_and_lists_that_do_not_fit_are_refused(model, templates, lists, said):
    with pytest.raises(ValueError, match=said):
        TemplateClassifier(model, templates, lists)


def test_alignment_retrieval_ranks_by_the_layer_of_the_run(model, parts):
    found = retrieve(model, parts, "alignment", top=3)
    matrix = torch.zeros(len(parts), len(parts))
    for i, text in enumerate(parts):
        for j, film in enumerate(parts):
            ids = model.transform.item(model.vocabulary.encode_text(text.text), film.clips).values
            with torch.no_grad():
                logits = model.aligned.logits(alone(model, ids)[:1])[0]
            matrix[i, j] = logits[0] - logits[1]
    for direction, scores in (("text_to_video", matrix), ("video_to_text", matrix.T)):
        torch.testing.assert_close(
            torch.tensor(found.values[direction]), scores.sort(1, descending=True).values[:, :3], rtol=1e-4, atol=1e-5
        )
        assert 1 <= found.scores[direction]["median_rank"] <= len(parts) and 0 <= found.scores[direction]["recall_1"] <= 1


def test_embedding_retrieval_compares_mean_words_with_mean_clips(model, parts):
    found = retrieve(model, parts, "embeddings", top=len(parts))
    ids = model.vocabulary.encode_text(parts[2].text)
    text = alone(model, model.transform.item(ids, None).values)[1:-1].mean(0)
    film = alone(model, model.transform.item(None, parts[5].clips).values)[1:-1].mean(0)
    place = found.first["text_to_video"][2].index(5)
    assert found.values["text_to_video"][2][place] == pytest.approx(float(F.cosine_similarity(text, film, dim=0)), abs=1e-4)


def test_equal_films_are_right_for_each_others_words(model, parts):
    twins = [parts[0], Stretch("twin", 0, 0.0, 1.0, "put zz in.", parts[0].clips, parts[0].numbers), parts[1]]
    for by in ("alignment", "embeddings"):
        found = retrieve(model, twins, by)
        assert found.first["text_to_video"][0].index(0) < found.first["text_to_video"][0].index(1), "of equal ones the first"
        value = dict(zip(found.first["text_to_video"][0], found.values["text_to_video"][0], strict=True))
        assert value[0] == pytest.approx(value[1], abs=1e-6)


def test_the_next_clips_are_read_at_masks_that_are_clips(model, parts):
    clips, words = parts[0].clips, model.vocabulary.encode_text("put it in")
    found = continued(model, [clips, clips[:0]], [None, words], steps=2, top=12)
    first = model.vocabulary.clip_offset
    for row, (given, said) in enumerate(((clips, None), (clips[:0], words))):
        for step in range(2):
            ids = model.transform.item(said, torch.cat([given, torch.tensor([first])])).values
            hidden = torch.zeros_like(ids, dtype=torch.bool)
            hidden[len(ids) - 1 - len(model.transform.tokenizer.end_ids)] = True
            with torch.no_grad():
                logits = model.modality.head(alone(model, ids, hidden)[hidden])[0][0, first : first + 12]
            expected = logits.softmax(0)
            assert [guess.clip for guess in found[row][step]] == expected.argsort(descending=True).tolist()
            assert [guess.probability for guess in found[row][step]] == pytest.approx(
                expected.sort(descending=True).values.tolist(), abs=1e-5
            )
            given = torch.cat([given, torch.tensor([first + found[row][step][0].clip])])


def test_caption_features_are_means_of_clips_and_of_masks(model, parts):
    found = caption_features(model, parts[:2])
    ids = sequence_of(model.transform, model.vocabulary.encode_template(TEMPLATE), parts[1].clips)
    masks = ids == model.vocabulary.mask_id
    output = alone(model, ids, masks)
    expected = torch.cat([output[model.vocabulary.is_clip(ids)].mean(0), output[masks].mean(0)])
    torch.testing.assert_close(found[1], expected, rtol=1e-4, atol=1e-5)
    assert int(masks.sum()) == 5 and found.shape == (2, 32)
    with pytest.raises(ValueError, match=r"has no \[MASK\]"):
        caption_features(model, parts[:1], "put it in")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_commands_write_what_the_model_says(film_run, spoken, model, parts, tmp_path, capsys):
    (tmp_path / "verbs").write_text("ab\nc\n\n")
    (tmp_path / "nouns").write_text("d\nef\ng\n")
    both = ["--words", str(tmp_path / "verbs"), "--words", str(tmp_path / "nouns")]
    start = [str(film_run), str(spoken.root)]
    assert main(["clips", "classify", *start, "--spans", "--template", GAPS, *both, "--to", str(tmp_path / "c.jsonl")]) == 0
    told, expected = lines(tmp_path / "c.jsonl"), TemplateClassifier(model, [GAPS], [["ab", "c"], ["d", "ef", "g"]])(parts)
    assert [(own["key"], own["sentence"]) for own in told] == [(own.key, own.number) for own in parts]
    assert told[3]["words"][1][0]["probability"] == pytest.approx(float(expected[1][3].max()), abs=1e-5)
    assert len(told[0]["together"]) == 5 and len(told[0]["words"][0]) == 2
    assert main(["clips", "retrieve", *start, "--spans", "--to", str(tmp_path / "r.jsonl"), "--top", "4"]) == 0
    assert "8 pairs" in capsys.readouterr().out
    asked = lines(tmp_path / "r.jsonl")
    assert len(asked) == 2 * 2 * 8 and {len(own["found"]) for own in asked} == {4}
    assert main(["clips", "continue", *start, "--given", "4", "--steps", "2", "--to", str(tmp_path / "n.jsonl")]) == 0
    following = lines(tmp_path / "n.jsonl")
    assert len(following) == 3 and all(len(own["given"]) == 4 and len(own["next"]) == 2 and len(own["true_next"]) == 2 for own in following)


def test_vectors_of_films_become_samples_of_a_captioner(film_run, spoken, model, parts, tmp_path):
    to, samples = str(tmp_path / "vectors"), str(tmp_path / "parts")
    assert main(["clips", "caption-features", str(film_run), str(spoken.root), "--spans", "--to", to, "--samples", samples]) == 0
    rows = np.load(tmp_path / "vectors" / "test.npy", allow_pickle=False)
    torch.testing.assert_close(torch.from_numpy(rows), caption_features(model, parts), rtol=1e-4, atol=1e-5)
    assert (tmp_path / "vectors" / "test.keys.txt").read_text().split() == [own.name for own in parts]
    for number, own in enumerate(parts):
        path = tmp_path / "parts" / "test" / own.name
        assert path.with_name(f"{own.name}.txt").read_text() == own.text
        film = model.transform.decode(path.with_name(f"{own.name}.clips.safetensors").read_bytes())
        assert torch.equal(film.clips, own.clips)
        assert np.array_equal(np.load(path.with_name(f"{own.name}.features.npy")), rows[number])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["classify", "RUN", "SHARDS", "--template", "[MASK]", "--words", "none", "--to", "x"], "none cannot be read"),
        (["classify", "nowhere", "SHARDS", "--template", "[MASK]", "--words", "words", "--to", "x"], "no run in nowhere"),
        (["retrieve", "RUN", "SHARDS", "--split", "dev"], "has no split 'dev'"),
        (["retrieve", "RUN", "SHARDS", "--most", "0"], "--most must be at least 1, got 0"),
        (["continue", "RUN", "SHARDS", "--given", "0", "--to", "x"], "or 0 with --words"),
        (["continue", "RUN", "SHARDS", "--page", "p", "--to", "x"], "--page needs --films and --tokenizer"),
        (["continue", "RUN", "SHARDS", "--given", "11", "--to", "x"], "no film with 11 clips"),
        (["caption-features", "RUN", "SHARDS", "--template", "none", "--to", "x"], "has no [MASK]"),
    ],
)
def test_mistakes_are_told_in_one_line(film_run, spoken, arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").write_text("a\n")
    names = {"RUN": str(film_run), "SHARDS": str(spoken.root)}
    assert main(["clips", *(names.get(own, own) for own in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
