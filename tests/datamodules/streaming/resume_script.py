"""Train a toy model on images and music from shards, noting every step; as a script, in as many processes as asked for.

``torchrun --nproc-per-node 2 resume_script.py '[{"shards": ..., "folder": ..., ...}, ...]'`` runs ``train`` with each of the arguments.
"""

import io
import json
import os
import random
import sys
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from PIL import Image

from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.datamodules.shards.cache import ShardCache
from multimodal.datamodules.shards.contents import Contents
from multimodal.datamodules.shards.index import ShardIndex, field_info
from multimodal.datamodules.shards.shard_file import ShardFile
from multimodal.datamodules.streaming.mixture import Mixture
from multimodal.masking import MaskReplaceKeep, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder, RotaryPosition
from multimodal.tokenizers.image import DiscreteVAE, ImageTransform, PatchEmbed
from multimodal.tokenizers.midi import CompoundEmbed, MidiTransform, write_notes
from multimodal.training import MaskedPretraining
from multimodal.training.callbacks.elastic_resume import ElasticResume
from multimodal.training.callbacks.step_seed import StepSeed
from multimodal.training.token_counter import ModalityTokenCounter


def make_shards(folder: Path, images: int = 14, tunes: int = 12, both: int = 11) -> str:
    """Write shards of pictures, tunes, and pairs of them with one key; return their folder."""
    folder.mkdir()
    rng, samples = np.random.default_rng(0), []
    for number in rng.permutation(images + tunes + both).tolist():
        fields = {"json": b"{}"}
        if number < images or number >= images + tunes:
            data = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).save(data, "PNG")
            fields["png"] = data.getvalue()
        if number >= images:
            count = int(rng.integers(8, 20))
            notes = np.stack([np.arange(count) * 240, rng.integers(40, 80, count), np.full(count, 240), np.full(count, 80)], 1)
            fields["mid"] = write_notes(torch.from_numpy(notes))
        samples.append((f"{number:03d}", fields))
    contents, shards = Contents(), []
    for start in range(0, len(samples), 5):
        with ShardFile(folder / f"train-{start // 5:06d}.tar") as shard:
            for key, fields in samples[start : start + 5]:
                shard.add(key, fields)
        contents.merge(shard.contents)
        shards.append(shard.info)
    ShardIndex({"train": shards}, field_info(contents.fields, contents.field_bytes)).save(folder)
    return str(folder)


def build_model() -> MaskedPretraining:
    """Return a small model that draws random numbers in every step (stochastic depth)."""
    torch.manual_seed(0)
    image = partial(
        Modality,
        transform=ImageTransform(size=8, channels=1),
        embed=partial(PatchEmbed, patch_size=4, channels=1, mean=[0.5], std=[0.5]),
        tokenizer=DiscreteVAE(num_tokens=11, channels=1, num_layers=2, width=4, codebook_dim=4),
        masking=RandomMasking(0.5),
    )
    midi = partial(
        Modality,
        transform=MidiTransform(max_notes=10, transpose=3),
        embed=CompoundEmbed,
        masking=RandomMasking(0.3),
        corruption=MaskReplaceKeep(),
    )
    encoder = Encoder(dim=16, depth=2, num_heads=2, drop_path=0.3, rotary=RotaryPosition)
    return MaskedPretraining(encoder, {"image": image, "midi": midi})


class Notes(L.Callback):
    """Write a line for every training step (what was read, loss, draws of each generator), and the keys of every validation batch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        seeds = {name: items.seed.tolist() for name, items in batch.items.items()}
        draws = [float(np.random.rand()), random.random(), float(torch.rand(()))]
        loss = None if outputs is None else float(outputs["loss"]).hex()
        line = {"epoch": trainer.current_epoch, "batch": batch_idx, "keys": batch.keys, "seeds": seeds, "loss": loss, "draws": draws}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        if not trainer.sanity_checking:
            with self.path.with_name(f"validation.{trainer.global_rank}.jsonl").open("a") as file:
                file.write(json.dumps({"epoch": trainer.current_epoch, "keys": batch.keys}) + "\n")


def train(
    shards: list[str],
    folder: str,
    steps: int,
    checkpoint: str | None = None,
    num_workers: int = 0,
    devices: int = 1,
    batch_size: int = 4,
    accumulate: int = 1,
    ema: bool = False,
    weights: list[float] | None = None,
    max_tokens: int | None = None,
    every: int = 1,
    validate: bool = False,
) -> MaskedPretraining:
    """Train up to a step, from a checkpoint if there is one, with a checkpoint every few steps."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    model = build_model()
    by_tokens = {"max_tokens": max_tokens, "count_tokens": ModalityTokenCounter(dict(model.modalities.items()))} if max_tokens else {}
    data = ShardDataModule(
        shards,
        model.transforms,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=3,
        shuffle_buffer=9,
        mixture=Mixture(weights) if weights else None,
        val_split="train" if validate else None,
        cache=ShardCache(str(root / "cache")),
        **by_tokens,
    )
    rank = int(os.environ.get("LOCAL_RANK", 0))
    callbacks = [StepSeed(7), ElasticResume(), Notes(root / f"steps.{rank}.jsonl")]
    if every:
        callbacks.append(ModelCheckpoint(root / "checkpoints", filename="{step:03d}", save_top_k=-1, every_n_train_steps=every))
    callbacks += [EMAWeightAveraging(decay=0.9)] if ema else []
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=10,
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        callbacks=callbacks,
        default_root_dir=root,
        logger=False,
        enable_checkpointing=bool(every),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    state = {name: value for name, value in model.state_dict().items() if "scores" not in name}
    torch.save({"weights": state, "optimizer": trainer.optimizers[0].state_dict()}, root / f"final.{rank}.pt")
    return model


if __name__ == "__main__":
    for arguments in json.loads(sys.argv[1]):
        train(**arguments)
