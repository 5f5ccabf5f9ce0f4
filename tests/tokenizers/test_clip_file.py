import pytest
import torch
from safetensors.torch import save

from multimodal.tokenizers.clip_file import Clips, read_clips, write_clips


def clips(**changed: object) -> Clips:
    settings = {"starts": torch.tensor([0.0, 1.5]), "ends": torch.tensor([1.5, 3.0]), "features": torch.randn(2, 4), "extractor": "ab"}
    return Clips(**(settings | changed))


def test_clips_are_read_as_they_were_written():
    for written in (clips(), clips(ids=torch.tensor([7, 3]), tokenizer="cd"), clips(features=None, ids=torch.tensor([7, 3]))):
        read = read_clips(write_clips(written))
        assert (read.extractor, read.tokenizer) == (written.extractor, written.tokenizer)
        for name in ("starts", "ends", "features", "ids"):
            before, after = getattr(written, name), getattr(read, name)
            assert (after is None) if before is None else torch.equal(before, after)


def test_half_precision_stays_half_precision():
    assert read_clips(write_clips(clips(features=torch.randn(2, 4).half()))).features.dtype == torch.float16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": None}, "neither is there"),
        ({"ids": torch.tensor([1])}, "2 clips have 1 ids"),
        ({"starts": torch.tensor([2.0, 1.5])}, "ascend"),
        ({"ends": torch.tensor([1.5, 1.5])}, "end after it starts"),
        ({"ends": torch.tensor([1.5, torch.inf])}, "finite"),
        ({"features": torch.full((2, 4), torch.nan)}, "features of clips must be finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changed: dict, message: str):
    with pytest.raises(ValueError, match=message):
        clips(**changed)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a safetensors file"),
        (b"RIFF____AVI ", "not a safetensors file"),
        (write_clips(clips())[:-3], "not a safetensors file"),
        (save({"starts": torch.zeros(1)}), "'ends' is missing"),
        (save({"starts": torch.zeros(1), "ends": torch.ones(1), "weights": torch.ones(1)}), "'weights' is unknown"),
        (save({"starts": torch.zeros(1), "ends": torch.ones(1), "ids": torch.ones(1)}), "ids are torch.float32"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        read_clips(data)
