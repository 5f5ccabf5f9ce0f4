"""VQ-KD in training: distillation falls, the teacher stays outside, and any quantizer fits between."""

import copy
import json
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from multimodal.protocols import Teacher
from multimodal.tokenizers.image import VqKdTokenizer
from multimodal.tokenizers.pretrained import load_tokenizer
from multimodal.tokenizers.quantizers import Codebook, FiniteScalarQuantizer, ResidualQuantizer

SIZES = {"code_dim": 8, "dim": 16, "depth": 1, "num_heads": 2, "hidden_dim": 32, "grid": (2, 3)}
DECODER = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2, "decoder_hidden_dim": 32}


class Means(Teacher):
    """Mean and deviation of the pixels of a patch, colour by colour."""

    def __init__(self, patch_size: int = 16) -> None:
        super().__init__()
        self.patch_size, self.weight, self.calls = patch_size, torch.nn.Parameter(torch.ones(6)), 0

    @property
    def dim(self) -> int:
        return 6

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x = values.float() / 128 - 1
        mean, square = (F.avg_pool2d(y, self.patch_size) for y in (x, x.square()))
        return (torch.cat([mean, (square - mean.square()).sqrt()], 1).movedim(1, -1).flatten(0, 2) * self.weight).detach()


def pixels(count: int = 4) -> torch.Tensor:
    """Images of flat patches with noise, of one of six brightnesses."""
    generator = torch.Generator().manual_seed(2)
    flat = torch.randint(6, (count, 3, 2, 3), generator=generator).repeat_interleave(16, 2).repeat_interleave(16, 3) * 40
    return (flat + torch.randint(50, flat.shape, generator=generator)).to(torch.uint8)


def make_tokenizer(**settings) -> VqKdTokenizer:
    torch.manual_seed(0)
    defaults = {"num_codes": 12, "teacher_dim": None, "teacher": Means()}
    return VqKdTokenizer(**SIZES, **DECODER, **defaults | settings)


def test_the_loss_is_distillation_and_commitment():
    tokenizer, values = make_tokenizer().eval(), pixels()
    step = tokenizer.training_loss(values, 0.5)
    with torch.no_grad():
        directions = F.normalize(tokenizer.code_vectors(values), dim=1)
        ids = tokenizer.encode(values)
        codes = tokenizer.quantizer.codes[ids]
        made = tokenizer.decode(ids.view(4, 2, 3)).flatten(0, 1)
    distillation = 1 - F.cosine_similarity(made.double(), Means()(values).double(), dim=1).mean()
    torch.testing.assert_close(step.parts["distillation"].double(), distillation, atol=1e-6, rtol=0)
    torch.testing.assert_close(step.loss.double(), distillation + (directions - codes).double().square().mean(), atol=1e-6, rtol=0)
    assert torch.equal(step.ids, ids)


def test_distillation_falls_and_every_parameter_learns():
    tokenizer, values = make_tokenizer().train(), pixels(8)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        step = tokenizer.training_loss(values, 0.0)
        optimizer.zero_grad()
        step.loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in tokenizer.parameters())
        optimizer.step()
        losses.append(step.parts["distillation"].item())
    assert losses[-1] < 0.3 * losses[0]
    assert len(tokenizer.eval().encode(values).unique()) > 6


def test_the_teacher_is_asked_once_a_step_and_is_no_part_of_the_tokenizer(tmp_path):
    teacher = Means()
    tokenizer, values = make_tokenizer(teacher=teacher).train(), pixels()
    tokenizer.training_loss(values, 0.0).loss.backward()
    assert teacher.calls == 1 and not teacher.training and teacher.weight.grad is None
    assert not any("teacher" in name for name in (*tokenizer.state_dict(), *dict(tokenizer.named_parameters())))
    assert tokenizer.config["teacher_dim"] == 6 and "teacher" not in tokenizer.config
    without = make_tokenizer(teacher=None, teacher_dim=6)
    without.load_state_dict(tokenizer.state_dict())
    assert without.fingerprint() == tokenizer.fingerprint() == copy.deepcopy(tokenizer).fingerprint()
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert torch.equal(loaded.encode(values), tokenizer.eval().encode(values))
    with pytest.raises(ValueError, match="has no teacher, which is not saved with it"):
        loaded.training_loss(values, 0.0)


QUANTIZERS = {
    "codebook": (partial(Codebook, num_codes=7, decay=0.9), (7,)),
    "finite scalar": (partial(FiniteScalarQuantizer, levels=(3, 4)), (12,)),
    "residual": (ResidualQuantizer, (1024,) * 4),
}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_any_quantizer_fits_and_is_saved(tmp_path, name):
    builder, sizes = QUANTIZERS[name]
    tokenizer, values = make_tokenizer(num_codes=None, quantizer=builder).train(), pixels()
    assert tokenizer.vocab_sizes == sizes
    step = tokenizer.training_loss(values, 0.0)
    step.loss.backward()
    assert step.loss.isfinite() and step.ids.shape == ((24,) if len(sizes) == 1 else (24, len(sizes)))
    assert all(p.grad is not None for p in tokenizer.parameters())
    ids = tokenizer.eval().encode(values)
    assert ids.shape == step.ids.shape
    assert tokenizer.decode(ids.unflatten(0, (4, 2, 3))).shape == (4, 6, 6)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.fingerprint() == tokenizer.fingerprint() and torch.equal(loaded.encode(values), ids)
    said = json.loads((tmp_path / "config.json").read_text())["config"]["quantizer"]
    assert said["class_path"].startswith("multimodal.tokenizers.quantizers.")


def test_codes_are_found_in_single_precision_under_autocast():
    tokenizer, values = make_tokenizer().train(), pixels()
    with torch.autocast("cpu", torch.bfloat16):
        step = tokenizer.training_loss(values, 0.0)
    step.loss.backward()
    assert tokenizer.quantizer.codes.dtype == step.loss.dtype == torch.float32
    torch.testing.assert_close(tokenizer.quantizer.codes.norm(dim=1), torch.ones(12))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_dim": 7}, "teacher_dim is 7, and the teacher's features have 6 values"),
        ({"teacher": None}, "teacher_dim is None, and there is no teacher"),
        ({"quantizer": Codebook}, "num_codes must be None exactly where there is a quantizer"),
        ({"num_codes": None}, "num_codes must be None exactly where there is a quantizer"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_tokenizer(**settings)


def test_a_teacher_with_other_patches_is_refused():
    with pytest.raises(ValueError, match="24 features for an image, but 2 x 3 patches need one each"):
        make_tokenizer(teacher=Means(patch_size=8)).training_loss(pixels(), 0.0)


def test_a_saved_quantizer_is_one_of_this_package(tmp_path):
    make_tokenizer(num_codes=None, quantizer=partial(Codebook, num_codes=7)).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["config"]["quantizer"]["class_path"] = "os.system"
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=r"names 'os.system', which is not of this package"):
        load_tokenizer(str(tmp_path))
