"""Pixels of files beside Pillow's, wide values, limits, large photographs; and how near the views are to BEiT's pipeline."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from multimodal.tokenizers.image import ImageTransform, decode_image


def encode(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with grain, as a photograph has."""
    generator = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.rand(1, 3, 9, 12, generator=generator), size=(height, width), mode="bicubic")[0]
    grained = coarse + 0.03 * torch.randn(3, height, width, generator=generator)
    return Image.fromarray((grained.clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy())


def by_pillow(data: bytes, mode: str) -> torch.Tensor:
    image = Image.open(io.BytesIO(data)).convert(mode)
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)


def difference(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one.int() - other.int()).abs().float()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30}, {"grey": True}], ids=str)
def test_jpegs_decode_like_pillows(options, channels):
    image = photo(61, 47).convert("L") if options.pop("grey", False) else photo(61, 47)
    data = encode(image, "jpeg", **options)
    assert difference(decode_image(data, channels), by_pillow(data, "L" if channels == 1 else "RGB")).max() <= 1


def wide(values: np.ndarray) -> bytes:
    return encode(Image.fromarray(values), "tiff")


RAMP = np.arange(256, dtype=np.float64).reshape(16, 16)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((RAMP * 257).astype(np.uint16), RAMP),
        ((RAMP / 255).astype(np.float32), RAMP),
        (RAMP.astype(np.float32), RAMP),
        ((RAMP * 257).astype(np.float32), RAMP),
        (RAMP.astype(np.int32), RAMP),
        ((RAMP * 257).astype(np.int32), RAMP),
        ((RAMP * 2**23).astype(np.int32), RAMP // 2),
    ],
    ids=["16-bit", "float to 1", "float to 255", "float to 65535", "int to 255", "int to 65535", "int to 2^31"],
)
def test_wide_values_become_8_bit(values, expected):
    assert np.array_equal(decode_image(wide(values), 1)[0].numpy(), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e6])
def test_values_that_are_no_brightness_are_refused(value):
    values = RAMP.astype(np.float32)
    values[3, 3] = value
    with pytest.raises(ValueError, match=r"must be finite and in \[0, 65535\]"):
        decode_image(wide(values))


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff"])
def test_of_an_animation_the_first_picture_is_read(kind):
    first, second = Image.new("RGB", (12, 8), (0, 0, 200)), Image.new("RGB", (12, 8), (200, 0, 0))
    options = {"lossless": True} if kind == "webp" else {}
    decoded = decode_image(encode(first, kind, save_all=True, append_images=[second], **options))
    assert torch.equal(decoded, torch.tensor([0, 0, 200], dtype=torch.uint8)[:, None, None].expand(3, 8, 12))


def test_limits_are_read_from_the_header():
    data = encode(Image.new("L", (300, 4)))
    for limit, message in (
        ({"max_pixels": 1199}, "300 x 4 pixels are over max_pixels 1199"),
        ({"max_side": 299}, "300 x 4 pixels are over max_side 299"),
        ({"max_bytes": len(data) - 1}, f"{len(data)} bytes is over max_bytes {len(data) - 1}"),
    ):
        with pytest.raises(ValueError, match=message):
            decode_image(data, **limit)
    assert decode_image(data, 1, max_pixels=1200, max_side=300, max_bytes=len(data)).shape == (1, 4, 300)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "gif", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_cut_in_half_is_refused(kind, channels):
    data = encode(photo(64, 48), kind)
    with pytest.raises(ValueError, match="image"):
        decode_image(data[: len(data) // 2], channels)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo(48, 32), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert expected.size == ((32, 48) if orientation > 4 else (48, 32))
    assert difference(decode_image(data), torch.from_numpy(np.array(expected)).permute(2, 0, 1)).max() <= 1


def test_large_jpegs_are_read_smaller_and_look_the_same():
    data = encode(photo(700, 420), "jpeg", quality=90)
    full = decode_image(data)
    for enough, shape in ((None, (420, 700)), (211, (420, 700)), (210, (210, 350)), (100, (105, 175)), (52, (53, 88))):
        assert decode_image(data, enough=enough).shape == (3, *shape)
    half = decode_image(data, enough=210)
    assert difference(half, F.avg_pool2d(full.float(), 2).round()).mean() < 0.6


def test_the_smallest_crop_of_a_reduced_jpeg_fills_the_view():
    transform = ImageTransform(size=32, tokenizer_size=40, scale=(0.25, 1.0), jitter=0.0)
    assert transform.enough == 93  # 40 * sqrt(4 / 3 / 0.25)
    decoded = transform.decode(encode(photo(400, 372), "jpeg"))
    assert decoded.shape == (3, 93, 100)
    boxes = [transform._crop(93, 100, torch.Generator().manual_seed(seed)) for seed in range(300)]
    assert min(min(box.right - box.left, box.bottom - box.top) for box in boxes) >= 40


@pytest.mark.parametrize("side", [64, 96, 224, 300])
def test_the_encoders_view_is_pillows_bicubic_of_the_crop(side):
    image = photo(256, 200)
    data = encode(image, "jpeg", quality=90)
    values = ImageTransform(size=side)(decode_image(data), torch.Generator(), train=False).values
    crop = Image.open(io.BytesIO(data)).crop((28, 0, 228, 200))
    expected = torch.from_numpy(np.array(crop.resize((side, side), Image.Resampling.BICUBIC))).permute(2, 0, 1)
    assert difference(values, expected).max() <= 2
    assert difference(values, expected).mean() <= 0.02


def test_the_tokenizers_view_is_pillows_lanczos_of_the_crop():
    image = photo(120, 100)
    values = ImageTransform(size=32, tokenizer_size=48)(decode_image(encode(image)), torch.Generator(), train=False).tokenizer_values
    expected = image.crop((10, 0, 110, 100)).resize((48, 48), Image.Resampling.LANCZOS)
    assert torch.equal(values, torch.from_numpy(np.array(expected)).permute(2, 0, 1))


@pytest.mark.parametrize("seed", range(6))
def test_jitter_is_that_of_pillow_up_to_clipping(seed):
    """BEiT jitters, then crops and resizes; here the colours of the resized crop are jittered."""
    image = photo(120, 120, seed)
    transform = ImageTransform(size=48, flip=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    draws = torch.rand(4, generator=torch.Generator().manual_seed(seed)).tolist()
    brightness, contrast, saturation = (1 + 0.4 * (2 * draw - 1) for draw in draws[:3])
    expected = TF.adjust_saturation(TF.adjust_contrast(TF.adjust_brightness(image, brightness), contrast), saturation)
    expected = torch.from_numpy(np.array(expected.resize((48, 48), Image.Resampling.BICUBIC))).permute(2, 0, 1)
    values = transform(decode_image(encode(image)), torch.Generator().manual_seed(seed), train=True).values
    assert difference(values, expected).mean() < 2
