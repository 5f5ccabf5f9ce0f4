"""Films of digits and what is said of them: who says what when, which digits they share, and scores whose answers are known."""

import csv
import json

import numpy as np
import pytest
import torch

from benchmarks.moving_digits.films import DIRECTIONS
from benchmarks.narrated_digits.baselines import cluster_scores, fit_scores, nearest_means, word_scores
from benchmarks.narrated_digits.data import CLIP_FRAMES, CLIPS_OF_A_MOVE, FRAMES_PER_SECOND, MOVES, Told, digits_of, read_moves, write_films
from benchmarks.narrated_digits.moves import Moves, read
from benchmarks.narrated_digits.run import COLUMNS, commands
from benchmarks.narrated_digits.scores import PAIRS, balanced, mismatches, without_model
from benchmarks.narrated_digits.sentences import DIGITS, TEMPLATES, WAYS, WORDINGS, plain_sentence, sentence, subrip
from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.tokenizers.clip_file import Clips, write_clips
from multimodal.tokenizers.clips_and_text.captions import read_captions
from multimodal.tokenizers.video.decode import open_film


def told(moves, key="test/00000"):
    return [Told(key, number, digit, way, plain_sentence(digit, way)) for number, (digit, way) in enumerate(moves)]


def known(seed=0, films=40, wrong=0.0):
    """Return moves whose clips have the id 8 * digit + way, but for a share of wrong ones, and features that tell both."""
    random = np.random.default_rng(seed)
    moves = [move for film in range(films) for move in told(random.integers((10, 8), size=(MOVES, 2)).tolist(), f"test/{film:05d}")]
    digits, ways = (np.array([move[part] for move in moves])[:, None].repeat(CLIPS_OF_A_MOVE, 1) for part in (2, 3))
    drawn = np.where(random.random(digits.shape) < wrong, random.integers(10, size=digits.shape), digits)
    features = np.concatenate([np.eye(10)[digits], np.eye(8)[ways]], 2).astype(np.float32)
    return Moves(moves, drawn * 8 + ways, features)


def test_sentences_name_the_digit_and_the_way():
    said = {sentence(7, 6, np.random.default_rng(seed)) for seed in range(100)}
    assert said == {wording.format(digit="seven", way="north") for wording in WORDINGS} and len(said) == len(WORDINGS)
    assert plain_sentence(7, 6) == "a seven goes north." and len(WAYS) == len(DIRECTIONS)
    assert all(wording.index("{digit}") < wording.index("{way}") for wording in WORDINGS[:2])
    assert [template.replace("[MASK]", "{}") for template in TEMPLATES] == [
        wording.format(digit="{}", way="{}") for wording in WORDINGS[:2]
    ]


def test_captions_are_read_back_with_their_times():
    found = read_captions(subrip(["a one goes east.", "a two goes west."], 2.5).encode())
    assert [tuple(caption) for caption in found] == [(0.0, 2.5, "a one goes east."), (2.5, 5.0, "a two goes west.")]
    assert subrip(["x"] * 1500, 2.5).splitlines()[-2] == "01:02:27,500 --> 01:02:30,000"


def test_shots_films_and_films_for_testing_show_other_digits():
    shown = [digits_of(kind, split) for kind, split in (("shots", "train"), ("films", "train"), ("films", "test"))]
    assert [np.bincount(digits).tolist() for _, digits in shown] == [[300] * 10, [100] * 10, [100] * 10]
    images = [{image.tobytes() for image in images} for images, _ in shown]
    assert not images[0] & images[1] and not images[0] & images[2] and not images[1] & images[2]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("narrated") / "films"
    folder.mkdir()
    write_films({"train": 2, "test": 1}, folder)
    return folder


def test_a_film_lasts_as_long_as_its_captions(films):
    film = open_film((films / "train/00001.mp4").read_bytes())
    captions = read_captions((films / "train/00001.srt").read_bytes())
    assert film.header.seconds == captions[-1].end == MOVES * CLIPS_OF_A_MOVE * CLIP_FRAMES / FRAMES_PER_SECOND
    assert [caption.text for caption in captions] == [move.said for move in read_moves(films, "train") if move.key == "train/00001"]


def test_the_table_says_what_each_film_tells(films):
    moves = read_moves(films, "test")
    assert [move.number for move in moves] == list(range(MOVES)) and all(move.said == plain_sentence(*move[2:4]) for move in moves)
    assert all(DIGITS[move.digit] in move.said and WAYS[move.way] in move.said for move in read_moves(films, "train"))
    assert len((films / "sentences.txt").read_text().splitlines()) == 2 * MOVES, "no sentence of a film for testing"
    with (films / "films.csv").open() as file:
        assert [row["srt"] for row in csv.DictReader(file)] == ["train/00000.srt", "train/00001.srt", "test/00000.srt"]


