"""The encoder of a run can be taken away."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import yaml

from multimodal.batch import Sample, collate
from multimodal.cli import main
from multimodal.masking import RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Attention, Encoder, RelativeBias2d
from multimodal.pretrained import Origin, from_pretrained, load_encoder
from multimodal.pretrained.commands import is_run, model_of_run
from multimodal.pretrained.from_training import model_of
from multimodal.tokenizers.image import DiscreteVAE, ImageTransform, PatchEmbed
from multimodal.training import MaskedPretraining


def training_module() -> MaskedPretraining:
    torch.manual_seed(0)
    encoder = Encoder(
        dim=32, depth=2, num_heads=4, attention=partial(Attention, bias="query_value"), bias=partial(RelativeBias2d, window=(3, 3))
    )
    image = partial(
        Modality,
        transform=ImageTransform(size=48, tokenizer_size=24),
        embed=partial(PatchEmbed, patch_size=16, position=None),
        masking=RandomMasking(0.5),
        tokenizer=DiscreteVAE(num_tokens=8, width=4, codebook_dim=4),
    )
    return MaskedPretraining(encoder, {"image": image}).eval()


def test_a_training_module_becomes_a_model_that_computes_the_same(images, tmp_path):
    module = training_module()
    model = model_of(module)
    assert sorted(model.heads) == ["tokens"]
    assert not any("tokenizer" in name for name in model.state_dict())
    item = ImageTransform(size=48, tokenizer_size=24)(images[0], torch.Generator(), False)
    batch = collate([Sample("a", {"image": item})])
    with torch.no_grad():
        expected = module.features(batch, "image")
        torch.testing.assert_close(model.forward_features(batch.items["image"].values).mean(1), expected)
        model.save_pretrained(tmp_path)
        assert torch.equal(from_pretrained(tmp_path).forward_features(images), model.forward_features(images))


def test_weights_are_copied_not_shared():
    module = training_module()
    model = model_of(module)
    with torch.no_grad():
        module.encoder.blocks[0].norm1.weight.fill_(7)
    assert not (model.encoder.blocks[0].norm1.weight == 7).any()


def test_a_module_without_encoder_is_refused():
    with pytest.raises(ValueError, match="a Linear has no encoder to take away"):
        model_of(torch.nn.Linear(2, 2))


def test_the_licence_stays_with_what_is_made_of_the_weights(image_model, tmp_path):
    origin = Origin("mae", "mae", "CC-BY-NC 4.0 (non-commercial)", "https://github.com/facebookresearch/mae", "mae.pth", "ab" * 32)
    image_model.settings = replace(image_model.settings, origin=origin)
    image_model.save_pretrained(tmp_path / "published")
    module = training_module()
    module.encoder = load_encoder(str(tmp_path / "published"))
    model_of(module).save_pretrained(tmp_path / "own")
    card = (tmp_path / "own" / "README.md").read_text()
    assert "Licence of those weights: CC-BY-NC 4.0 (non-commercial)" in card
    assert "license: cc-by-nc" in card
    assert "ab" * 32 in card


CONFIG = """
model:
  class_path: multimodal.training.MaskedPretraining
  init_args:
    encoder:
      dim: 32
      depth: 2
      num_heads: 2
      mlp:
        class_path: multimodal.nn.SwiGlu
        init_args:
          hidden_dim: 48
    modalities:
      image:
        class_path: multimodal.modality.Modality
        init_args:
          transform:
            class_path: multimodal.tokenizers.image.ImageTransform
            init_args: {size: 48, tokenizer_size: 24}
          embed:
            class_path: multimodal.tokenizers.image.PatchEmbed
            init_args: {patch_size: 16}
          masking: multimodal.masking.RandomMasking
          tokenizer:
            class_path: multimodal.tokenizers.image.DiscreteVAE
            init_args: {num_tokens: 8, width: 4, codebook_dim: 4}
data:
  class_path: multimodal.datamodules.shard_datamodule.ShardDataModule
  init_args:
    shards: SHARDS
    batch_size: 4
    num_workers: 0
trainer:
  max_steps: 2
  accelerator: cpu
  limit_val_batches: 0
run: RUN
"""


def write_shards(folder):
    from PIL import Image

    for split in ("train", "val", "test"):
        (folder / "raw" / split).mkdir(parents=True)
        for i in range(4):
            pixels = torch.randint(0, 256, (40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
            Image.fromarray(pixels.numpy()).save(folder / "raw" / split / f"{split}{i}.png")
    assert main(["shards", "write", str(folder / "raw"), "--to", str(folder / "shards"), "--split", "folders"]) == 0


def test_a_run_is_exported_and_started_from_again(tmp_path, images, capsys):
    write_shards(tmp_path)
    text = CONFIG.replace("SHARDS", str(tmp_path / "shards")).replace("RUN", str(tmp_path / "run"))
    (tmp_path / "config.yaml").write_text(text)
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 0
    assert is_run(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--format", "multimodal", "--to", str(tmp_path / "own")]) == 0
    model = from_pretrained(tmp_path / "own")
    assert torch.equal(model.forward_features(images), model_of_run(tmp_path / "run").forward_features(images))
    assert model.transform().size == 48

    again = yaml.safe_load(text)
    settings = again["model"]["init_args"]
    settings["encoder"] = {"class_path": "multimodal.pretrained.load_encoder", "init_args": {"folder": str(tmp_path / "own")}}
    settings["modalities"]["image"]["init_args"]["embed"] = {
        "class_path": "multimodal.pretrained.load_embed",
        "init_args": {"folder": str(tmp_path / "own"), "modality": "image"},
    }
    again["run"] = str(tmp_path / "second")
    again["model"]["init_args"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(again))
    assert main(["fit", "--config", str(tmp_path / "again.yaml")]) == 0
    second = model_of_run(tmp_path / "second")
    assert torch.equal(second.forward_features(images), model.forward_features(images))
