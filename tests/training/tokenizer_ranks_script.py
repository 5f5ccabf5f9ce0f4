"""Train VQ-KD on two processes, one of whose batches is empty: ``torchrun ... tokenizer_ranks_script.py FOLDER``.

Each rank writes its tokenizer to ``FOLDER/<rank>.pt``.
"""

import importlib.util
import sys
from pathlib import Path

import lightning as L
import torch

spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("test_tokenizer_training.py"))
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)


class Parts(L.LightningDataModule):
    """Each rank has its own batch; the second one of rank 1 is empty."""

    def train_dataloader(self):
        batches, rank = toy.make_batches(), self.trainer.global_rank
        return torch.utils.data.DataLoader([batches[rank], toy.collate([]) if rank else batches[0], batches[1 - rank]], batch_size=None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", use_distributed_sampler=False, max_epochs=2, default_root_dir=sys.argv[1], **quiet
    )
    training = toy.make_distillation()
    trainer.fit(training, Parts())
    torch.save(training.tokenizer.state_dict(), Path(sys.argv[1]) / f"{trainer.global_rank}.pt")
