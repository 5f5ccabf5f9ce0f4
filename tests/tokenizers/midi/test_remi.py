from functools import partial

import pytest
import torch

from multimodal.batch import Item, Sample, collate
from multimodal.masking import GroupMasking
from multimodal.modality import Modality
from multimodal.tokenizers.midi import CompoundEmbed, CompoundTokenizer, MidiTransform, RemiTokenizer, Score, read_score, score_of
from multimodal.tokenizers.midi.tokenizer import DRUM_CLASS
from tests.tokenizers.midi.real import NAMES, real_files
from tests.tokenizers.midi.test_compound_settings import EVERYTHING, SCORE

PUBLISHED = {"Bar": 0, "Position_1/16": 1, "Position_16/16": 16, "Pitch_22": 17, "Pitch_107": 102, "Duration_0": 103, "Duration_63": 166}
"""Entries of remi.pkl of MIDI-BERT (branch main); Pad_None is 167, Mask_None 168."""
NOTES = torch.tensor([[0, 22, 60, 80], [1800, 107, 3840, 80], [1920, 60, 480, 80], [9600, 62, 240, 80]])


def test_the_dictionary_is_the_published_one() -> None:
    tokenizer = RemiTokenizer()
    assert (tokenizer.vocab_sizes, tokenizer.pad_ids, tokenizer.mask_ids) == ((169,), (167,), (168,))
    assert tokenizer.field_names == ("token",)
    ids = tokenizer.encode_score(score_of(NOTES[:2])).tolist()
    named = [PUBLISHED[name] for name in ("Bar", "Position_1/16", "Pitch_22", "Duration_0", "Position_16/16", "Pitch_107", "Duration_63")]
    assert ids == named
    assert [RemiTokenizer().kinds()[0].tolist().count(kind) for kind in (-1, 0, 1, 2, 3)] == [2, 1, 16, 86, 64]


def test_ids_of_bars() -> None:
    assert RemiTokenizer().encode_score(score_of(NOTES)).tolist() == [0, 1, 17, 103, 16, 102, 166, 0, 1, 55, 110, 0, 1, 57, 106]
    kept = RemiTokenizer(max_empty_bars=2)
    ids = kept.encode_score(score_of(NOTES))
    assert ids.tolist() == [0, 1, 17, 103, 16, 102, 166, 0, 1, 55, 110, 0, 0, 0, 1, 57, 106]
    assert kept.decode_score(ids).notes[:, 0].tolist() == [0, 1800, 1920, 1920 * 4]
    assert kept.note_of(ids).tolist() == [-1, 0, 0, 0, 1, 1, 1, -1, 2, 2, 2, -1, -1, -1, 3, 3, 3]


@pytest.mark.parametrize("name", NAMES)
def test_notes_of_real_files_say_what_compound_words_say(name: str) -> None:
    score, tokenizer = read_score(real_files()[name]), RemiTokenizer()
    ids, words = tokenizer.encode_score(score), CompoundTokenizer().encode_score(score)
    triples = ids[tokenizer.note_of(ids) >= 0].view(-1, 3)
    assert torch.equal(triples - torch.tensor([1, 17, 103]), words[:, 1:])
    opened = torch.cat([torch.zeros(1, dtype=torch.int64), ids])[:-1] == 0
    assert torch.equal(opened[tokenizer.kinds()[0][ids] == 1], words[:, 0] == 0)


def test_more_has_ids_after_the_published_and_tokens_after_the_duration() -> None:
    tokenizer = RemiTokenizer(**EVERYTHING)
    velocity, program, track, tempo, metre = 169, 169 + 32, 169 + 32 + 129, 169 + 32 + 129 + 2, 169 + 32 + 129 + 2 + 49
    assert tokenizer.vocab_sizes == (metre + 254,) and tokenizer.mask_ids == (168,) and tokenizer.tokens_per_note == 7
    ids = tokenizer.encode_score(SCORE)
    three_quarters = metre + 2 * 4 + 3 - 3
    assert ids.tolist() == [
        *(0, three_quarters),
        *(1, 17 + 38, 103 + 7, velocity, program, track, tempo + 35),
        *(5, 17 + 13, 103 + 3, velocity + 31, program + 128, track + 1, tempo + 35),
        *(0, three_quarters),
        *(1, 17 + 42, 103 + 7, velocity + 16, program + 24, track + 1, tempo + 23),
        *(0, 0, 0, 0, 0, three_quarters),
        *(1, 17 + 45, 103 + 15, velocity + 20, program, track, tempo + 23),
    ]
    groups = tokenizer.groups(torch.cat([ids, ids[16:25]]), torch.tensor([len(ids), 9]))
    assert groups["bar"].tolist() == [0] * 16 + [1] * 9 + [2, 3, 4, 5] + [6] * 9 + [0] * 9
    assert groups["track"].tolist() == [-1, -1, *[0] * 7, *[1] * 7, -1, -1, *[1] * 7, *[-1] * 6, *[0] * 7, -1, -1, *[1] * 7]
    classes = [-1, -1, *[0] * 7, *[DRUM_CLASS] * 7, -1, -1, *[4] * 7, *[-1] * 6, *[7] * 7, -1, -1, *[4] * 7]
    assert groups["pitch_class"].tolist() == classes


