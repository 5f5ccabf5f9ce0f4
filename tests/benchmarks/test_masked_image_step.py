"""The models that are timed compute the same, and ours less where that is claimed."""

from dataclasses import replace

import pytest
import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import masked_image_step
from benchmarks.masked_image_models import OurBeit, Size, VisibleBeit, make_work

SMALL = Size(dim=128, depth=2, num_heads=2, image=64, vocab=50)


@pytest.fixture
def models():
    return masked_image_step.make_models(SMALL)


@pytest.fixture
def work():
    return make_work(SMALL, batch=3, mask_ratio=0.4)


def flops_of(model, work) -> int:
    with FlopCounterMode(display=False) as counter:
        model(work).backward()
    return counter.get_total_flops()


def test_all_models_have_the_same_loss(models, work):
    assert len(models) == 4
    assert masked_image_step.check_same(models, work, torch.float32).startswith("same loss")
    masked_image_step.check_same(models, work, torch.bfloat16)


@pytest.mark.parametrize(
    "name", ["encoder.bias.table", "embed.mask_token", "encoder.special.tokens", "encoder.blocks.1.attn.query_value_bias"]
)
def test_every_part_of_a_model_counts_in_the_comparison(models, work, name):
    torch.nn.init.normal_(models["ours"].get_parameter(name), std=5.0)
    with pytest.raises(ValueError, match=r"the losses differ by .* 1e-04 is allowed"):
        masked_image_step.check_same(models, work, torch.float32)


def test_gradients_are_those_of_the_peers_too(models, work):
    for model in models.values():
        model(work).backward()
    ours, peer = models["ours"].encoder.bias.table.grad, models["timm, masked head"].model.rel_pos_bias.relative_position_bias_table.grad
    torch.testing.assert_close(ours, peer, atol=1e-6, rtol=1e-3)
    assert ours.abs().max() > 1e-5


def test_each_image_hides_the_same_number_of_patches(work):
    assert work.masked.sum(1).tolist() == [6, 6, 6] and len(work.ids) == 18
    assert not torch.equal(work.masked[0], work.masked[1])


def test_the_head_is_run_on_hidden_patches_only(models, work):
    patches, hidden = work.masked.numel(), int(work.masked.sum())
    spared = 3 * 2 * (patches - hidden) * SMALL.dim * SMALL.vocab
    flops = {name: flops_of(model, work) for name, model in models.items() if name != "transformers, its default (SDPA)"}
    assert flops["transformers, eager"] - flops["ours"] >= spared


def test_an_encoder_of_visible_patches_does_less(work):
    deep = replace(SMALL, depth=6)
    visible = VisibleBeit(deep, readout_depth=1)
    assert flops_of(visible, work) < 0.8 * flops_of(OurBeit(deep), work)
    assert all(parameter.grad is not None for name, parameter in visible.named_parameters() if name != "embed.mask_token")


def test_the_script_prints_both_tables_for_each_precision():
    shown = []
    masked_image_step.main(["--depth", "1", "--dim", "128", "--image", "32", "--batch", "2", "--rounds", "1"], shown.append)
    titles = [table.title for table in shown if isinstance(table, Table)]
    assert len(titles) == 4 and [title.rsplit(", ")[-1] for title in titles] == ["float32", "float32", "bfloat16", "bfloat16"]
    assert "timm 1" in shown[-1]
