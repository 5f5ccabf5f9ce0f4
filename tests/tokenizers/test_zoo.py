"""Every file of the zoo decodes to the declared shape, or is refused with shard, key, field and reason; no NaN, no gigabytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from multimodal.batch import Sample
from multimodal.datamodules.shards.reader import RawSample
from multimodal.datamodules.streaming.preparation import SamplePreparation
from multimodal.errors import SampleError
from multimodal.tokenizers.audio import AudioTransform
from multimodal.tokenizers.image import ImageTransform
from multimodal.tokenizers.midi import MidiTransform
from multimodal.tokenizers.text import TextTransform
from multimodal.tokenizers.video import VideoTransform
from tests.tokenizers.zoo import CLIP, SQUARE, ZOO

GIGABYTE = 2**30
ROOT = Path(__file__).resolve().parents[2]
REAL_FILES = "MULTIMODAL_REAL_FILES"
TRANSFORMS = {
    "image": ImageTransform(size=32),
    "audio": AudioTransform(sample_rate_hz=16_000, seconds=1.0),
    "video": VideoTransform(size=32, num_frames=4, seconds=1.0),
    "midi": MidiTransform(max_notes=64, min_notes=1),
    "text": TextTransform(max_tokens=64),
}


def prepared(field: str, data: bytes, key: str, train: bool) -> Sample:
    raw = RawSample("zoo-000000.tar", key, {field: data}, (field,))
    return SamplePreparation(TRANSFORMS, [], seed=0, train=train)(raw, 0, 0)


def values_of(sample: Sample) -> torch.Tensor:
    (item,) = sample.items.values()
    if item.values.is_floating_point():
        assert torch.isfinite(item.values).all()
    assert item.values.numel() > 0
    return item.values


def test_the_zoo_is_large():
    assert len(ZOO) >= 60


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", ZOO)
def test_a_file_decodes_or_is_refused_with_a_reason(name, train):
    animal = ZOO[name]
    data = animal.make()
    if isinstance(animal.expected, str):
        with pytest.raises(SampleError, match=animal.expected) as caught:
            prepared(animal.field, data, name, train)
        error = caught.value
        assert (error.shard, error.key, error.field) == ("zoo-000000.tar", name, animal.field) and len(error.reason) > 10
        assert "\n" not in error.reason
        return
    try:
        values = values_of(prepared(animal.field, data, name, train))
    except SampleError as error:
        assert animal.expected is None, error
        return
    if animal.expected is not None:
        assert tuple(values.shape) == animal.expected


def decode_them_all() -> None:
    for name, animal in ZOO.items():
        try:
            prepared(animal.field, animal.make(), name, train=True)
        except SampleError:
            continue


def test_the_whole_zoo_takes_less_than_half_a_gigabyte():
    peak = "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"  # in kB; the libraries take more on one machine than on another
    code = f"import resource; from tests.tokenizers.test_zoo import decode_them_all; {peak}; decode_them_all(); {peak}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    before, after = map(int, result.stdout.split()[-2:])
    assert 1024 * (after - before) < GIGABYTE / 2


REAL = {
    "vorbis that FFmpeg does not read": ("klettres/cs/syllab/ad-1.ogg", "ogg"),
    "ogg whose last page is not marked": ("klettres/ar/alpha/a-05.ogg", "ogg"),
    "damaged avi": ("doc/opencv-doc/examples/data/Megamind_bugy.avi", "avi"),
    "cinepak": ("doc/opencv-doc/examples/data/tree.avi", "avi"),
    "raw gsm": ("asterisk/sounds/en_US_f_Allison/vm-tempgreetactive.gsm", "wav"),
    "large png": ("wallpapers/Patak/contents/images/5120x2880.png", "png"),
}


@pytest.mark.skipif(
    REAL_FILES not in os.environ, reason=f"{REAL_FILES} does not name a folder with Debian's klettres-data and others, unpacked"
)
@pytest.mark.parametrize("name", REAL)
def test_real_files_decode(name):
    """Debian's klettres-data, opencv-doc, asterisk-core-sounds-en-gsm and plasma-workspace-wallpapers: apt-get download, dpkg -x."""
    path, field = REAL[name]
    file = Path(os.environ[REAL_FILES]) / "usr/share" / path
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    data = file.read_bytes()
    values = values_of(prepared(field, data, name, train=True))
    assert values.shape[1:] == {"avi": CLIP[1:], "png": SQUARE[1:]}.get(field, ())
    with pytest.raises(SampleError, match=r"cut off|damaged|not a sound"):
        prepared(field, data[: len(data) // 2 + 1], name, train=True)
