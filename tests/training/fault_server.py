"""Start runs of the toy model as processes of their own that can be killed: one start of Python serves them all, by forking.

Reads requests from stdin, one JSON object a line: ``{"start": settings}`` answers with a process id, ``{"wait": id}`` with its exit code.
"""

import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from multimodal.training.callbacks import SaveOnSignal, StepSeed
from multimodal.training.checkpoint_files import CheckpointFiles, find_last

spec = importlib.util.spec_from_file_location("toy", Path(__file__).parent / "conftest.py")
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

STEPS = 10  # of an epoch


class Batches(torch.utils.data.IterableDataset):
    """Batches of the toy samples, each after a while; from number ``stall`` on it takes an hour."""

    def __init__(self, count, delay, stall, mark):
        self.count, self.delay, self.stall, self.mark = count, delay, stall, mark

    def __len__(self):
        return self.count

    def __iter__(self):
        for number in range(self.count):
            if number == self.stall:
                self.mark("stalled")
                time.sleep(3600)
            time.sleep(self.delay)
            yield toy.collate(toy.make_samples())


class SlowFiles(CheckpointFiles):
    """Takes a second to write."""

    def __init__(self, mark):
        self.mark = mark

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        self.mark("writing")
        time.sleep(1)
        super().save_checkpoint(checkpoint, path, storage_options)
        self.mark("written")


class Marks(L.Callback):
    def __init__(self, mark):
        self.mark = mark

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.mark(f"step {trainer.global_step}")

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        self.mark(f"validation {batch_idx}")


def fit(folder, rank=0, epochs=100, resume=False, stall=-1, workers=0, delay=0.02, slow_files=False, every_n_steps=0, ranks=1):
    """Train; validation has more batches on rank 1 than on rank 0."""

    def mark(text):
        with open(f"{folder}/marks.{rank}", "a") as file:
            file.write(text + "\n")

    torch.set_num_threads(1)
    settings = {"batch_size": None, "num_workers": workers}
    training = torch.utils.data.DataLoader(Batches(STEPS, delay, stall, mark), **settings)
    validation = torch.utils.data.DataLoader(Batches(20 + 5 * rank, delay, -1, mark), **settings)
    trigger = {"every_n_train_steps": every_n_steps} if every_n_steps else {"every_n_epochs": 1}
    keeper = ModelCheckpoint(f"{folder}/checkpoints", save_last=True, enable_version_counter=False, **trigger)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        use_distributed_sampler=False,
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[StepSeed(), Marks(mark), keeper, SaveOnSignal(patience_s=1.0)],
        plugins=[SlowFiles(mark) if slow_files else CheckpointFiles()],
    )
    trainer.fit(toy.build_model(), training, validation, ckpt_path=find_last(f"{folder}/checkpoints")[0] if resume else None)


def child(settings):
    folder = settings["folder"]
    log = os.open(f"{folder}/log.{settings.get('rank', 0)}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(settings.pop("environment", {}))
    try:
        fit(**settings)
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            number = os.fork()
            if number == 0:
                child(request["start"])
            print(number, flush=True)
        else:
            print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
