"""S3D gives what torchvision's gives, from all of a file's weights or none."""

import pickle
import re

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.video import S3D_Weights, s3d

from multimodal.tokenizers.video.extractors import S3DExtractor


@pytest.fixture(scope="module")
def published() -> torch.nn.Module:
    """torchvision's model with weights and statistics that are not those of the beginning."""
    torch.manual_seed(0)
    model = s3d().eval()
    for name, x in model.state_dict().items():
        if name.endswith("running_var"):
            x.uniform_(1e-4, 1e-3)  # so that signals do not vanish
        elif x.is_floating_point() and "classifier" not in name:
            x.add_(torch.randn_like(x) * 0.01)
    return model


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return torch.randint(256, (2, 14, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("name", ["s3d.pth", "s3d.safetensors"])
def test_features_are_those_of_torchvision(published, clips, tmp_path, name):
    path = tmp_path / name
    save_file(published.state_dict(), path) if name.endswith("safetensors") else torch.save(published.state_dict(), path)
    extractor = S3DExtractor(str(path))
    transforms = S3D_Weights.KINETICS400_V1.transforms(crop_size=(64, 64), resize_size=(64, 64))
    with torch.no_grad():
        expected = published.features(transforms(clips)).mean((2, 3, 4))
    found = extractor(clips)
    assert found.shape == (2, 1024) and found.dtype == torch.float32 and extractor.dim == 1024
    assert expected.std() > 1e-3 and (expected[0] - expected[1]).abs().max() > 1e-5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_clip_does_not_depend_on_the_clips_beside_it(clips):
    extractor = S3DExtractor(untrained=True).train()
    both = extractor(clips)
    torch.testing.assert_close(extractor(clips[:1])[0], both[0], rtol=1e-5, atol=1e-5)
    assert 1e-2 < both.std() < 1e2 and not extractor.training


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda own: own.pop("features.0.0.0.weight"), "features.0.0.0.weight is missing"),
        (lambda own: own.update({"features.99.weight": torch.zeros(1)}), "features.99.weight is unknown"),
        (lambda own: own.update({"features.0.0.0.weight": torch.zeros(2, 3)}), "has shape (2, 3) instead of (64, 3, 1, 7, 7)"),
        (lambda own: own["features.0.0.0.weight"].fill_(float("nan")), "features.0.0.0.weight is not finite"),
    ],
    ids=["missing", "unknown", "shape", "not finite"],
)
def test_other_weights_are_refused(published, tmp_path, change, said):
    own = {name: x.clone() for name, x in published.state_dict().items()}
    change(own)
    torch.save(own, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        S3DExtractor(str(tmp_path / "other.pth"))
    assert "does not hold the weights of torchvision's S3D" in str(refused.value)


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_files_that_are_no_weights_are_refused(tmp_path):
    with (tmp_path / "hostile.pth").open("wb") as file:
        pickle.dump({"state_dict": Hostile()}, file)
    for path in (tmp_path / "hostile.pth", tmp_path / "none.pth"):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            S3DExtractor(str(path))
    for own in ({}, {"weights": "s3d.pth", "untrained": True}):
        with pytest.raises(ValueError, match="nothing is downloaded"):
            S3DExtractor(**own)


def test_too_few_pictures_are_refused(clips):
    with pytest.raises(ValueError, match="at least 14 pictures, got num_frames 13"):
        S3DExtractor(untrained=True)(clips[:, :13])


def test_the_fingerprint_is_of_weights_and_statistics():
    one = S3DExtractor(untrained=True).fingerprint()
    assert one == S3DExtractor(untrained=True).fingerprint()
    assert len({one, S3DExtractor(untrained=True, seed=1).fingerprint(), S3DExtractor(untrained=True, mean=(0.5,) * 3).fingerprint()}) == 3
