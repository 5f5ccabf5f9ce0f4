"""Files of every kind that a decoder meets: plain, rare, damaged and hostile ones, made on the spot. Not a test by itself."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import soundfile
from PIL import Image

RANDOM_BYTES = np.random.default_rng(0).bytes(5000)
PROSE = b"a letter to my love, and no medium at all\n" * 50
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/hostname\n#EXT-X-ENDLIST\n"
CONCATENATION = b"ffconcat version 1.0\nfile hostname\n"


class Animal(NamedTuple):
    """One file.

    Args:
        field: its extension in a shard.
        make: gives its bytes.
        expected: the shape it decodes to, or what the refusal says; None: either.
    """

    field: str
    make: Callable[[], bytes]
    expected: tuple[int, ...] | str | None


def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options) -> bytes:
    width, height = size
    noise = np.random.default_rng(1).integers(0, 256, (min(height, 400), min(width, 400), 4), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size)
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    if options.pop("animated", False):
        options |= {"save_all": True, "append_images": [image.transpose(Image.Transpose.ROTATE_180)] * 2}
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def blank(kind: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, kind)
    return buffer.getvalue()


def wide_picture(kind: str, values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture("jpeg", exif=exif)


def tone(seconds: float = 0.5, rate: int = 44_100, channels: int = 1) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 440 * (1 + channel) * time) for channel in range(channels)], 1).astype(np.float32)


def sound(kind: str, subtype: str, rate: int = 44_100, channels: int = 1, samples: np.ndarray | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(rate=rate, channels=channels) if samples is None else samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def wav_with(offset: int, layout: str, value: int) -> bytes:
    """A WAV file with one number of its header replaced."""
    data = bytearray(sound("WAV", "PCM_16"))
    struct.pack_into(layout, data, offset, value)
    return bytes(data)


def muxed_sound(kind: str = "ipod", codec: str = "aac", rate: int = 48_000) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        samples = tone(rate=rate).T
        for start in range(0, samples.shape[1] - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 1024]), format="fltp", layout="mono")
            frame.rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def film(kind: str = "mp4", codec: str = "libx264", frames: int = 45, size=(64, 48), rate: int = 30, at=None, turn: int = 0) -> bytes:
    """Black pictures whose upper left quarter is white, and whose number stands below in eight bars, the lowest bit first.

    ``at``: times of the pictures, in seconds.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=1000 if at else rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if at:
            stream.codec_context.time_base = Fraction(1, 1000)
        if turn:
            stream.set_display_rotation(turn)
        for number in range(frames):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[: size[1] // 2, : size[0] // 2] = 255
            bits = number >> np.arange(8) & 1
            pixels[size[1] // 2 :] = np.resize(255 * bits.repeat(max(1, size[0] // 8)), size[0])[:, None]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = round(1000 * at[number]) if at else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def variable(number: int) -> bytes:
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append(number & 0x7F | 0x80)
    return bytes(reversed(parts))


def music(kind: int = 0, tracks: int = 1, ticks: int = 480, notes: int = 8) -> bytes:
    track = b"".join(b"\0\x90\x3c\x40" + variable(ticks // 2) + b"\x80\x3c\0" for _ in range(notes)) + b"\0\xff\x2f\0"
    header = b"MThd" + struct.pack(">IHHH", 6, kind, tracks, ticks)
    return header + (b"MTrk" + struct.pack(">I", len(track)) + track) * tracks


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes, count: int) -> bytes:
    """The data with some bytes past the header replaced."""
    changed, generator = bytearray(data), np.random.default_rng(2)
    for place in generator.integers(len(data) // 4, len(data), count):
        changed[place] ^= int(generator.integers(1, 256))
    return bytes(changed)


def not_finite(value: float) -> bytes:
    samples = tone()
    samples[100] = value
    return sound("WAV", "FLOAT", samples=samples)


SQUARE, HALF_SECOND, CLIP = (3, 32, 32), (8000,), (4, 3, 32, 32)
RAMP = np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40)

IMAGES = {
    "grey png": ("png", lambda: picture("png", "L"), SQUARE),
    "colour png": ("png", lambda: picture("png"), SQUARE),
    "png with opacity": ("png", lambda: picture("png", "RGBA"), SQUARE),
    "grey png with opacity": ("png", lambda: picture("png", "LA"), SQUARE),
    "palette png": ("png", lambda: picture("png", "P"), SQUARE),
    "palette png with a clear colour": ("png", lambda: picture("png", "P", transparency=0), SQUARE),
    "black and white png": ("png", lambda: picture("png", "1"), SQUARE),
    "16-bit png": ("png", lambda: wide_picture("png", (RAMP * 65535).astype(np.uint16)), SQUARE),
    "animated png": ("png", lambda: picture("png", animated=True), SQUARE),
    "jpeg": ("jpg", lambda: picture("jpeg"), SQUARE),
    "grey jpeg": ("jpg", lambda: picture("jpeg", "L"), SQUARE),
    "cmyk jpeg": ("jpg", lambda: picture("jpeg", "CMYK"), SQUARE),
    "progressive jpeg": ("jpeg", lambda: picture("jpeg", progressive=True), SQUARE),
    "turned jpeg": ("jpg", turned, SQUARE),
    "webp": ("webp", lambda: picture("webp"), SQUARE),
    "webp with opacity": ("webp", lambda: picture("webp", "RGBA", lossless=True), SQUARE),
    "animated webp": ("webp", lambda: picture("webp", animated=True), SQUARE),
    "bmp": ("bmp", lambda: picture("bmp"), SQUARE),
    "gif": ("gif", lambda: picture("gif"), SQUARE),
    "animated gif": ("gif", lambda: picture("gif", animated=True), SQUARE),
    "tiff": ("tif", lambda: picture("tiff"), SQUARE),
    "cmyk tiff with lzw": ("tiff", lambda: picture("tiff", "CMYK", compression="tiff_lzw"), SQUARE),
    "fax tiff": ("tiff", lambda: picture("tiff", "1", compression="group4"), SQUARE),
    "16-bit tiff": ("tif", lambda: wide_picture("tiff", (RAMP * 65535).astype(np.uint16)), SQUARE),
    "32-bit tiff": ("tif", lambda: wide_picture("tiff", (RAMP * 65535).astype(np.int32)), SQUARE),
    "float tiff": ("tif", lambda: wide_picture("tiff", RAMP), SQUARE),
    "png named jpg": ("jpg", lambda: picture("png"), SQUARE),
    "one pixel": ("png", lambda: picture("png", size=(1, 1)), SQUARE),
    "1 x 20000": ("png", lambda: picture("png", size=(1, 20_000)), SQUARE),
    "20000 x 1": ("jpg", lambda: picture("jpeg", size=(20_000, 1)), SQUARE),
    "jpeg with a flipped byte": ("jpg", lambda: flipped(picture("jpeg"), 1), None),
    "png with a flipped byte": ("png", lambda: flipped(picture("png"), 1), "damaged image"),
    "cut jpeg": ("jpg", lambda: half(picture("jpeg")), "damaged image"),
    "cut png": ("png", lambda: half(picture("png")), "damaged image"),
    "cut gif": ("gif", lambda: half(picture("gif")), "damaged image"),
    "cut tiff": ("tif", lambda: half(picture("tiff")), "image"),
    "cut webp": ("webp", lambda: half(picture("webp")), "image"),
    "png of 105 million pixels": (
        "png",
        lambda: blank("png", (15_000, 7_000)),
        "15000 x 7000 pixels are over max_pixels 50000000",
    ),
    "png of 900 million pixels": (
        "png",
        lambda: picture("png", "1")[:16] + struct.pack(">II", 30_000, 30_000) + picture("png", "1")[24:],
        "image",
    ),
    "tiff with nan": ("tif", lambda: wide_picture("tiff", np.full((8, 8), np.nan, np.float32)), "must be finite"),
    "empty png": ("png", lambda: b"", "not an image"),
    "random jpg": ("jpg", lambda: RANDOM_BYTES, "not an image"),
    "prose webp": ("webp", lambda: PROSE, "not an image"),
    "postscript png": ("png", lambda: picture("eps"), "not an image"),
}
SOUNDS = {
    "8 kHz wav": ("wav", lambda: sound("WAV", "PCM_16", 8000), HALF_SECOND),
    "22.05 kHz wav": ("wav", lambda: sound("WAV", "PCM_16", 22_050), HALF_SECOND),
    "48 kHz wav": ("wav", lambda: sound("WAV", "PCM_16", 48_000), HALF_SECOND),
    "128 kHz wav": ("wav", lambda: sound("WAV", "PCM_16", 128_000), HALF_SECOND),
    "44101 Hz wav": ("wav", lambda: sound("WAV", "PCM_16", 44_101), HALF_SECOND),
    "stereo wav": ("wav", lambda: sound("WAV", "PCM_16", channels=2), HALF_SECOND),
    "six channels": ("wav", lambda: sound("WAV", "PCM_16", channels=6), HALF_SECOND),
    "8-bit wav": ("wav", lambda: sound("WAV", "PCM_U8"), HALF_SECOND),
    "24-bit wav": ("wav", lambda: sound("WAV", "PCM_24"), HALF_SECOND),
    "32-bit wav": ("wav", lambda: sound("WAV", "PCM_32"), HALF_SECOND),
    "float wav": ("wav", lambda: sound("WAV", "FLOAT"), HALF_SECOND),
    "double wav": ("wav", lambda: sound("WAV", "DOUBLE"), HALF_SECOND),
    "wav of unknown length": ("wav", lambda: wav_with(40, "<I", 0xFFFFFFFF), HALF_SECOND),
    "flac": ("flac", lambda: sound("FLAC", "PCM_24"), HALF_SECOND),
    "aiff": ("aiff", lambda: sound("AIFF", "PCM_24"), HALF_SECOND),
    "vorbis": ("ogg", lambda: sound("OGG", "VORBIS", 16_000), None),
    "128 kHz vorbis": ("ogg", lambda: sound("OGG", "VORBIS", 128_000), None),
    "opus": ("opus", lambda: sound("OGG", "OPUS", 48_000), None),
    "mp3": ("mp3", lambda: sound("MP3", "MPEG_LAYER_III"), HALF_SECOND),
    "m4a": ("m4a", muxed_sound, None),
    "mp3 with flipped bytes": ("mp3", lambda: flipped(sound("MP3", "MPEG_LAYER_III"), 20), None),
    "cut wav": ("wav", lambda: half(sound("WAV", "PCM_16")), "cut off: 22028 of the 44100 bytes"),
    "cut aiff": ("aif", lambda: half(sound("AIFF", "PCM_16")), "cut off"),
    "cut flac": ("flac", lambda: half(sound("FLAC", "PCM_16")), "damaged sound"),
    "cut ogg": ("ogg", lambda: half(sound("OGG", "VORBIS")), "cut off"),
    "cut mp3": ("mp3", lambda: half(sound("MP3", "MPEG_LAYER_III")), "of the 22050 samples that its header announces"),
    "cut m4a": ("m4a", lambda: half(muxed_sound()), "cut off"),
    "wav without samples": ("wav", lambda: sound("WAV", "PCM_16", samples=np.zeros((0, 1), np.float32)), "0 samples at 44100 Hz"),
    "ogg without samples": ("ogg", lambda: sound("OGG", "VORBIS", samples=np.zeros((0, 1), np.float32)), "."),
    "one sample": ("wav", lambda: sound("WAV", "PCM_16", samples=np.zeros((1, 1), np.float32)), "1 samples at 44100 Hz"),
    "nan": ("wav", lambda: not_finite(np.nan), "must be finite"),
    "inf": ("wav", lambda: not_finite(np.inf), "must be finite"),
    "absurdly loud": ("wav", lambda: not_finite(3e38), "must be finite"),
    "sample rate 0": ("wav", lambda: wav_with(24, "<I", 0), "."),
    "sample rate 4e9": ("wav", lambda: wav_with(24, "<I", 4_000_000_000), "."),
    "1000 channels": ("wav", lambda: wav_with(22, "<H", 1000), "."),
    "empty wav": ("wav", lambda: b"", "not a sound"),
    "random flac": ("flac", lambda: RANDOM_BYTES, "not a sound"),
    "prose mp3": ("mp3", lambda: PROSE, "not a sound"),
    "playlist m4a": ("m4a", lambda: PLAYLIST, "not a sound"),
}
FILMS = {
    "mp4": ("mp4", film, CLIP),
    "mpeg-4 avi": ("avi", lambda: film("avi", "mpeg4"), CLIP),
    "mjpeg avi": ("avi", lambda: film("avi", "mjpeg"), CLIP),
    "vp9 webm": ("webm", lambda: film("webm", "libvpx-vp9"), CLIP),
    "mkv": ("mkv", lambda: film("matroska"), CLIP),
    "mov": ("mov", lambda: film("mov"), CLIP),
    "mpeg-2": ("mpg", lambda: film("mpeg", "mpeg2video"), CLIP),
    "variable frame rate": ("mkv", lambda: film("matroska", frames=6, at=[0, 0.1, 0.2, 1.0, 1.1, 3.0]), CLIP),
    "turned mp4": ("mp4", lambda: film(turn=-90), CLIP),
    "one frame": ("mp4", lambda: film(frames=1), CLIP),
    "a narrow film": ("mp4", lambda: film(size=(2, 200)), CLIP),
    "avi with 200 flipped bytes": ("avi", lambda: flipped(film("avi", "mpeg4"), 200), None),
    "mp4 with 20 flipped bytes": ("mp4", lambda: flipped(film(), 20), None),
    "cut avi": ("avi", lambda: film("avi", "mjpeg")[:-6000], "cut off"),
    "cut mp4": ("mp4", lambda: half(film()), "cut off"),
    "cut mkv": ("mkv", lambda: half(film("matroska")), "cut off"),
    "sound only": ("mp4", muxed_sound, "no video stream"),
    "sound named avi": ("avi", lambda: sound("WAV", "PCM_16"), "no video stream"),
    "empty mp4": ("mp4", lambda: b"", "not a film"),
    "random avi": ("avi", lambda: RANDOM_BYTES, "not a film"),
    "prose mov": ("mov", lambda: PROSE, "not a film"),
    "playlist mp4": ("mp4", lambda: PLAYLIST, "not a film"),
    "concatenation mkv": ("mkv", lambda: CONCATENATION, "not a film"),
}
MUSIC = {
    "midi of type 0": ("mid", music, (8, 4)),
    "midi of type 1": ("mid", lambda: music(1, 2), (16, 4)),
    "midi of type 2": ("mid", lambda: music(2, 2), "type 2 with 2 independent pieces"),
    "0 ticks per beat": ("mid", lambda: music(ticks=0), "0 ticks per beat"),
    "no notes": ("mid", lambda: music(notes=0), "without notes"),
    "a million notes": ("mid", lambda: music(notes=1_000_000), (64, 4)),
    "more than a million notes": ("mid", lambda: music(notes=1_000_001), "1000001 notes are over the limit of 1000000"),
    "cut midi": ("mid", lambda: half(music()), "damaged"),
    "lying track length": ("mid", lambda: music()[:18] + struct.pack(">I", 10**9) + music()[22:], "damaged"),
    "empty midi": ("midi", lambda: b"", "damaged"),
    "random midi": ("mid", lambda: RANDOM_BYTES, "damaged"),
}
TEXTS = {
    "text": ("txt", lambda: PROSE, (64,)),
    "text with a byte order mark": ("txt", lambda: "\ufeffnaïve".encode(), (6,)),
    "latin-1": ("txt", lambda: "naïve".encode("latin-1"), "byte 0xef at offset 2 of 5"),
    "utf-16": ("txt", lambda: "naïve".encode("utf-16"), "not UTF-8: byte 0xff at offset 0"),
    "cut text": ("txt", lambda: "ï".encode()[:1], "not UTF-8"),
    "empty text": ("txt", lambda: b"", "empty text"),
    "blank text": ("txt", lambda: b" \n\t ", "empty text"),
    "17 MB of text": ("txt", lambda: b"a" * 17_000_000, "over max_bytes"),
}
ZOO = {name: Animal(*animal) for kinds in (IMAGES, SOUNDS, FILMS, MUSIC, TEXTS) for name, animal in kinds.items()}
