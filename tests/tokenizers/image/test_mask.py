"""Masks: the value of a pixel is its class, in every kind of PNG, and nothing else is taken."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal.tokenizers.image import MaskReader


def encode(values: np.ndarray | Image.Image, kind: str = "png", palette: bool = False, **options) -> bytes:
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A grey PNG with less than 8 bits per pixel, which Pillow does not write."""
    height, width = values.shape
    shifted = [np.unpackbits(row[:, None], axis=1)[:, -bits:].reshape(-1) for row in values.astype(np.uint8)]
    raw = b"".join(b"\0" + np.packbits(row).tobytes() for row in shifted)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def values(most: int, dtype=np.uint8, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, most, (height, width)).astype(dtype)


@pytest.mark.parametrize("palette", [False, True])
def test_8_bits_are_classes_whatever_their_colour(palette):
    own = values(256)
    expected = torch.from_numpy(own.astype(np.int16))
    expected[expected == 255] = -1
    assert (expected == -1).any() or own.max() < 255
    found = MaskReader()(encode(own, palette=palette))
    assert found.dtype == torch.int16 and torch.equal(found, expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_few_bits_are_classes_too(bits):
    own = values(2**bits if bits < 8 else 255)
    assert torch.equal(MaskReader()(grey_png(own, bits)), torch.from_numpy(own.astype(np.int16)))


def test_16_bits_hold_many_classes():
    own = values(32768, np.uint16)
    assert torch.equal(MaskReader(ignore=None)(encode(own)), torch.from_numpy(own.astype(np.int16)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 9))
def test_zero_and_255_can_both_be_ignored(seed, height, width):
    own = np.random.default_rng(seed).choice(np.array([0, 1, 2, 150, 255], dtype=np.uint8), (height, width))
    found = MaskReader(zero_is_ignored=True)(encode(own)).numpy()
    assert np.array_equal(found, np.array([{0: -1, 1: 0, 2: 1, 150: 149, 255: -1}[v] for v in own.flat]).reshape(own.shape))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode(Image.new("RGB", (3, 2))), "grey or with a palette; this one has mode RGB"),
        (encode(Image.new("L", (3, 2)), "jpeg"), "must be a PNG file"),
        (b"", "must be a PNG file"),
        (encode(values(9))[:40], "damaged mask|must be a PNG file"),
        (encode(values(9, height=200, width=300))[:-60], "damaged mask"),
        (encode(np.full((2, 2), 40000, np.uint16)), "has class 40000; classes must be below 32768"),
    ],
)
def test_other_files_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        MaskReader()(data)


def test_a_large_mask_is_refused_before_it_is_decoded():
    with pytest.raises(ValueError, match="30 x 20 pixels is over max_pixels 500"):
        MaskReader(max_pixels=500)(encode(Image.new("L", (30, 20))))


@pytest.mark.parametrize(
    ("setting", "message"), [({"fields": []}, "fields"), ({"fields": "mask.png"}, "fields"), ({"ignore": 70000}, "ignore")]
)
def test_settings_are_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        MaskReader(**setting)
