"""Films of every kind through the whole path: files, shards, clips, hidden cubes, a step. What is bad is named and left out."""

import io
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from multimodal.datamodules.commands import main
from multimodal.masking import Drop, TubeMasking
from multimodal.modality import Modality
from multimodal.nn import Decoder, Encoder, SinCosPosition3d
from multimodal.objectives import TokenValues
from multimodal.tokenizers.video import CornerCrop, TubeletEmbed, VideoTransform, decode_clip
from tests.tokenizers.hostile import Watched, named, stop_at_the_first, stop_at_too_many, train_on_all, write
from tests.tokenizers.zoo import FILMS, film

RAMP = np.linspace(40, 200, 48).astype(np.uint8)
"""From the left to the right of a picture."""
MADE = (4, 3, 16, 16)


def recorded(kind: str, codec: str, pixels: str, size: tuple[int, int] = (48, 32), rate: int = 10, frames: int = 20) -> bytes:
    """Pictures that are ``RAMP`` from left to right and brighten by 1 from each to the next, in a format of pixels."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, options={"qp": "0"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        row = np.interp(np.linspace(0, 1, size[0]), np.linspace(0, 1, 48), RAMP).round().astype(np.uint8)
        for number in range(frames):
            picture = np.broadcast_to((row + number)[None, :, None], (size[1], size[0], 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format=pixels)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


KINDS = {
    "grey": ("mkv", lambda: recorded("matroska", "ffv1", "gray"), MADE),
    "alpha": ("mkv", lambda: recorded("matroska", "ffv1", "yuva420p"), MADE),
    "ten-bit": ("mp4", lambda: recorded("mp4", "libx264", "yuv420p10le"), MADE),
    "full-colour": ("mp4", lambda: recorded("mp4", "libx264", "yuv444p"), MADE),
    "cinepak": ("avi", lambda: recorded("avi", "cinepak", "rgb24"), MADE),
    "png-in-mov": ("mov", lambda: recorded("mov", "png", "rgba"), MADE),
    "odd-sides": ("mkv", lambda: recorded("matroska", "ffv1", "yuv444p", (47, 33)), MADE),
    "one-a-second": ("mp4", lambda: film(rate=1, frames=5), MADE),
    "120-a-second": ("mp4", lambda: film(rate=120, frames=150), MADE),
    "too-short": ("mp4", lambda: film(rate=120, frames=2), "min_seconds 0.03 are wanted"),
}
EMPTY = "empty-mp4"  # has no place in a shard
ANIMALS = named(FILMS) | named(KINDS)
IN_SHARDS = {name: animal for name, animal in ANIMALS.items() if name != EMPTY}


def make_model() -> Watched:
    """A VideoMAE of one layer: three of four places hidden at all times."""
    torch.manual_seed(0)
    modality = partial(
        Modality,
        transform=VideoTransform(16, 4, seconds=1.0, min_seconds=0.03, crop=CornerCrop()),
        embed=partial(TubeletEmbed, patch_size=8, position=SinCosPosition3d),
        target=TokenValues(channels=3, eps_to="deviation"),
        masking=TubeMasking(0.75),
        corruption=Drop(),
        decoder=partial(Decoder, width=12, depth=1, num_heads=2, position=SinCosPosition3d),
    )
    return Watched(Encoder(dim=12, depth=1, num_heads=2), {"film": modality})


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("zoo"), ANIMALS)


def test_the_whole_zoo_is_trained_on_or_left_out_by_name(shards, tmp_path):
    assert main(["verify", str(shards)]) == 0  # shards are whole, whatever the films in them
    model = make_model()
    bad = train_on_all(model, shards, tmp_path, IN_SHARDS)
    assert len(model.seen) >= 18 and len(bad) >= 8
    assert KINDS["too-short"][2] in bad["too-short"]


@pytest.mark.parametrize("name", ["too-short", "cut-mkv", "sound-only", "random-avi"])
def test_a_strict_run_stops_at_the_first_one_with_its_name(tmp_path, name):
    shards = write(tmp_path, {own: ANIMALS[own] for own in ("mp4", name, "mkv")})
    stop_at_the_first(make_model(), shards, tmp_path, name, ANIMALS[name])


def test_too_many_bad_ones_stop_a_run_that_skips(shards, tmp_path):
    stop_at_too_many(make_model, shards, tmp_path)


@pytest.mark.parametrize("name", [name for name in KINDS if "second" not in name and name != "too-short"])
def test_pixels_are_the_same_whatever_their_format(name):
    """Grey, with alpha, of ten bits, of odd sides: brightness from left to right, and by time, is kept within a few levels."""
    clip = decode_clip(KINDS[name][1](), 0.05, 4, 2.0).float()  # pictures 0, 5, 10 and 15
    row = np.interp(np.linspace(0, 1, clip.shape[3]), np.linspace(0, 1, 48), RAMP)
    expected = torch.from_numpy(row)[None] + torch.tensor([0, 5, 10, 15])[:, None]
    assert (clip.mean((1, 2)) - expected).abs().max() <= (12 if name == "cinepak" else 3)


def test_few_pictures_a_second_are_shown_often_and_many_seldom():
    slow, fast = (decode_clip(KINDS[name][1](), 0.0, 4, 4.0) for name in ("one-a-second", "120-a-second"))
    assert all(torch.equal(picture, slow[0]) for picture in slow)
    assert not any(torch.equal(before, after) for before, after in zip(fast[:-1], fast[1:], strict=True))
