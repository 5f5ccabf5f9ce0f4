"""Image files: every kind of pixel decodes, damage is refused, both views show the same crop."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from einops import reduce
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from multimodal.tokenizers.image import DalleTokenizer, ImageTransform, PatchEmbed

PLAIN = {"flip": 0.0, "jitter": 0.0}


def encode(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def position_image(width: int, height: int) -> Image.Image:
    """Red grows from left to right, green from top to bottom; blue is constant."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 90)], -1).round().astype(np.uint8))


def noise_image(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)


def pixels(transform: ImageTransform, data: bytes) -> np.ndarray:
    """The decoded file as rows of grey values or colours."""
    decoded = transform.decode(data)
    assert decoded.dtype == torch.uint8
    return decoded[0].numpy() if len(decoded) == 1 else decoded.permute(1, 2, 0).numpy()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(20, 120), st.integers(20, 120), st.booleans(), st.sampled_from([0.0, 0.4]))
def test_both_views_show_the_same_crop(seed, width, height, train, jitter):
    image = tensor(position_image(width, height))
    item = ImageTransform(size=16, tokenizer_size=32, jitter=jitter)(image, draw(seed), train)
    assert item.values.shape == (3, 16, 16) and item.tokenizer_values.shape == (3, 32, 32)
    reduced = F.avg_pool2d(item.tokenizer_values.float(), 2)
    assert (reduced - item.values.float()).abs().max() <= 4


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_patch_and_its_id_are_of_one_place_at_the_published_sizes(flip, seed):
    """BEiT: patches of 16 in 224 pixels, and ids of stride 8 in 112, lie on one grid of 14 x 14."""
    transform = ImageTransform(size=224, tokenizer_size=112, scale=(0.3, 1.0), flip=flip, jitter=0.0)
    item = transform(tensor(position_image(500, 400)), draw(seed), train=True)
    patches = PatchEmbed(8, patch_size=16).tokens(item.values[None])
    ids = DalleTokenizer(num_tokens=5, width=4, blocks_per_group=1, decoder=False).encode(item.tokenizer_values[None])
    assert patches.grid == (14, 14) and len(ids) == len(patches.inputs) == 196
    seen = reduce(patches.inputs.float(), "(h w) (c p) -> c h w", "mean", h=14, c=3)
    told = reduce(item.tokenizer_values.float(), "c (h p) (w q) -> c h w", "mean", p=8, q=8)
    assert (seen - told).abs().max() < 1
    right, down = told[0].diff(dim=1), told[1].diff(dim=0)
    assert (right.abs() > 4).all() and (down > 4).all()  # so that a neighbour's mean would not do
    assert (right < 0).all() if flip else (right > 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(30, 90), st.integers(30, 90))