def test_without_programs_and_tracks_there_is_no_track() -> None:
    ids = RemiTokenizer().encode_score(SCORE)
    assert RemiTokenizer().groups(ids, torch.tensor([len(ids)])).keys() == {"bar", "pitch_class"}
    nothing = RemiTokenizer().groups(torch.zeros(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    assert all(len(x) == 0 for x in nothing.values())


@pytest.mark.parametrize(
    "ids",
    [
        [0, 1, 55],  # cut
        [0, 1, 110, 55],  # in another order
        [0, 1, 1, 55],
        [0, 1, 55, 168],  # hidden
        [0, 167, 55, 110],
        [55, 110],
        [],
    ],
)
def test_what_is_no_whole_note_is_left_out(ids: list[int]) -> None:
    tokenizer, said = RemiTokenizer(), torch.tensor(ids, dtype=torch.int64)
    assert len(tokenizer.decode_score(said)) == 0 and (tokenizer.note_of(said) == -1).all()
    whole = torch.cat([said, torch.tensor([0, 1, 55, 110])])
    assert tokenizer.decode_score(whole).notes[:, 1].tolist() == [60]


def test_a_bar_without_a_time_signature_is_like_the_one_before_and_the_first_of_four_quarters() -> None:
    tokenizer = RemiTokenizer(metre="told")
    told = tokenizer.offsets[max(tokenizer.offsets)] + 2 * 4 + 3 - 3
    note = [1, 55, 110]
    assert tokenizer.decode_score(torch.tensor([0, *note, 0, told, *note, 0, *note])).metres.tolist() == [[0, 4, 4], [1920, 3, 4]]


def test_guesses_lie_in_the_true_bars() -> None:
    tokenizer = RemiTokenizer()
    ids = tokenizer.encode_score(score_of(NOTES))
    predicted = ids.clone()
    predicted[[0, 4, 9, 12]] = torch.tensor([168, 2, 60, 55])  # a bar that is none; a position, a pitch; a pitch in place of a position
    notes, guesses, valid = tokenizer.guesses(ids, predicted)
    assert torch.equal(notes, tokenizer.decode_score(ids).notes)
    assert valid.tolist() == [True, True, True, False]
    assert guesses[:3, :3].tolist() == [[0, 22, 60], [120, 107, 3840], [1920, 65, 480]]


def test_bars_of_a_batch_are_hidden_whole() -> None:
    transform = MidiTransform(RemiTokenizer(), min_notes=1)
    embed = partial(CompoundEmbed, vocab_sizes=[169], field_dim=256)
    modality = Modality(16, transform=transform, embed=embed, masking=GroupMasking("bar", 0.3))
    items = [Item(transform.tokenizer.encode_score(score_of(notes)), ragged=True) for notes in (NOTES, NOTES[1:])]
    view = modality.masked_view(collate([Sample(str(i), {"notes": item}, seed=i) for i, item in enumerate(items)]).items["notes"])
    bars = transform.tokenizer.groups(view.targets, torch.tensor([15, 12]))["bar"]
    for own in (slice(0, 15), slice(15, None)):
        hidden = {bar: set(view.masked[own][bars[own] == bar].tolist()) for bar in set(bars[own].tolist())}
        assert all(len(flags) == 1 for flags in hidden.values()) and {True} in hidden.values()


def test_settings_are_saved(tmp_path) -> None:
    tokenizer = RemiTokenizer(**EVERYTHING)
    tokenizer.save_pretrained(tmp_path)
    assert torch.equal(RemiTokenizer.from_pretrained(tmp_path).encode_score(SCORE), tokenizer.encode_score(SCORE))


def test_no_notes_give_no_ids() -> None:
    assert RemiTokenizer().encode_score(Score(torch.zeros(0, 6, dtype=torch.int64))).shape == (0,)
