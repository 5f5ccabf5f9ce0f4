from collections import Counter

import pytest
import torch

from multimodal.batch import Item
from multimodal.tokenizers.clip_file import Clips, write_clips
from multimodal.tokenizers.clips_and_text import ClipsAndTextTransform, Regimes
from tests.tokenizers.clips_and_text.films import NearestOfRow, caption_file, clip_file, vocabulary

TEXTS = ["take the dough", "roll it out", "add some oil", "put it in", "wait a bit"]
JOINT = Regimes(text=0, video=0, joint=1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(transform: ClipsAndTextTransform, seed: int, train: bool = True, texts: list[str] = TEXTS, clips: bytes | None = None) -> Item:
    film = transform.decode(clip_file() if clips is None else clips)
    return transform.labelled(film, transform.decode_labels(caption_file(texts)), seeded(seed), train)


def parts(transform: ClipsAndTextTransform, item: Item) -> tuple[str, list[int]]:
    """The words of a sequence, and the numbers of its clips."""
    joint = transform.tokenizer
    words = item.values[~joint.is_clip(item.values) & ~joint.marks(item.values)]
    return joint.words.decode(words), (item.values[joint.is_clip(item.values)] - joint.clip_offset).tolist()


def kind(transform: ClipsAndTextTransform, item: Item) -> str:
    words, clips = parts(transform, item)
    return "joint" if words and clips else "text" if words else "video"


def test_words_and_clips_are_of_the_same_time() -> None:
    transform = ClipsAndTextTransform(vocabulary(), JOINT, negatives=0.0)
    seen = set()
    for seed in range(30):
        item = made(transform, seed, train=False)
        words, clips = parts(transform, item)
        number = TEXTS.index(words)
        assert clips == list(range(4 * number, 4 * number + 4)), "a clip of 1.5 s has its middle in one sentence of 6 s"
        assert item.values[0] == 28 and item.values[-1] == 29 and item.values[len(words) + 1] == transform.tokenizer.fusion_id
        assert item.labels is not None and item.labels.tolist() == [0] + [-1] * (len(item.values) - 1)
        seen.add(number)
    assert seen == set(range(5))


def test_the_label_is_0_where_words_and_clips_belong_together_and_1_where_not() -> None:
    transform = ClipsAndTextTransform(vocabulary(), JOINT, max_neighbours=0, max_step=1)
    labels = []
    for seed in range(250):
        item = made(transform, seed)
        words, clips = parts(transform, item)
        assert item.labels is not None
        labels.append(int(item.labels[0]))
        assert labels[-1] == int(clips[0] // 4 != TEXTS.index(words))
        assert len(clips) == 4, "clips of another sentence of the film"
    assert 0.41 < sum(labels) / 250 < 0.59  # 2.8 standard deviations


def test_a_film_of_one_sentence_has_nothing_to_be_mistaken_for() -> None:
    transform = ClipsAndTextTransform(vocabulary(), JOINT)
    labels = [made(transform, seed, texts=TEXTS[:1]).labels for seed in range(20)]
    assert all(label is not None and label[0] == 0 for label in labels)


def test_clips_of_captions_that_overlap_are_not_those_of_others() -> None:
    captions = b'[{"start": 0, "end": 6, "text": "ab"}, {"start": 0, "end": 7, "text": "cd"}, {"start": 30, "end": 33, "text": "ef"}]'
    transform = ClipsAndTextTransform(vocabulary(), JOINT, max_neighbours=0, negatives=0.99)
    film, found = transform.decode(clip_file()), set()
    for seed in range(40):
        item = transform.labelled(film, transform.decode_labels(captions), seeded(seed), train=False)
        words, clips = parts(transform, item)
        if item.labels is not None and item.labels[0] == 1:
            found.add((words, min(clips) >= 20))
    assert found <= {("ab", True), ("cd", True), ("ef", False)} and len(found) == 3


def test_regimes_mix_by_weight() -> None:
    transform = ClipsAndTextTransform(vocabulary(), Regimes(text=1, video=2, joint=3))
    count = Counter(kind(transform, made(transform, seed)) for seed in range(300))
    for name, share in (("text", 1 / 6), ("video", 2 / 6), ("joint", 3 / 6)):
        assert abs(count[name] / 300 - share) < 3 * (share * (1 - share) / 300) ** 0.5
    only_joint_is_labelled = [made(transform, seed) for seed in range(40)]
    assert all((item.labels[0] >= 0) == (kind(transform, item) == "joint") for item in only_joint_is_labelled)


def test_half_of_the_passages_have_two_sentences() -> None:
    transform = ClipsAndTextTransform(vocabulary(), JOINT, max_step=1, negatives=0.0)
    lengths = Counter()
    for seed in range(300):
        words, clips = parts(transform, made(transform, seed, texts=TEXTS * 2))
        number = len(clips) // 4
        assert " ".join((TEXTS * 2)[clips[0] // 4 :][:number]) == words
        lengths[number] += 1
    assert set(lengths) == {1, 2} and 0.35 < lengths[2] / 300 < 0.55  # but the last sentence has no neighbour


def test_clips_are_thinned_by_a_step() -> None:
    transform = ClipsAndTextTransform(vocabulary(), Regimes(0, 1, 0), seconds_without_captions=60.0)
    film = transform.decode(clip_file())
    steps = Counter()
    for seed in range(300):
        clips = parts(transform, transform.labelled(film, None, seeded(seed), True))[1]
        step = clips[1] - clips[0]
        assert clips == list(range(clips[0], 40, step)) and clips[0] < step
        steps[step] += 1
    assert set(steps) == {1, 2, 3, 4, 5} and min(steps.values()) > 35  # 60 each are expected
    assert parts(transform, transform.labelled(film, None, seeded(0), False))[1] == list(range(40)), "in evaluation all are there"


@pytest.mark.parametrize("captions", [None, []], ids=["no file", "no speech"])
def test_a_film_without_captions_gives_twenty_seconds(captions) -> None:
    transform = ClipsAndTextTransform(vocabulary(), Regimes(1, 0, 1))
    for seed in range(20):
        item = transform.labelled(transform.decode(clip_file()), captions, seeded(seed), False)
        words, clips = parts(transform, item)
        assert words == "" and len(clips) in (13, 14) and clips == list(range(clips[0], clips[0] + len(clips)))
        assert transform.tokenizer.fusion_id not in item.values and (item.labels == -1).all()


@pytest.mark.parametrize("data", [caption_file(TEXTS), ". ".join(TEXTS).encode(), b"WEBVTT\n\n00:01.0 --> 00:02.0\n" + TEXTS[0].encode()])
def test_a_sample_without_clips_gives_words(data: bytes) -> None:
    transform = ClipsAndTextTransform(vocabulary(), JOINT, max_neighbours=0)
    item = transform.labelled(transform.decode(data), None, seeded(0), True)
    words, clips = parts(transform, item)
    assert words in TEXTS and not clips and (item.labels == -1).all()


def test_captions_beside_no_clip_leave_words() -> None:
    transform = ClipsAndTextTransform(vocabulary(), JOINT)
    film = transform.decode(clip_file(2))
    late = b'[{"start": 600, "end": 606, "text": "much later"}]'
    assert parts(transform, transform.labelled(film, transform.decode_labels(late), seeded(0), True)) == ("much later", [])


def test_the_end_of_the_longer_is_cut_off() -> None:
    transform = ClipsAndTextTransform(vocabulary(), max_tokens=13)
    for words, clips, kept in ((3, 20, (3, 7)), (20, 3, (7, 3)), (20, 20, (5, 5)), (4, 6, (4, 6))):
        item = transform.item(torch.arange(words), torch.arange(clips) + transform.tokenizer.clip_offset, 0)
        found = int((item.values < 28).sum()), int(transform.tokenizer.is_clip(item.values).sum())
        assert found == kept and len(item.values) <= 13 and item.values[0] == 28 and item.values[-1] == 29
    assert len(transform.item(torch.zeros(50, dtype=torch.int64), None).values) == 13


def test_what_is_drawn_is_a_function_of_the_seed() -> None:
    transform = ClipsAndTextTransform(vocabulary())
    for train in (True, False):
        first, again = ([made(transform, seed, train).values.tolist() for seed in range(20)] for _ in range(2))
        assert first == again
        assert len({tuple(ids) for ids in first}) > 5


def test_stretches_are_all_sentences_with_clips() -> None:
    transform = ClipsAndTextTransform(vocabulary(), max_tokens=100)
    found = list(transform.stretches(transform.decode(clip_file(10)), transform.decode_labels(caption_file(TEXTS))))
    assert [passage.text for passage, _ in found] == TEXTS[:3]
    assert [parts(transform, item)[1] for _, item in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_ids_of_another_tokenizer_are_refused() -> None:
    own, other = NearestOfRow(), NearestOfRow(seed=1)
    transform = ClipsAndTextTransform(vocabulary(clips=own))
    assert len(transform.decode(clip_file(tokenizer=own.fingerprint())).clips) == 40
    with pytest.raises(ValueError, match=f"the ids of another tokenizer, {other.fingerprint()[:12]}, not of {own.fingerprint()[:12]}"):
        transform.decode(clip_file(tokenizer=other.fingerprint()))
    with pytest.raises(ValueError, match="the ids of another tokenizer, unknown"):
        transform.decode(clip_file())


def test_ids_are_made_of_features_where_there_are_none() -> None:
    own = NearestOfRow()
    wanted = torch.tensor([5, 0, 49])
    starts = torch.arange(3.0)
    features = (own.centroids[wanted] + 1e-3).half()
    stale = Clips(starts, starts + 1, features, wanted * 0, tokenizer="0123")
    for clips in (Clips(starts, starts + 1, features), stale):
        film = ClipsAndTextTransform(vocabulary(clips=own)).decode(write_clips(clips))
        assert (film.clips - 31).tolist() == [5, 0, 49] and film.middles.tolist() == [0.5, 1.5, 2.5]
    with pytest.raises(ValueError, match="features but no ids"):
        ClipsAndTextTransform(vocabulary()).decode(write_clips(Clips(starts, starts + 1, features)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (clip_file(first=20), "ids of clips must be from 0 to 49, got 20 to 59"),
        (clip_file()[:-30], "not a safetensors file"),
        (clip_file(0), "the film has no clips"),
        (b"WEBVTT\n", "neither clips nor words"),
        (b"", "an empty text"),
        (b"\xff\xd8\xff\xe0 a picture", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_film_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipsAndTextTransform(vocabulary()).decode(data)


def test_a_regime_that_the_film_does_not_allow_is_not_drawn() -> None:
    words = ClipsAndTextTransform(vocabulary(), Regimes(1, 0, 0))
    assert {kind(words, made(words, seed)) for seed in range(10)} == {"text"}
    with pytest.raises(ValueError, match="'12345' has no word of the vocabulary"):
        made(words, 0, texts=["12345"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 4}, "max_tokens must be at least 5: 3 marks, a word and a clip; got 4"),
        ({"negatives": 1.0}, "negatives in"),
        ({"max_step": 0}, "max_step at least 1"),
        ({"seconds_without_captions": 0.0}, "seconds_without_captions positive"),
        ({"captions": "srt"}, "captions must be a list of names of fields, got 'srt'"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipsAndTextTransform(vocabulary(), **settings)


@pytest.mark.parametrize("weights", [(0, 0, 0), (-1, 1, 1), (float("inf"), 1, 1)])
def test_weights_of_regimes_must_be_positive(weights) -> None:
    with pytest.raises(ValueError, match="regimes must have weights of at least 0"):
        Regimes(*weights)
