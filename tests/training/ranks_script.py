"""Train the toy models in several ways: ``torchrun ... ranks_script.py FOLDER JSON``; JSON is a list of settings of ``train``.

``train`` writes the floating-point weights to ``FOLDER/<name>.safetensors`` and the loss of each step to ``FOLDER/<name>.json``.
"""

import importlib.util
import json
import sys
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from multimodal.training.callbacks import FiniteGuard
from multimodal.training.checkpoint_files import CheckpointFiles

spec = importlib.util.spec_from_file_location("toy", Path(__file__).parent / "conftest.py")
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)


class Parts(L.LightningDataModule):
    """Rank 0 of two gets the samples with pictures alone, rank 1 all others; one batch of each epoch is empty on rank 1."""

    def __init__(self, labelled):
        super().__init__()
        self.samples = toy.make_labelled_samples() if labelled else toy.make_samples()

    def train_dataloader(self):
        samples, rank = self.samples, self.trainer.global_rank
        parts = [[s for s in samples if set(s.items) == {"picture"}], [s for s in samples if set(s.items) != {"picture"}]]
        if self.trainer.world_size == 1:
            batches = [samples, samples, parts[0]]
        else:
            batches = [parts[rank], parts[rank], parts[0] if rank == 0 else []]
        return torch.utils.data.DataLoader([toy.collate(batch) for batch in batches], batch_size=None)

    val_dataloader = train_dataloader
    predict_dataloader = train_dataloader


class Losses(L.Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(float(trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="sum")))


def make_strategy(name, ranks, whole_files):
    if name == "sharded":
        return ModelParallelStrategy(data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=not whole_files)
    return name if ranks > 1 else "auto"


def train(folder, name, ranks, strategy="ddp", kind="model", epochs=1, clip=None, resume=None, keep=None, whole_files=False, **settings):
    losses = Losses()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=make_strategy(strategy, ranks, whole_files),
        plugins=None if strategy == "sharded" else [CheckpointFiles()],
        use_distributed_sampler=False,
        max_epochs=epochs,
        gradient_clip_val=clip,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FiniteGuard(), losses],
    )
    build = toy.build_model if kind == "model" else toy.build_classifier
    optimizer = {"optimizer": lambda groups: torch.optim.AdamW(groups, lr=0.01)}
    optimizer["schedule"] = lambda made, _: torch.optim.lr_scheduler.ConstantLR(made, 0.5, total_iters=4)  # does not know the run's end
    model = build(**optimizer, **settings)
    trainer.fit(model, Parts(kind != "model"), ckpt_path=resume and f"{folder}/{resume}")
    scores = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    if keep:
        trainer.save_checkpoint(f"{folder}/{keep}")
    if kind != "model":
        trainer.predict(model, datamodule=Parts(True))
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if trainer.is_global_zero:
        Path(folder, f"{name}.json").write_text(json.dumps({"losses": losses.values, "scores": scores}))
        save_file(
            {k: v.contiguous() for k, v in state.items() if v.is_floating_point() and "scores" not in k}, f"{folder}/{name}.safetensors"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in json.loads(sys.argv[2]):
        train(sys.argv[1], **case)
