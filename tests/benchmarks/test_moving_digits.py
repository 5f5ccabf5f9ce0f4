"""Films of moving digits: the digit goes where it is said to, over clutter that stays, and files hold just these pictures."""

import numpy as np
import pytest
import torch

from benchmarks.moving_digits.baselines import moves
from benchmarks.moving_digits.films import DIRECTIONS, STEPS, Look, Move, digit_images, make_frames, path_of, write_film
from multimodal.tokenizers.video import decode_clip

PLAIN = Look(pieces=0)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    return digit_images("test")


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def centre(frame: np.ndarray) -> np.ndarray:
    return np.stack(np.nonzero(frame)).mean(1)


def test_splits_hold_other_images(digits):
    train, test = digit_images("train"), digits
    assert [len(images) for images, _ in (train, test)] == [4000, 1000]
    assert np.bincount(train[1]).tolist() == [400] * 10 and np.bincount(test[1]).tolist() == [100] * 10
    assert not {image.tobytes() for image in train[0]} & {image.tobytes() for image in test[0]}
    with pytest.raises(ValueError, match="split must be train or test, got 'val'"):
        digit_images("val")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_digit_goes_its_way(digits, direction):
    frames = make_frames(digits[0][150], [Move(direction, 8)], digits[0], random(), PLAIN)
    assert frames.shape == (8, 32, 32) and frames.dtype == np.uint8
    way = centre(frames[-1]) - centre(frames[0])
    assert np.abs(way - 10.5 * np.array(STEPS[DIRECTIONS.index(direction)])).max() <= 0.5
    assert len({frame.sum() for frame in frames}) == 1  # it never leaves the picture


def test_moves_follow_one_another(digits):
    script = [Move("right", 4), Move("down", 5), Move("up left", 3)]
    path = path_of(script, 1.0)
    assert path.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], *([down, 3] for down in (1, 2, 3, 4, 5)), [4, 2], [3, 1], [2, 0]]
    frames = make_frames(digits[0][0], script, digits[0], random(), Look(pieces=0, speed=1.0))
    ways = [centre(frame) - centre(frames[0]) for frame in frames]
    np.testing.assert_allclose(ways, path, atol=1e-9)


def test_a_long_way_comes_back_at_the_other_side(digits):
    frames = make_frames(digits[0][0], [Move("right", 65)], digits[0], random(), Look(pieces=0, speed=1.0))
    assert (frames[64] == frames[0]).all() and (frames[32] == frames[0]).all() and not (frames[16] == frames[0]).all()
    assert len({frame.sum() for frame in frames}) == 1


def test_clutter_stays(digits):
    frames = make_frames(digits[0][0], [Move("right", 8)], digits[0], random(), Look(pieces=20))
    alone = make_frames(np.zeros((28, 28), np.uint8), [Move("right", 8)], digits[0], random(), Look(pieces=20))
    assert (alone == alone[0]).all() and alone.any() and (frames >= alone).all()


def test_films_are_a_function_of_the_seed(digits):
    made = [make_frames(digits[0][3], [Move("up", 8)], digits[0], random(seed)) for seed in (1, 1, 2)]
    assert (made[0] == made[1]).all() and not (made[0] == made[2]).all()


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_files_hold_the_very_pictures(digits, tmp_path, ending):
    frames = make_frames(digits[0][3], [Move("up", 8)], digits[0], random())
    path = tmp_path / f"film.{ending}"
    write_film(frames, path, frames_per_second=8)
    clip = decode_clip(path.read_bytes(), 0.0, 8, 8.0)
    assert torch.equal(clip, torch.from_numpy(frames)[:, None].expand(-1, 3, -1, -1))


def test_coloured_pictures_are_kept(tmp_path):
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8), 4, 1).repeat(4, 2)
    write_film(frames, tmp_path / "film.mp4")
    clip = decode_clip((tmp_path / "film.mp4").read_bytes(), 0.0, 4, 8.0).permute(0, 2, 3, 1).numpy()
    assert (clip == frames).all()


def test_the_direction_is_seen_in_what_changes(digits):
    clips = np.stack([make_frames(digits[0][i], [Move(DIRECTIONS[i % 8], 8)], digits[0], random(i)) for i in range(0, 160)])
    assert (moves(clips) == np.arange(160) % 8).mean() > 0.98


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        ([], "at least one picture each"),
        ([Move("right", 0)], "at least one picture each"),
        ([Move("north", 3)], "unknown direction 'north'"),
    ],
)
def test_impossible_scripts_are_refused(digits, moves, message):
    with pytest.raises(ValueError, match=message):
        make_frames(digits[0][0], moves, digits[0], random())


def test_pictures_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got float64 of shape \(2, 8, 8\)"):
        write_film(np.zeros((2, 8, 8)), tmp_path / "film.mp4")
