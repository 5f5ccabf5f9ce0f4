"""The fused optimizer steps as PyTorch's loop does, can be clipped in mixed precision, and goes on from a checkpoint of the loop."""

from copy import deepcopy

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.optim import AdamW

from multimodal.training import FusedAdamW


def train(model, optimizer, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=generator)).square().sum().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def test_it_steps_as_the_loop_does():
    fused, loop = make_net(), make_net()
    own = train(fused, FusedAdamW(fused.parameters(), 1e-2, (0.8, 0.99), 1e-6, 0.3), 5)
    other = train(loop, AdamW(loop.parameters(), 1e-2, (0.8, 0.99), 1e-6, 0.3, fused=False, foreach=False), 5)
    torch.testing.assert_close(own, other, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(own[0], make_net()[0].weight, atol=1e-3)


def test_a_checkpoint_of_the_loop_goes_on():
    straight, first, second = make_net(), make_net(), make_net()
    expected = train(straight, AdamW(straight.parameters(), 1e-2), 4)
    loop = AdamW(first.parameters(), 1e-2)
    train(first, loop, 4)
    fused = FusedAdamW(second.parameters(), 1e-2)
    second.load_state_dict(first.state_dict())
    fused.load_state_dict(deepcopy(loop.state_dict()))  # which shares its tensors
    torch.testing.assert_close(train(second, fused, 3), train(first, loop, 3))
    assert not torch.equal(expected[0], second[0].weight)


def precisions():
    return {"bfloat16": "bf16-mixed", "float16": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_gradients_are_clipped_in_mixed_precision(tmp_path, make_model, mixed_samples, loader, precision):
    model = make_model(optimizer=FusedAdamW)
    seen = []

    class Norms(L.Callback):
        def on_before_zero_grad(self, trainer, module, optimizer):
            gradients = [parameter.grad.norm() for parameter in module.parameters() if parameter.grad is not None]
            seen.extend([float(torch.stack(gradients).norm())] if gradients else [])

    chosen = precisions()[precision]
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=3,
        default_root_dir=tmp_path,
        gradient_clip_val=1e-3,
        callbacks=[Norms()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **({"precision": chosen} if isinstance(chosen, str) else {"plugins": [chosen]}),
    )
    before = model.encoder.blocks[0].attn.qkv.weight.detach().clone()
    trainer.fit(model, loader([mixed_samples] * 4))
    assert seen and all(norm == pytest.approx(1e-3, rel=0.02) for norm in seen)
    assert not torch.equal(before, model.encoder.blocks[0].attn.qkv.weight)


def test_of_pytorchs_own_lightning_refuses_it(tmp_path, make_model, mixed_samples, loader):
    """Where this fails, ``FusedAdamW`` is no longer needed."""
    model = make_model(optimizer=lambda groups: AdamW(groups, fused=True))
    trainer = L.Trainer(
        accelerator="cpu", max_steps=1, default_root_dir=tmp_path, gradient_clip_val=1.0, precision="bf16-mixed", logger=False
    )
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        trainer.fit(model, loader([mixed_samples]))
