"""The stand-in for MidiBERT's code, on real tunes and chorales; and what the benchmark says of them."""

import random

import numpy as np
import pytest

from benchmarks.demo.tunes import read_chorales, read_tunes
from benchmarks.midi_tokens import Item, agreement, chosen, of_checkout, ours, over, published_words
from multimodal.tokenizers.midi import CompoundTokenizer, read_notes, score_of, write_notes


def items(notes) -> list[Item]:
    return [Item(start, start + duration, pitch) for start, pitch, duration, _ in notes.tolist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("tunes")
    for piece in (*read_tunes(12), *read_chorales(2)):
        (target / f"{piece.name}.mid").write_bytes(write_notes(piece.notes))
    (target / "damaged.mid").write_bytes(b"MThd")
    (target / "too low.mid").write_bytes(write_notes(piece.notes - piece.notes.new_tensor([0, 30, 0, 0])))
    return target


def stand_in(path) -> np.ndarray:
    return published_words(items(read_notes(path.read_bytes())))


def test_ids_are_those_of_the_published_algorithm_but_at_the_end_of_its_grid(folder):
    files = chosen(folder, 100, 24)
    assert len(files) == 14
    said = agreement(files, stand_in)
    assert said.endswith("all ids of 14 of 14 files are the same")
    same, of, total = said.split()[:3]
    moved = int(said.split("; ")[1].split()[0])
    assert of == "of" and int(total) - int(same) == moved > 0


def test_a_difference_would_be_seen(folder):
    def wrong(path) -> np.ndarray:
        return stand_in(path) + np.array([0, 0, 1, 0])

    assert agreement(chosen(folder, 3, 24), wrong).endswith("0 of 3 files are the same")


def test_the_first_ids_by_hand():
    words = published_words([Item(0, 480, 60), Item(130, 190, 62), Item(3840, 4000, 64), Item(4000, 4100, 65)])
    assert words.tolist() == [[0, 0, 38, 7], [1, 1, 40, 0], [0, 0, 42, 2], [1, 1, 43, 1]]


def test_every_way_of_ours_goes_from_a_path_to_ids(folder):
    files = chosen(folder, 5, 24)
    for name, call in ours().items():
        assert over(files, call)() == 5, name
    path = files[0]
    expected = CompoundTokenizer().encode_score(score_of(read_notes(path.read_bytes())))
    assert np.array_equal(ours()["compound words"](path), expected.numpy())


def test_the_files_are_chosen_alike_each_time_and_have_enough_notes(folder):
    assert chosen(folder, 5, 24) == chosen(folder, 5, 24) != sorted(chosen(folder, 5, 24))
    random.seed(3)
    assert chosen(folder, 5, 24) == chosen(folder, 5, 24)
    long = [path for path in chosen(folder, 100, 24) if len(ours()["compound words"](path)) >= 150]
    assert sorted(chosen(folder, 100, 150)) == sorted(long) and long
    with pytest.raises(ValueError, match="no MIDI file of at least 100000 notes"):
        chosen(folder, 5, 100_000)


def test_a_checkout_is_imported_from_its_folder(tmp_path):
    """A package laid out as theirs, whose model gives two notes."""
    package = tmp_path / "data_creation" / "prepare_data"
    package.mkdir(parents=True)
    for own in (package.parent, package):
        (own / "__init__.py").touch()
    (package / "model.py").write_text(
        "from types import SimpleNamespace as E\n"
        "class CP:\n"
        "    event2word = {'Bar': {'Bar New': 0, 'Bar Continue': 1}}\n"
        "    def __init__(self, path): assert path.endswith('dict/CP.pkl')\n"
        "    def extract_events(self, path, task): return [[E(name='Bar', value=value)] for value in ('New', 'Continue')]\n"
    )
    assert of_checkout(tmp_path)(tmp_path / "x.mid").tolist() == [[0], [1]]