def test_crops_keep_to_the_area_and_ratio_asked_for(seed, width, height):
    scale, ratio = (0.3, 0.6), (0.8, 1.25)
    left, top, right, bottom = ImageTransform(scale=scale, ratio=ratio)._crop(height, width, draw(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    rounding = 2 / min(right - left, bottom - top)
    assert scale[0] * (1 - rounding) <= (right - left) * (bottom - top) / (width * height) <= scale[1] * (1 + rounding)
    assert ratio[0] * (1 - rounding) <= (right - left) / (bottom - top) <= ratio[1] * (1 + rounding)


def test_crops_reach_every_edge():
    boxes = torch.tensor([ImageTransform(scale=(0.2, 0.5))._crop(20, 20, draw(seed)) for seed in range(300)])
    assert boxes.amin(0)[:2].tolist() == [0, 0] and boxes.amax(0)[2:].tolist() == [20, 20]


def test_evaluation_is_the_central_square():
    image = noise_image(50, 30)
    values = ImageTransform(size=30)(tensor(image), draw(0), train=False).values
    assert torch.equal(values, torch.from_numpy(np.asarray(image)[:, 10:40].copy()).permute(2, 0, 1))


def test_draws_follow_the_generator_alone():
    transform, image = ImageTransform(size=16), tensor(noise_image())
    torch.manual_seed(0)
    first = transform(image, draw(5), train=True).values
    torch.manual_seed(1)
    assert torch.equal(first, transform(image, draw(5), train=True).values)
    assert not torch.equal(first, transform(image, draw(6), train=True).values)


@pytest.mark.parametrize("flip", [0.0, 0.25, 1.0])
def test_flips_come_with_their_probability(flip):
    transform = ImageTransform(size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=flip, jitter=0.0)
    image = tensor(position_image(16, 16))
    flipped = [bool((values := transform(image, draw(seed), True).values)[0, 0, 0] > values[0, 0, -1]) for seed in range(400)]
    assert np.mean(flipped) == pytest.approx(flip, abs=0.07 if 0 < flip < 1 else 0)


def test_jitter_scales_brightness_within_its_range():
    flat = torch.full((1, 8, 8), 100, dtype=torch.uint8)
    transform = ImageTransform(size=8, channels=1, flip=0.0, jitter=0.4)
    means = torch.stack([transform(flat, draw(seed), True).values.float().mean() for seed in range(200)])
    assert means.min() >= 59 and means.max() <= 141
    assert means.min() < 66 and means.max() > 134


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_values_survive_every_mode(channels):
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    wide = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257)
    transform = ImageTransform(channels=channels)
    expected = np.asarray(ramp) if channels == 1 else np.stack([np.asarray(ramp)] * 3, -1)
    files = {
        "grey": encode(ramp),
        "colour": encode(ramp.convert("RGB")),
        "palette": encode(ramp.convert("P")),
        "with opacity": encode(ramp.convert("LA")),
        "16-bit": encode(wide),
        "bmp": encode(ramp, "bmp"),
        "lossless webp": encode(ramp.convert("RGB"), "webp", lossless=True),
    }
    for name, data in files.items():
        assert np.array_equal(pixels(transform, data), expected), name


def test_palette_and_colour_files_decode_exactly():
    image = noise_image(12, 9)
    assert np.array_equal(pixels(ImageTransform(), encode(image)), np.asarray(image))
    paletted = image.quantize(16)
    assert np.array_equal(pixels(ImageTransform(), encode(paletted)), np.asarray(paletted.convert("RGB")))


def test_black_and_white_and_cmyk():
    bits = Image.fromarray(np.eye(8, dtype=bool))
    assert np.array_equal(pixels(ImageTransform(channels=1), encode(bits)), np.eye(8) * 255)
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(pixels(ImageTransform(), encode(red, "jpeg")).astype(int) - [255, 0, 0]).max() <= 3


def test_photos_with_several_pictures_give_the_first():
    first, second = Image.new("RGB", (8, 8), (0, 0, 200)), Image.new("RGB", (8, 8), (200, 0, 0))
    data = encode(first, "mpo", save_all=True, append_images=[second])  # as phones write .jpg
    assert np.abs(pixels(ImageTransform(), data).astype(int) - [0, 0, 200]).max() <= 3


@pytest.mark.parametrize(("orientation", "bright_edge"), [(1, "left"), (2, "right"), (3, "right"), (6, "top"), (8, "bottom")])
def test_exif_orientation_is_applied(orientation, bright_edge):
    image = Image.new("L", (32, 16))
    image.paste(255, (0, 0, 8, 16))  # as stored, bright on the left
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = pixels(ImageTransform(channels=1), encode(image, "jpeg", quality=95, exif=exif)).astype(float)
    assert upright.shape == ((32, 16) if orientation > 4 else (16, 32))
    edges = {"left": upright[:, :4], "right": upright[:, -4:], "top": upright[:4], "bottom": upright[-4:]}
    assert max(edges, key=lambda name: edges[name].mean()) == bright_edge


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1)])
def test_extreme_sizes_give_a_picture(size, train):
    item = ImageTransform(size=8, tokenizer_size=4, **PLAIN)(tensor(Image.new("RGB", size, (10, 20, 30))), draw(0), train)
    assert torch.equal(item.values, torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None].expand(3, 8, 8))
    assert item.tokenizer_values.shape == (3, 4, 4)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 10)), (b"IEND", b"")]
    body = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"not an image \(0 bytes"),
        (b"just some text, no picture at all", "not an image"),
        (encode(noise_image())[:200], "damaged image"),
        (encode(noise_image(), "jpeg")[:400], "damaged image"),
        (encode(noise_image(), "webp")[:300], "image"),
        (png_header(30_000, 30_000), "30000|900000000"),
        (png_header(9_000, 9_000), "9000 x 9000 pixels are over max_pixels 50000000"),
        (png_header(64, 64), "damaged image"),
        (encode(noise_image(), "eps"), "not an image"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "cut webp", "bomb", "large", "no pixels", "postscript"],
)
def test_bad_files_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        ImageTransform().decode(data)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["png", "jpeg", "webp", "bmp", "gif", "tiff"]), st.data())
def test_any_damage_decodes_or_is_a_value_error(kind, data):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray(encode(noise_image(16, 12), kind, **({"exif": exif} if kind not in ("bmp", "gif") else {})))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))]) if data.draw(st.booleans()) else bytes(content)
    try:
        image = ImageTransform(size=4, max_pixels=10_000).decode(content)
    except ValueError:
        return
    assert image.dtype == torch.uint8 and len(image) == 3 and image.numel() > 0


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    with pytest.raises(ValueError, match="image"):
        ImageTransform().decode(data)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.9, 0.2)}, "scale"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"ratio": (0.0, 1.0)}, "ratio"),
        ({"flip": 1.5}, "flip"),
        ({"jitter": -0.1}, "jitter"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ImageTransform(**setting)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white_whatever_lies_below(mode):
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, :4] = (200, 0, 0, 255)  # opaque red; the rest is transparent black
    image = Image.fromarray(pixels).convert(mode) if mode != "P" else Image.fromarray(pixels).quantize(4)
    file = io.BytesIO()
    image.save(file, "PNG")
    decoded = ImageTransform(8).decode(file.getvalue()).permute(1, 2, 0).numpy()
    assert (decoded[:, 4:] == 255).all()
    assert (decoded[:, :4] != 255).any(-1).all()
