"""Recordings in SoundFont files: those of one channel and the left ones of pairs, as they were put in."""

import struct

import numpy as np
import soundfile

from benchmarks.drums.soundfonts import recordings, write_recordings


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def header(name: bytes, start: int, end: int, kind: int) -> bytes:
    return struct.pack("<20sIIIIIBbHH", name, start, end, start, end, 22050, 60, 0, 0, kind)


def font(samples: np.ndarray, headers: list[bytes]) -> bytes:
    information = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"odd"))
    sound = chunk(b"LIST", b"sdta" + chunk(b"smpl", samples.tobytes()))
    presets = chunk(b"LIST", b"pdta" + chunk(b"phdr", bytes(38)) + chunk(b"shdr", b"".join([*headers, header(b"EOS", 0, 0, 0)])))
    return chunk(b"RIFF", b"sfbk" + information + sound + presets)


def test_mono_and_left_recordings_are_written_unless_they_are_single_periods(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 10_000, dtype="<i2")
    headers = [
        header(b"kick 1", 0, 4000, 1),
        header(b"tom L", 4000, 7000, 4),
        header(b"tom R", 7000, 9900, 2),
        header(b"wave", 9900, 10_000, 1),
    ]
    (tmp_path / "kit.sf2").write_bytes(font(samples, headers))
    found = list(recordings(tmp_path / "kit.sf2"))
    assert [(one.name, one.rate, len(one.samples)) for one in found] == [
        ("kick 1", 22050, 4000),
        ("tom L", 22050, 3000),
        ("wave", 22050, 100),
    ]
    write_recordings(tmp_path / "kit.sf2", tmp_path / "kit")
    assert sorted(path.name for path in (tmp_path / "kit").iterdir()) == ["0000_kick_1.wav", "0001_tom_L.wav"]
    read, rate = soundfile.read(tmp_path / "kit" / "0001_tom_L.wav", dtype="int16")
    assert rate == 22050
    np.testing.assert_array_equal(read, samples[4000:7000])
