"""Runs that are killed at any moment: every checkpoint is whole, and the run goes on."""

import os
import random
import signal
import time

import pytest
import torch

from multimodal.training.checkpoint_files import find_last, read_checkpoint

KILLS = 20


@pytest.mark.slow
def test_kills_at_random_times_leave_whole_checkpoints(server, tmp_path):
    draw = random.Random(0)
    folder, step, slips = tmp_path / "checkpoints", 0, 0
    for number in range(KILLS):
        marks = tmp_path / "marks.0"
        marks.unlink(missing_ok=True)
        runs = server.start(tmp_path, resume=number > 0, every_n_steps=1, delay=0.0)
        server.await_mark(tmp_path, f"step {step + 1}")  # so that the run before has left a checkpoint
        time.sleep(draw.uniform(0, 0.3))
        os.kill(runs[0], signal.SIGKILL)
        assert server.wait(runs) == [-signal.SIGKILL]
        partial = list(folder.glob("*.tmp"))
        slips += bool(partial)
        assert len(partial) <= 1  # what an earlier run left is gone
        steps = [read_checkpoint(path)["global_step"] for path in folder.glob("*.ckpt")]
        started = max(int(line.split()[1]) for line in marks.read_text().splitlines() if line.startswith("step"))
        path, problems = find_last(folder)
        assert problems == [] and path == folder / "last.ckpt"
        step = torch.load(path, weights_only=True)["global_step"]
        assert max(steps) - step <= 1 and started - step <= 1  # at most the step under way and the one being written are lost
    print(f"{KILLS} kills, {slips} of them while a checkpoint was being written; step {step}")
    epochs = step // 10 + 1
    assert server.wait(server.start(tmp_path, resume=True, epochs=epochs, delay=0.0, every_n_steps=1)) == [0]
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 10 * epochs
    assert not list(folder.glob("*.tmp"))
