"""An autoencoder with any quantizer: ids lie where their patches lie, training lowers the error, what is saved is loaded."""

from functools import partial

import pytest
import torch
from jsonargparse import ArgumentParser

from multimodal.tokenizers.image import PatchGridRenderer, QuantizedAutoencoder
from multimodal.tokenizers.pretrained import load_tokenizer
from multimodal.tokenizers.quantizers import EuclideanCodebook, FiniteScalarQuantizer, LookupFreeQuantizer, ResidualQuantizer

TINY = {"channels": 1, "num_layers": 2, "width": 8, "dim": 8}
CODEBOOK = partial(EuclideanCodebook, num_codes=16)
QUANTIZERS = {
    "codebook": CODEBOOK,
    "finite scalar": partial(FiniteScalarQuantizer, levels=(5, 4)),
    "lookup free": partial(LookupFreeQuantizer, num_bits=4, temperature=1.0, entropy_weight=0.003, commitment_weight=0.003),
    "residual": partial(ResidualQuantizer, num_stages=3, stage=partial(CODEBOOK, commitment_weight=0.0)),
}


def make_tokenizer(name: str = "codebook", **settings) -> QuantizedAutoencoder:
    torch.manual_seed(0)
    return QuantizedAutoencoder(QUANTIZERS[name], **TINY | settings)


def random_images(count: int = 2, height: int = 16, width: int = 24, channels: int = 1) -> torch.Tensor:
    return torch.randint(256, (count, channels, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def blocks(count: int = 16) -> torch.Tensor:
    """Images of flat squares in four shades."""
    shades = torch.randint(4, (count, 1, 4, 4), generator=torch.Generator().manual_seed(2)) * 85
    return shades.repeat_interleave(4, 2).repeat_interleave(4, 3).to(torch.uint8)


def train(tokenizer: QuantizedAutoencoder, images: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
    for step in range(steps):
        loss = tokenizer.training_loss(images, step / steps).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("name", QUANTIZERS)
def test_ids_are_those_of_each_image_row_by_row(name):
    tokenizer, images = make_tokenizer(name).eval(), random_images()
    ids, vectors = tokenizer.encode(images), tokenizer.vectors(images)
    assert len(ids) == 48 and ids.shape[1:] == ((3,) if name == "residual" else ()) and vectors.shape == (2, 4, 6, 8)
    at = 24 + 2 * 6 + 5  # second image, row 2, column 5
    assert torch.equal(ids[at : at + 1], tokenizer.quantizer.encode(vectors[1, 2, 5][None]))
    torch.testing.assert_close(tokenizer.vectors(images[1:]), vectors[1:])


@pytest.mark.parametrize("name", QUANTIZERS)
def test_training_reconstructs_flat_squares(name):
    tokenizer, images = make_tokenizer(name), blocks()
    start = tokenizer.eval().training_loss(images, 1.0).parts["reconstruction"].detach()
    train(tokenizer.train(), images, 150)
    step = tokenizer.eval().training_loss(images, 1.0)
    end = step.parts["reconstruction"].detach()
    assert end < 0.15 * start
    ids = tokenizer.encode(images)
    assert torch.equal(step.ids, ids)
    decoded = tokenizer.decode(ids.view(16, 4, 4, *ids.shape[1:]))
    assert torch.nn.functional.mse_loss(decoded, images / 255) <= end + 1e-6  # clamping to [0, 1] only helps


@pytest.mark.parametrize("name", QUANTIZERS)
def test_every_parameter_has_a_gradient(name):
    tokenizer = make_tokenizer(name)
    tokenizer.training_loss(random_images(), 0.5).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in tokenizer.parameters())


def test_the_loss_is_that_of_pixels_and_quantizer():
    tokenizer, images = make_tokenizer().eval(), random_images()
    step = tokenizer.training_loss(images, 0.0)
    vectors = tokenizer.vectors(images).flatten(0, 2)
    codes = tokenizer.quantizer.lookup(tokenizer.quantizer.encode(vectors))
    commitment = (vectors - codes).square().mean()
    assert step.parts["commitment"].item() == pytest.approx(commitment.item(), rel=1e-5)
    assert step.loss.item() == pytest.approx((step.parts["reconstruction"] + 0.25 * commitment).item(), rel=1e-5)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_ids_are_decoded_to_pixels_and_drawn(name):
    tokenizer, images = make_tokenizer(name).eval(), random_images(1)
    ids = tokenizer.encode(images)
    decoded = tokenizer.decode(ids.view(1, 4, 6, *ids.shape[1:]))
    assert decoded.shape == (1, 1, 16, 24) and decoded.min() >= 0 and decoded.max() <= 1
    pictures = PatchGridRenderer((4, 6), min_size=1).render(tokenizer, images[0], ids, ids, torch.zeros(24, dtype=torch.bool))
    assert torch.equal(pictures["tokens decoded"], (decoded[0] * 255).round().to(torch.uint8).expand(3, -1, -1))
    assert torch.equal(pictures["predicted"], pictures["tokens decoded"])


@pytest.mark.parametrize("name", QUANTIZERS)
def test_what_is_saved_is_loaded(name, tmp_path):
    tokenizer, images = make_tokenizer(name), random_images()
    tokenizer.train().training_loss(images, 0.0)
    tokenizer.eval().save_pretrained(tmp_path)
    for loaded in (QuantizedAutoencoder.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))):
        assert loaded.fingerprint() == tokenizer.fingerprint() and loaded.vocab_sizes == tokenizer.vocab_sizes
        assert torch.equal(loaded.encode(images), tokenizer.encode(images))


def test_a_tokenizer_built_from_a_config_is_saved_and_loaded(tmp_path):
    parser = ArgumentParser()
    parser.add_subclass_arguments(QuantizedAutoencoder, "tokenizer")
    stage = {"class_path": "multimodal.tokenizers.quantizers.EuclideanCodebook", "init_args": {"num_codes": 8, "commitment_weight": 0.0}}
    quantizer = {"class_path": "multimodal.tokenizers.quantizers.ResidualQuantizer", "init_args": {"num_stages": 2, "stage": stage}}
    settings = {"class_path": "multimodal.tokenizers.image.QuantizedAutoencoder", "init_args": TINY | {"quantizer": quantizer}}
    tokenizer = parser.instantiate_classes(parser.parse_object({"tokenizer": settings})).tokenizer.eval()
    assert tokenizer.vocab_sizes == (8, 8)
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).fingerprint() == tokenizer.fingerprint()


@pytest.mark.parametrize("images", [random_images(channels=3), random_images(height=18), random_images(width=22)])
def test_other_channels_and_sides_are_refused(images):
    with pytest.raises(ValueError, match="reads 1 channels and sides that 4 divides"):
        make_tokenizer().encode(images)


def test_sizes_below_1_are_refused():
    with pytest.raises(ValueError, match="channels, num_layers, width and dim must be at least 1, got 1, 0, 8 and 8"):
        make_tokenizer(num_layers=0)
