"""Decoding of clips, 8 pictures at 8 a second from places all over a film, side by side with PyAV, torchcodec and decord.

``python -m benchmarks.decode_video [--data FOLDER] [--rounds 5]``

The films are those of Debian's opencv-doc (``apt-get download opencv-doc && dpkg -x opencv-doc_*.deb FOLDER``), and the first of them as
data sets come: H.264 in MP4, 320 x 240, with a key frame each second and with one each ten. Without them, seeded ones are made.

PyAV is measured as its examples call it, and also with one thread for the conversion to RGB, which is what ours uses.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from benchmarks.side_by_side import compare, machine
from multimodal.tokenizers.ffmpeg import torchcodec_works
from multimodal.tokenizers.video import decode_clip

NUM_FRAMES, RATE, PLACES = 8, 8.0, 6
NAMES = ("vtest.avi", "Megamind.avi", "tree.avi")
PACKAGES = ("av", "torchcodec", "decord", "torch", "numpy")
Decoder = Callable[[bytes, list[float]], int]


def main() -> int:
    """Print a table for each film."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode_video", description="Decoding of clips, side by side.")
    parser.add_argument("--data", type=Path, help="folder that the Debian package was unpacked into; without it films are made")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120)
    for name, (data, seconds) in films(arguments.data).items():
        starts = np.linspace(0, seconds - NUM_FRAMES / RATE - 0.1, PLACES).tolist()
        clips = [[start + number / RATE for number in range(NUM_FRAMES)] for start in starts]
        candidates = {decoder: work(decode, data, clips) for decoder, decode in decoders().items()}
        console.print(
            compare(candidates, "frames", arguments.rounds, title=f"{name}, {PLACES} clips of {NUM_FRAMES} frames over {seconds:.0f} s")
        )
    console.print(machine(PACKAGES))
    peers = {"torchcodec (FFmpeg's libraries)": torchcodec_works(), "decord": importlib.util.find_spec("decord")}
    console.print(f"absent: {', '.join(name for name, there in peers.items() if not there) or 'none'}")
    return 0


def films(folder: Path | None) -> dict[str, tuple[bytes, float]]:
    """Return name -> file and its seconds."""
    found = [path for name in NAMES for path in sorted(folder.rglob(name))] if folder else []
    files = {path.name: path.read_bytes() for path in found} or {"made, h264": made("libx264"), "made, mpeg-4": made("mpeg4")}
    for every_s in (1, 10) if found else ():
        files[f"{found[0].name} as H.264, a key frame each {every_s} s"] = recoded(found[0].read_bytes(), every_s)
    return {name: (data, length(data)) for name, data in files.items()}


def length(data: bytes) -> float:
    import av

    with av.open(io.BytesIO(data)) as container:
        return container.duration / av.time_base


def made(codec: str, seconds: int = 20, size: int = 320) -> bytes:
    """Return a film of a drifting pattern, 25 pictures a second and a key frame each second."""
    import av

    pattern, buffer = (
        np.random.default_rng(0).integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1),
        io.BytesIO(),
    )
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = size
        stream.pix_fmt, stream.gop_size = "yuv420p", 25
        for number in range(25 * seconds):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(pattern, (number, 2 * number), (0, 1)), format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def recoded(data: bytes, key_frame_every_s: int, num_frames: int = 500, width: int = 320, height: int = 240) -> bytes:
    """Return the first pictures of a film as H.264 in MP4, 25 a second."""
    import av

    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 25 * key_frame_every_s
        for number, frame in zip(range(num_frames), source.decode(video=0), strict=False):
            pixels = frame.reformat(width, height, "yuv420p").to_ndarray()
            picture = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def decoders() -> dict[str, Decoder]:
    """Return what is there: a file and ascending times -> the number of pictures decoded."""
    found: dict[str, Decoder] = {"ours": ours, "PyAV seek": by_pyav, "PyAV seek, 1 thread": functools.partial(by_pyav, threads=1)}
    if torchcodec_works():
        found["torchcodec"] = by_torchcodec
    if importlib.util.find_spec("decord"):
        found["decord"] = by_decord
    return found


def ours(data: bytes, times: list[float]) -> int:
    return len(decode_clip(data, times[0], NUM_FRAMES, RATE))


def by_pyav(data: bytes, times: list[float], threads: int | None = None) -> int:
    import av

    pictures, waiting = [], times[::-1]
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        container.seek(int(times[0] / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            while waiting and frame.time + 0.5 / float(stream.average_rate) >= waiting[-1]:
                waiting.pop()
                pictures.append(frame.to_ndarray(format="rgb24", threads=threads))
            if not waiting:
                break
    return len(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))


def by_torchcodec(data: bytes, times: list[float]) -> int:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(data)
    first = decoder.metadata.begin_stream_seconds or 0.0
    return len(decoder.get_frames_played_at([first + time for time in times]).data)


def by_decord(data: bytes, times: list[float]) -> int:
    import decord

    reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
    rate = reader.get_avg_fps()
    return len(reader.get_batch([min(int(time * rate), len(reader) - 1) for time in times]).asnumpy())


def work(decode: Decoder, data: bytes, clips: list[list[float]]) -> Callable[[], int]:
    def candidate() -> int:
        frames = sum(decode(data, times) for times in clips)
        if frames != len(clips) * NUM_FRAMES:
            raise ValueError(f"{frames} frames were decoded where {len(clips) * NUM_FRAMES} were asked for.")
        return frames

    return candidate


if __name__ == "__main__":
    raise SystemExit(main())
