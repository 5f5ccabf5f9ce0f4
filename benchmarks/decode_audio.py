"""Decoding of sounds, side by side with torchcodec (which is torchaudio's ``load``), librosa and PyAV.

``python -m benchmarks.decode_audio [--data FOLDER] [--rounds 5]``

The sound is that of Debian's sonic-pi-samples, else a seeded mixture of tones; it is encoded anew in each format. Get it by
``apt-get download sonic-pi-samples && dpkg -x sonic-pi-samples_*.deb FOLDER``.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console

from benchmarks.side_by_side import compare, machine
from multimodal.tokenizers.audio import decode_audio
from multimodal.tokenizers.ffmpeg import torchcodec_works

RATE_HZ = 48_000  # the only one that all formats have
SECONDS, CLIPS = 5, 12
FORMATS = {
    "wav, 16 bit": ("WAV", "PCM_16"),
    "wav, 24 bit": ("WAV", "PCM_24"),
    "flac": ("FLAC", "PCM_16"),
    "ogg vorbis": ("OGG", "VORBIS"),
    "ogg opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
PACKAGES = ("soundfile", "av", "torchcodec", "torchaudio", "librosa", "torch", "numpy")
Decoder = Callable[[bytes], int]


def main() -> int:
    """Print a table for each format."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode_audio", description="Decoding of sounds, side by side.")
    parser.add_argument("--data", type=Path, help="folder that the Debian package was unpacked into; without it tones are made")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console, clips = Console(width=120), sounds(arguments.data)
    for name, (kind, subtype) in FORMATS.items():
        files = [encode(clip, kind, subtype) for clip in clips]
        candidates = {decoder: work(decode, files) for decoder, decode in decoders().items()}
        console.print(compare(candidates, "seconds of sound", arguments.rounds, title=f"{name}, {len(files)} stereo clips of {SECONDS} s"))
    console.print(machine(PACKAGES))
    console.print(f"absent: {', '.join(absent()) or 'none'}; sounds: {arguments.data or 'made of tones'}")
    return 0


def sounds(folder: Path | None) -> list[np.ndarray]:
    """Return stereo clips at 48 kHz; real ones are played a little too fast, which costs a decoder nothing."""
    files = sorted(folder.rglob("*.flac"), key=lambda path: (-path.stat().st_size, path.name)) if folder else []
    if not files:
        return [tones(seed) for seed in range(CLIPS)]
    joined = np.concatenate([soundfile.read(path, dtype="float32", always_2d=True)[0][:, [0, -1]] for path in files[: 2 * CLIPS]])
    length = SECONDS * RATE_HZ
    return [joined[start : start + length] for start in range(0, min(len(joined) - length + 1, CLIPS * length), length)]


def tones(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    time = np.arange(SECONDS * RATE_HZ)[:, None] / RATE_HZ
    waves = sum(np.sin(2 * np.pi * generator.uniform(80, 8000, 2) * time) for _ in range(12)) / 24
    return (waves + generator.normal(0, 0.02, waves.shape)).astype(np.float32)


def encode(clip: np.ndarray, kind: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, clip, RATE_HZ, format=kind, subtype=subtype)
    return buffer.getvalue()


def decoders() -> dict[str, Decoder]:
    """Return what is there: a file -> the samples of each channel."""
    found: dict[str, Decoder] = {"ours": lambda data: decode_audio(data)[0].shape[1], "soundfile": by_soundfile, "PyAV": by_pyav}
    if torchcodec_works():
        found["torchcodec"] = by_torchcodec
    if importlib.util.find_spec("librosa"):
        found["librosa"] = by_librosa
    return found


def absent() -> list[str]:
    peers = {"torchcodec (torchaudio.load)": torchcodec_works(), "librosa": importlib.util.find_spec("librosa")}
    return [name for name, there in peers.items() if not there]


def by_soundfile(data: bytes) -> int:
    return torch.from_numpy(soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0]).T.shape[1]


def by_torchcodec(data: bytes) -> int:
    from torchcodec.decoders import AudioDecoder

    return AudioDecoder(data).get_all_samples().data.shape[1]


def by_librosa(data: bytes) -> int:
    import librosa

    return librosa.load(io.BytesIO(data), sr=None, mono=False)[0].shape[-1]


def by_pyav(data: bytes) -> int:
    import av

    with av.open(io.BytesIO(data)) as container:
        resampler = av.AudioResampler(format="fltp")
        parts = [part.to_ndarray() for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(parts, axis=1).shape[1]


def work(decode: Decoder, files: list[bytes]) -> Callable[[], int]:
    def candidate() -> int:
        samples = sum(decode(data) for data in files)
        if abs(samples - len(files) * SECONDS * RATE_HZ) > len(files) * RATE_HZ // 5:  # encoders add silence at both ends
            raise ValueError(f"{samples} samples were decoded where {len(files) * SECONDS * RATE_HZ} were written.")
        return samples // RATE_HZ

    return candidate


if __name__ == "__main__":
    raise SystemExit(main())
