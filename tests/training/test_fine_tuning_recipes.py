"""The recipes of fine-tuning build as they stand, from a model of pretraining, and have the published numbers."""

from pathlib import Path

import pytest
import torch

from multimodal.batch import Sample, collate
from multimodal.lightning_cli import Command, _command
from multimodal.pretrained import ModelSettings, PretrainedModel
from multimodal.pretrained.settings import part
from multimodal.tokenizers.image import ClassificationTransform
from multimodal.training import Mixing
from multimodal.training.callbacks import AveragedWeights
from multimodal.training.optimization import optimization, parameter_groups

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI.s args parameter")

CONFIGS = Path(__file__).resolve().parents[2] / "configs/finetune"
HALF, IMAGENET = ((0.5,), (0.5,)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# name: learning rate, layer decay, drop path, epochs, epochs of warm-up, last learning rate, mean and std
PUBLISHED = {
    "beit_base": (4e-3, 0.65, 0.1, 100, 20, 1e-6, HALF),
    "beit_large": (1e-3, 0.75, 0.2, 50, 5, 1e-6, HALF),
    "beitv2_base": (5e-4, 0.6, 0.2, 100, 20, 1e-6, IMAGENET),
    "beitv2_large": (2e-4, 0.8, 0.2, 50, 5, 1e-6, IMAGENET),
    "mae_base": (2e-3, 0.65, 0.1, 100, 5, 1e-6, IMAGENET),
    "beit_base_one_gpu": (1e-3, 0.65, 0.1, 50, 10, 1e-6, HALF),
}


def save_pretrained(folder: Path, relative: bool) -> None:
    """Save a small model of pretraining for images of 224 pixels."""
    norm = part("multimodal.nn.LayerNorm", eps=1e-6)
    bias = part("multimodal.nn.RelativeBias2d", window=[14, 14]) if relative else None
    encoder = part("multimodal.nn.Encoder", dim=16, depth=2, num_heads=2, norm=norm, bias=bias, class_token=True)
    embed = part("multimodal.tokenizers.image.PatchEmbed", patch_size=16, position=None)
    PretrainedModel(ModelSettings(encoder, {"image": embed})).save_pretrained(folder)


def build(name: str, folder: Path) -> Command:
    """Build the parts of a recipe, from the small model."""
    loaded = [f"--model.init_args.{part}.init_args.folder={folder / 'model'}" for part in ("encoder", "modalities.image.init_args.embed")]
    return _command(["--config", str(CONFIGS / f"{name}.yaml"), *loaded, "--trainer.accelerator=cpu", f"--run={folder}"], run=False)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_numbers(tmp_path, name):
    lr, layer_decay, drop_path, epochs, warm_up, last, (mean, std) = PUBLISHED[name]
    relative = not name.startswith("mae")
    save_pretrained(tmp_path / "model", relative)
    command = build(name, tmp_path)
    model, trainer = command.model, command.trainer

    encoder = model.encoder
    assert encoder.norm is None and encoder.bias is None and encoder.init_args["drop_path"] == drop_path
    assert all((block.attn.position_bias is not None) == relative for block in encoder.blocks)
    head = model.heads["label"]
    assert (head.how, head.num_classes, head.norm.eps) == ("mean", 1000, 1e-6) and head.proj.weight.std().item() < 3e-5
    assert (model.label_smoothing, model.layer_decay) == (0.1, layer_decay)
    assert vars(model.mixing) == vars(Mixing(0.8, 1.0, 1.0, 0.5))

    transform = model.transforms["image"]
    assert isinstance(transform, ClassificationTransform) and (transform.size, transform.evaluation_crop) == (224, 224 / 256)
    assert (tuple(transform.scale), transform.flip, transform.jitter) == ((0.08, 1.0), 0.5, 0.0)
    assert (transform.augment.policy, transform.augment.operations) == ("rand-m9-mstd0.5-inc1", None)
    assert transform.augment.fill == mean and (transform.erase.mean, transform.erase.std) == (mean, std)
    assert transform.erase.probability == 0.25

    assert trainer.max_epochs == epochs and trainer.gradient_clip_val is None
    batch = 1024 if not name.endswith("one_gpu") else 256
    devices = 8 if batch == 1024 else 1
    assert devices * command.datamodule.batch_size * trainer.accumulate_grad_batches == batch
    assert any(isinstance(callback, AveragedWeights) for callback in trainer.callbacks) == name.endswith("one_gpu")

    steps = 10 * epochs
    built = optimization(parameter_groups(model, layer_decay, encoder.depth), model.make_optimizer, model.make_schedule, steps)
    optimizer, schedule = built["optimizer"], built["lr_scheduler"]["scheduler"]
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.999)}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}
    rates = [max(group["lr"] for group in optimizer.param_groups)]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        rates.append(max(group["lr"] for group in optimizer.param_groups))
    assert max(rates) == pytest.approx(lr) and rates.index(max(rates)) == 10 * warm_up
    assert rates[-1] == pytest.approx(last)


def test_every_recipe_of_a_published_model_is_checked():
    assert {path.stem for path in CONFIGS.glob("*.yaml") if "num_classes: 1000" in path.read_text()} == set(PUBLISHED)


def test_a_step_of_a_recipe_gives_every_weight_a_gradient(tmp_path):
    save_pretrained(tmp_path / "model", True)
    model = build("beit_base", tmp_path).model
    transform, samples = model.transforms["image"], []
    for number in range(2):
        image = torch.randint(256, (3, 100, 120), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        samples.append(Sample(str(number), {"image": transform(image, torch.Generator().manual_seed(number), True)}, {"label": number}))
    model.log = lambda *args, **kwargs: None
    loss = model.training_step(collate(samples), 0)
    loss.backward()
    assert loss.item() / 2 == pytest.approx(6.908, abs=0.01)  # log of 1000: the head begins near 0
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
