"""Tables at another resolution, against SciPy, timm and what must hold."""

import pytest
import torch
from torch.nn import functional as F

from multimodal.nn import RelativeBias2d
from multimodal.pretrained.resize import growth, resize_grid, resize_patches, resize_relative


@pytest.mark.parametrize("new, published", [(47, 1.0903), (63, 1.1349), (79, 1.1685)])
def test_the_geometric_progression_is_that_of_beit(new, published):
    ratio = growth(27, new)
    assert ratio == pytest.approx(published, abs=5e-5)
    assert sum(ratio**i for i in range(13)) == pytest.approx(new // 2, abs=1e-3)


def published_resampling(table, old, new):
    """BEiT's, one head at a time, with the spline that replaces SciPy's removed ``interp2d``."""
    interpolate = pytest.importorskip("scipy.interpolate")
    rows, columns = (2 * extent - 1 for extent in old)
    to_rows, to_columns = (2 * extent - 1 for extent in new)

    def places(before, after):
        if before == after:
            return [i - before // 2 for i in range(before)]
        distances, reached = [], 1.0
        for i in range(before // 2):
            distances.append(reached)
            reached += growth(before, after) ** (i + 1)
        return [-distance for distance in reversed(distances)] + [0.0] + distances

    heads = []
    for values in table[:-3].T:
        spline = interpolate.RectBivariateSpline(
            places(rows, to_rows), places(columns, to_columns), values.view(rows, columns).double().numpy()
        )
        at = [[i - count // 2 for i in range(count)] for count in (to_rows, to_columns)]
        heads.append(torch.from_numpy(spline(*at)).flatten())
    return torch.cat([torch.stack(heads, 1).float(), table[-3:]])


@pytest.mark.parametrize("old, new", [((14, 14), (24, 24)), ((14, 14), (40, 40)), ((4, 6), (7, 6)), ((3, 3), (5, 8)), ((5, 5), (3, 4))])
def test_a_relative_bias_is_resampled_as_by_scipy(old, new):
    torch.manual_seed(0)
    table = torch.randn((2 * old[0] - 1) * (2 * old[1] - 1) + 3, 2)
    resized = resize_relative(table, old, new)
    assert resized.shape == RelativeBias2d(2, new).table.shape and resized.dtype == table.dtype
    torch.testing.assert_close(resized, published_resampling(table, old, new), atol=1e-4, rtol=1e-4)
    assert torch.equal(resized[-3:], table[-3:])


def test_a_smooth_relative_bias_is_what_it_was_near_the_query():
    """A cubic is met exactly, whatever the knots: so is its value at every difference, read with the published places."""
    extent, to = 7, 11
    ratio = growth(2 * extent - 1, 2 * to - 1)
    half = [sum(ratio**i for i in range(n)) for n in range(extent)]
    at = torch.tensor([-x for x in reversed(half[1:])] + half, dtype=torch.float64)
    cubic = lambda x: 1 + x / 5 - x**2 / 50 + x**3 / 700  # noqa: E731
    table = torch.cat([(cubic(at)[:, None] * cubic(-at)).view(-1, 1), torch.zeros(3, 1)])
    whole = torch.arange(2 * to - 1, dtype=torch.float64) - (to - 1)
    inside = whole.abs() <= at.max()
    resized = resize_relative(table, (extent, extent), (to, to))[:-3].view(2 * to - 1, 2 * to - 1)
    torch.testing.assert_close(resized[inside][:, inside], (cubic(whole)[:, None] * cubic(-whole))[inside][:, inside])


def test_a_window_that_stays_keeps_its_table():
    table = torch.randn(9 * 9 + 3, 4)
    assert torch.equal(resize_relative(table, (5, 5), (5, 5)), table)
    assert resize_relative(torch.randn(81, 4), (5, 5), (7, 7), num_special=0).shape == (169, 4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((torch.zeros(84, 2), (5, 6), (7, 7)), r"84 rows is not of a window of \(5, 6\), which has 102"),
        ((torch.zeros(12, 2), (2, 2), (7, 7)), "too small for a cubic"),
        ((torch.zeros(12, 2), (2,), (7, 7)), "a window must be rows and columns"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        resize_relative(*arguments)


@pytest.mark.parametrize("old, new", [((14, 14), (24, 24)), ((7, 5), (3, 9))])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_absolute_positions_are_resampled_as_by_timm(old, new, mode):
    timm = pytest.importorskip("timm.layers.pos_embed")
    table = torch.randn(old[0] * old[1], 6)
    theirs = timm.resample_abs_pos_embed(table[None], new, old, num_prefix_tokens=0, interpolation=mode, antialias=False)[0]
    torch.testing.assert_close(resize_grid(table, old, new, mode), theirs)


def test_a_sequence_of_positions_is_resampled_linearly():
    table = torch.arange(5.0)[:, None].expand(5, 3)
    made = resize_grid(table, (5,), (9,), align_corners=True)
    torch.testing.assert_close(made, torch.linspace(0, 4, 9)[:, None].expand(9, 3))
    assert torch.equal(resize_grid(table, (5,), (5,)), table)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((torch.zeros(12, 2), (3, 5), (4, 4)), r"12 rows is not of a grid of \(3, 5\), which has 15 places"),
        ((torch.zeros(8, 2), (2, 2, 2), (4, 4, 4)), "along one axis or two"),
        ((torch.zeros(8, 2), (8,), (4, 2)), "along one axis or two"),
        ((torch.zeros(8, 2), (8,), (0,)), "at least 1 long"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        resize_grid(*arguments)


@pytest.mark.parametrize("new", [(8, 8), (24, 24), (14, 20)])
def test_patch_weights_are_resampled_as_by_timm(new):
    timm = pytest.importorskip("timm.layers.patch_embed")
    weight = torch.randn(5, 3, 16, 16)
    torch.testing.assert_close(resize_patches(weight, new), timm.resample_patch_embed(weight, list(new)), atol=1e-4, rtol=1e-3)


def test_larger_patches_of_a_larger_image_give_the_same_tokens():
    weight, image = torch.randn(5, 3, 4, 4), torch.rand(1, 3, 12, 12)
    patches = F.unfold(image, 4, stride=4).transpose(1, 2).reshape(-1, 3, 4, 4)
    larger = F.interpolate(patches, size=(8, 8), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(
        torch.einsum("ochw,nchw->no", resize_patches(weight, (8, 8)), larger),
        torch.einsum("ochw,nchw->no", weight, patches),
        atol=1e-4,
        rtol=1e-4,
    )
    assert torch.equal(resize_patches(weight, (4, 4)), weight)
    with pytest.raises(ValueError, match="size must be height and width"):
        resize_patches(weight, (8,))
