"""The discrete VAE: ids lie where their patches lie, training lowers the loss and spreads the ids."""

import math

import pytest
import torch

from multimodal.tokenizers.image import DiscreteVAE

TINY = {"num_tokens": 16, "channels": 1, "num_layers": 2, "width": 8, "codebook_dim": 8}


def make_tokenizer(**settings) -> DiscreteVAE:
    torch.manual_seed(0)
    return DiscreteVAE(**TINY | settings)


def random_images(count: int = 2, height: int = 16, width: int = 24, channels: int = 1) -> torch.Tensor:
    return torch.randint(256, (count, channels, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def blocks(count: int = 16) -> torch.Tensor:
    """Images of flat squares in four shades."""
    shades = torch.randint(4, (count, 1, 4, 4), generator=torch.Generator().manual_seed(2)) * 85
    return shades.repeat_interleave(4, 2).repeat_interleave(4, 3).to(torch.uint8)


def train(tokenizer: DiscreteVAE, images: torch.Tensor, steps: int) -> list[float]:
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
    losses = []
    for step in range(steps):
        loss = tokenizer.training_loss(images, step / steps).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_ids_are_those_of_each_image_row_by_row():
    tokenizer, images = make_tokenizer(), random_images()
    ids, logits = tokenizer.encode(images), tokenizer.logits(images)
    assert logits.shape == (2, 16, 4, 6) and ids.shape == (48,)
    assert ids[24 + 2 * 6 + 5] == logits[1, :, 2, 5].argmax()  # second image, row 2, column 5
    assert torch.equal(ids[24:], tokenizer.encode(images[1:]))


@pytest.mark.parametrize(("rows", "columns"), [((0, 4), (0, 4)), ((12, 16), (20, 24)), ((0, 4), (20, 24))])
def test_a_changed_corner_changes_the_scores_near_it(rows, columns):
    tokenizer, images = make_tokenizer(), random_images(1, 32, 48)
    other = images.clone()
    other[:, :, slice(*rows), slice(*columns)] = 255 - other[:, :, slice(*rows), slice(*columns)]
    change = (tokenizer.logits(images) - tokenizer.logits(other)).abs().amax(1)[0]
    row, column = rows[0] // 4, columns[0] // 4
    near, reached = ((slice(max(row - k, 0), row + k + 1), slice(max(column - k, 0), column + k + 1)) for k in (1, 3))
    assert change[near].max() == change.max() and change[near].square().sum() > 0.9 * change.square().sum()
    change[reached] = 0
    assert change.max() < 1e-6


def test_decoding_gives_pixels_of_the_whole_image():
    decoded = make_tokenizer().decode(torch.randint(16, (2, 4, 6)))
    assert decoded.shape == (2, 1, 16, 24)
    assert decoded.min() >= 0 and decoded.max() <= 1


def test_training_reconstructs_flat_squares_with_several_ids():
    tokenizer, images = make_tokenizer(), blocks()
    start = tokenizer.eval().training_loss(images, 1.0).parts["reconstruction"]
    losses = train(tokenizer.train(), images, 250)
    tokenizer.eval()
    end = tokenizer.training_loss(images, 1.0).parts["reconstruction"]
    assert end < 0.1 * start
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    ids = tokenizer.encode(images)
    assert len(ids.unique()) >= 4
    decoded = tokenizer.decode(ids.view(16, 4, 4))
    assert torch.nn.functional.mse_loss(decoded, images / 255) <= end + 1e-6  # clamping to [0, 1] only helps


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 2.0), (0.5, 1.25), (1.0, 0.5)])
def test_temperature_falls_along_a_cosine(progress, expected):
    parts = make_tokenizer(temperature=(2.0, 0.5)).training_loss(random_images(), progress).parts
    assert parts["temperature"].item() == pytest.approx(expected)


def test_kl_is_that_of_the_mean_use_to_uniform():
    tokenizer = make_tokenizer(num_tokens=4, kl_weight=0.5)
    use = torch.tensor([0.5, 0.25, 0.125, 0.125])
    tokenizer.encoder[-1].weight.data.zero_()
    tokenizer.encoder[-1].bias.data.copy_(use.log())
    loss = tokenizer.training_loss(random_images(), 0.0)
    by_hand = math.log(4) - (0.5 * math.log(2) + 0.25 * math.log(4) + 2 * 0.125 * math.log(8))
    assert loss.parts["kl"].item() == pytest.approx(by_hand, rel=1e-5)
    assert loss.loss.item() == pytest.approx((loss.parts["reconstruction"] + 0.5 * by_hand).item(), rel=1e-5)


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_kl_ignores_how_sure_single_choices_are(axis):
    """Halves of a batch, of the rows or of the columns that choose different ids for sure use the codebook evenly."""
    tokenizer = make_tokenizer(num_tokens=2)
    sure = torch.tensor([50.0, -50.0])[None, :, None, None].expand(2, 2, 2, 2)  # b v h w
    sign = torch.tensor([1.0, -1.0]).view([2 if i == axis else 1 for i in range(4)])
    tokenizer.logits = lambda pixels: sure * sign
    assert tokenizer.training_loss(random_images(2, 8, 8), 0.0).parts["kl"].item() == pytest.approx(0.0, abs=1e-6)


def test_evaluation_draws_nothing():
    tokenizer = make_tokenizer()
    noisy = [tokenizer.train().training_loss(random_images(), 0.5).loss for _ in range(2)]
    exact = [tokenizer.eval().training_loss(random_images(), 0.5).loss for _ in range(2)]
    assert noisy[0] != noisy[1] and exact[0] == exact[1]


def test_every_parameter_has_a_gradient():
    tokenizer = make_tokenizer()
    tokenizer.training_loss(random_images(), 0.5).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in tokenizer.parameters())


@pytest.mark.parametrize("images", [random_images(channels=3), random_images(height=18), random_images(width=22)])
def test_other_channels_and_sides_are_refused(images):
    with pytest.raises(ValueError, match="reads 1 channels and sides that 4 divides"):
        make_tokenizer().encode(images)
