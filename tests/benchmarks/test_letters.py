"""Spoken letters: which recordings are which letter, what of a recording is the word, what is learned from, and warped distances."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.letters.baselines import warped_distances
from benchmarks.letters.data import LEARNED, TOLD, Letter, letters
from benchmarks.letters.sounds import GAP, LEVEL, MARGIN, SHORTEST, VOICED, spoken
from benchmarks.letters.tasks import TASKS, labels, split

ALPHABET = """<klettres><language code="xx"><alphabet>
<sound name="A" file="{0}/alpha/a-0.ogg"/><sound name="Ñ" file="{0}/alpha/n.ogg"/><sound name="b" file="{0}/alpha/a-1.ogg"/>
<sound name="C" file="{0}/alpha/missing.ogg"/></alphabet>
<syllables><sound name="D" file="{0}/alpha/a-0.ogg"/></syllables></language></klettres>"""


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """An English and a Czech alphabet, and prompts of two languages."""
    share = tmp_path / "usr/share"
    for voice in ("en_GB", "cs"):
        (share / "klettres" / voice / "alpha").mkdir(parents=True)
        (share / "klettres" / voice / "sounds.xml").write_text(ALPHABET.format(voice))
        for name in ("a-0", "a-1", "n"):
            (share / "klettres" / voice / "alpha" / f"{name}.ogg").touch()
    for name in ("en_US_f_X/letters/a", "en_US_f_X/letters/zed", "ru_RU_f_Y/letters/b", "xx_YY_f_Z/letters/a"):
        path = share / "asterisk/sounds" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_letters_are_named_by_the_list_and_count_for_the_language_of_their_names(unpacked: Path) -> None:
    found = [(x.package, x.voice, x.language, x.letter, x.path.stem) for x in letters(unpacked)]
    assert found == [
        (LEARNED, "cs", "cs", "a", "a-0"),
        (LEARNED, "cs", "cs", "b", "a-1"),
        (LEARNED, "en_GB", "en", "a", "a-0"),
        (LEARNED, "en_GB", "en", "b", "a-1"),
        (TOLD, "en_US_f_X", "en", "a", "a"),
        (TOLD, "ru_RU_f_Y", "en", "b", "b"),
    ]


def test_a_task_across_packages_tells_only_voices_that_were_not_learned_from(unpacked: Path) -> None:
    known = letters(unpacked)
    assert [x.tolist() for x in split(TASKS["letter"], known, 0)] == [[2, 3], [4, 5]]
    assert [x.tolist() for x in split(TASKS["letter, all languages"], known, 0)] == [[0, 1, 2, 3], [4, 5]]
    assert labels(TASKS["letter"], known).tolist() == [0, 1, 0, 1, 0, 1]
    assert labels(TASKS["language"], known).tolist() == [-1, -1, 0, 0, 0, 0]


def test_inside_one_package_a_quarter_is_told_and_another_with_another_seed() -> None:
    known = [Letter(Path(str(i)), LEARNED if i < 80 else TOLD, "en", "en", "a") for i in range(100)]
    train, test = split(TASKS["language, one package"], known, 0)
    assert len(test) == 20 and sorted([*train, *test]) == list(range(80))
    assert test.tolist() != split(TASKS["language, one package"], known, 1)[1].tolist()
    assert test.tolist() == split(TASKS["language, one package"], known, 0)[1].tolist()


def heard(*words: tuple[int, int, float], frames: int = 200) -> torch.Tensor:
    """A spectrogram of silence with words: first frame, frame after the last, loudness."""
    x = torch.full((frames, 128), -5.0)
    for first, end, loudness in words:
        x[first:end, VOICED] = loudness
    return x


def test_the_word_is_cut_out_and_made_as_loud_as_all_words() -> None:
    quiet, loud = spoken(heard((80, 120, 5.0))), spoken(heard((80, 120, 11.0)))
    assert 40 + 2 * MARGIN <= len(loud) <= 42 + 2 * MARGIN  # smoothed over three frames
    assert torch.allclose(quiet[len(quiet) // 2, VOICED], loud[len(loud) // 2, VOICED], atol=1e-4)
    assert float(loud[len(loud) // 2, VOICED].logsumexp(0)) == pytest.approx(LEVEL, abs=1e-3)


def test_a_click_far_from_the_word_is_left_out_and_a_short_pause_is_not() -> None:
    assert len(spoken(heard((10, 13, 9.0), (100, 140, 10.0)))) < 60
    assert len(spoken(heard((60, 80, 9.0), (80 + GAP - 5, 140, 10.0)))) > 80


@pytest.mark.parametrize("first", [0, 90, 197])
def test_what_is_very_short_keeps_the_frames_of_a_patch(first: int) -> None:
    assert len(spoken(heard((first, first + 3, 10.0)))) >= SHORTEST


def plainly_warped(a: np.ndarray, b: np.ndarray) -> float:
    """The distance by the definition, step by step."""
    total = np.full((len(a) + 1, len(b) + 1), np.inf)
    total[0, 0] = 0
    for i in range(len(a)):
        for j in range(len(b)):
            total[i + 1, j + 1] = np.linalg.norm(a[i] - b[j]) + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return total[-1, -1] / (len(a) + len(b))


def test_warped_distances_are_those_of_the_definition_and_do_not_mind_speed() -> None:
    random = np.random.default_rng(0)
    query, others = random.normal(size=(7, 3)), [random.normal(size=(length, 3)) for length in (1, 4, 7, 12)]
    assert np.allclose(warped_distances(query, others), [plainly_warped(query, other) for other in others])
    assert np.allclose(warped_distances(query, [query.repeat(2, axis=0)]), 0, atol=1e-6)
