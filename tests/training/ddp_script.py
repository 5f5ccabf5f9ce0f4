"""Train the toy model in ``sys.argv[2]`` processes and save the weights of each into the folder ``sys.argv[1]``.

``sys.argv[3]``, if given, is what happens to the last process: "nan": its second loss is NaN; "empty": its batches are empty.
"""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch

from multimodal.training.callbacks import FiniteGuard

spec = importlib.util.spec_from_file_location("toy", Path(__file__).parent / "conftest.py")
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)


FAULT = sys.argv[3] if len(sys.argv) > 3 else None


class Faulty(toy.MaskedPretraining):
    """Its second loss is NaN on rank 1."""

    def _terms(self, batch, stage):
        terms = super()._terms(batch, stage)
        if self.trainer.global_rank == 1 and self.trainer.global_step == 1:
            terms["pairs", 0] = replace(terms["pairs", 0], loss=terms["pairs", 0].loss * torch.nan)
        return terms


class Parts(L.LightningDataModule):
    """Rank 0 of two gets the samples with pictures alone, rank 1 all others."""

    def train_dataloader(self):
        samples = toy.make_samples()
        parts = [[s for s in samples if set(s.items) == {"picture"}], [s for s in samples if set(s.items) != {"picture"}]]
        rank = self.trainer.global_rank
        mine = samples if self.trainer.world_size == 1 else parts[rank]
        if FAULT == "empty" and self.trainer.world_size > 1:
            mine = [] if rank == 1 else samples
        return torch.utils.data.DataLoader([toy.collate(mine)] * 3, batch_size=None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    devices = int(sys.argv[2])
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    strategy = "ddp" if devices > 1 else "auto"
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        use_distributed_sampler=False,
        max_epochs=1,
        callbacks=[FiniteGuard()],
        **quiet,
    )
    model = toy.build_model(optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    if FAULT == "nan":
        model.__class__ = Faulty
    trainer.fit(model, Parts())
    state = {key: value for key, value in model.state_dict().items() if value.is_floating_point() and "scores" not in key}
    torch.save(state, Path(sys.argv[1]) / f"{devices}_{trainer.global_rank}.pt")