def test_clips_come_to_the_moves_that_they_show(films, tmp_path):
    count = MOVES * CLIPS_OF_A_MOVE
    starts = torch.arange(count).float()
    clips = Clips(starts, starts + 1, features=torch.arange(count)[:, None].half(), ids=torch.arange(count))
    (tmp_path / "files/test").mkdir(parents=True)
    (tmp_path / "files/test/00000.clips.safetensors").write_bytes(write_clips(clips))
    named = ["--field-pattern", r"(?P<key>[^.]+)\.(?P<field>.+)"]
    assert main(["write", str(tmp_path / "files"), "--to", str(tmp_path / "shards"), "--split", "test=1", *named]) == 0
    assert ShardIndex.load(tmp_path / "shards").splits.keys() == {"test"}
    moves = read(films, tmp_path / "shards", "test")
    assert moves.ids.tolist() == [[2 * move, 2 * move + 1] for move in range(MOVES)]
    assert moves.features[:, :, 0].tolist() == moves.ids.tolist() and moves.told == read_moves(films, "test")


def test_clusters_that_tell_all_are_told_to():
    train, test = known(0), known(1)
    for task, count in (("digit", 10), ("way", 8)):
        found = cluster_scores(train, test, task)
        assert found["accuracy"] > 0.95 and found["information"] > 0.6
        assert word_scores(train, test, task, 80).shape == (len(test.told), count)
        np.testing.assert_allclose(np.exp(word_scores(train, test, task, 80)).sum(1), 1)
        assert (word_scores(train, test, task, 80).argmax(1) == test.classes(task)).mean() > 0.95
        assert (nearest_means(train, test, task) == test.classes(task)).all()


def test_two_clips_tell_more_than_one():
    train, test = known(0, 200, wrong=0.4), known(1, 200, wrong=0.4)
    one = cluster_scores(train, test, "digit")["accuracy"]
    both = (word_scores(train, test, "digit", 80).argmax(1) == test.classes("digit")).mean()
    assert 0.6 < one < 0.7 and cluster_scores(train, test, "way")["accuracy"] > 0.95
    assert (word_scores(train, test, "way", 80).argmax(1) == test.classes("way")).mean() > 0.95
    assert both > one - 0.03


def test_a_sentence_fits_its_own_clips_best():
    train, test = known(0, 100), known(1, 100)
    fit = fit_scores(train, test, 80)
    best = fit.reshape(len(test.told), -1).argmax(1)
    assert (best == test.classes("digit") * 8 + test.classes("way")).mean() > 0.95


def test_mismatches_say_something_else_of_the_same_film():
    moves = Moves([*told([(1, 2), (1, 2), (3, 2)]), *told([(4, 4), (4, 4)], "test/00001")], np.zeros((5, 2), int), np.zeros((5, 2, 1)))
    assert list(mismatches(moves)) == [(0, 2), (1, 2), (2, 0)]


def test_moves_are_found_by_the_start_of_their_sentence():
    moves = known(films=2)
    chosen = moves.first_of([("test/00001", 4.0), ("test/00000", 9.999)])
    assert [move[:2] for move in chosen.told] == [("test/00001", 2), ("test/00000", 5)]
    assert chosen.ids.tolist() == moves.ids[[8, 5]].tolist() and len(chosen.features) == 2


def test_a_balanced_score_is_half_for_what_knows_nothing():
    nothing = np.zeros(4)
    assert balanced(nothing, nothing) == balanced(nothing + 1, nothing + 1) == 0.5
    assert balanced(np.array([1.0, 2.0, -1.0, 3.0]), np.array([-1.0, -2.0])) == 0.875


def test_scores_without_a_model_have_a_place_in_the_table():
    lines = list(without_model(known(0), known(1), 80))
    assert {line["task"] for line in lines} == set(COLUMNS)
    assert {line["method"] for line in lines if line["task"] == "digit"} >= {"chance", "naive Bayes", "nearest mean feature"}
    own = {(line["task"], line["method"]): float(line["score"]) for line in lines}
    assert own["alignment", "naive Bayes"] > 0.9 and own["text_to_video", "naive Bayes"] > 0.9
    pairs = known(1).told[:PAIRS]
    meanings = [move[2:4] for move in pairs]
    chance = np.mean([meanings.count(meaning) / len(pairs) for meaning in meanings])
    assert own["text_to_video", "chance"] == pytest.approx(chance) and own["video_to_text", "chance"] == pytest.approx(chance)
    json.dumps(lines, default=float)


def test_each_command_leaves_what_the_next_one_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps = commands()
    left = [str(done) for _, done in steps]
    assert len(set(left)) == len(left)
    names = [command[: 1 if command[0] in ("fit", "export") else 2] for command, _ in steps]
    clips = [["clips", name] for name in ("features", "cluster", "encode", "classify")]
    assert names == [["fit"], ["export"], *clips[:3], ["tokenizers", "train"], ["fit"], clips[3]]
    assert (tmp_path / "runs/narrated_digits/ways.txt").read_text().split() == list(WAYS)
