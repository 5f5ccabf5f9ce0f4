"""Runs that are told to end: one whole checkpoint, the exit code of the signal, and a continuation."""

import os
import signal
import time

import lightning as L
import pytest
import torch

from multimodal.training.callbacks import SaveOnSignal

CASES = {
    "a step": (signal.SIGTERM, "step 4", [0], {}),
    "a step, Ctrl-C": (signal.SIGINT, "step 13", [0], {}),
    "a step, of a job of a scheduler": (signal.SIGUSR1, "step 4", [0], {}),
    "a validation": (signal.SIGTERM, "validation 3", [0], {}),
    "a wait for data": (signal.SIGTERM, "stalled", [0], {"stall": 6}),
    "a wait for a data worker": (signal.SIGINT, "stalled", [0], {"stall": 6, "workers": 1}),
    "the writing of a checkpoint": (signal.SIGTERM, "writing", [0], {"slow_files": True}),
    "a step of two processes, to one": (signal.SIGTERM, "step 4", [1], {"ranks": 2}),
    "a validation of two processes, to one": (signal.SIGUSR1, "validation 3", [1], {"ranks": 2}),
    "a wait of one process for data": (signal.SIGTERM, "stalled", [0, 1], {"ranks": 2, "stalled_rank": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_signal_during(server, tmp_path, case):
    number, mark, receivers, settings = CASES[case]
    runs = server.start(tmp_path, **settings)
    server.await_mark(tmp_path, mark, receivers[-1])
    told = time.monotonic()
    for receiver in receivers:
        os.kill(runs[receiver], number)
    codes = server.wait(runs)
    log = (tmp_path / "log.0").read_text()
    assert codes == [128 + number] * len(runs), log[-2000:]
    assert time.monotonic() - told < 30

    files = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert [name for name in files if not name.startswith("epoch")] == ["last.ckpt"]
    step = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    trained = max(int(line.split()[1]) for line in (tmp_path / "marks.0").read_text().splitlines() if line.startswith("step"))
    stalled = "stalled" in mark and settings.get("ranks") == 2  # the other process had begun a step that it could not end
    assert step == (trained if stalled else trained + 1)
    if mark.startswith("step"):
        assert step - int(mark.split()[1]) <= 8  # it did not go on to the end of the epoch's validation

    epochs = step // 10 + 1
    assert server.wait(server.start(tmp_path, resume=True, epochs=epochs, delay=0.0)) == [0], (tmp_path / "log.0").read_text()[-2000:]
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 10 * epochs


def test_the_signals_are_given_back(tmp_path, make_model, mixed_samples, loader):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD)]
    taken = []
    callback = SaveOnSignal()
    model = make_model()
    model.on_train_batch_start = lambda *args: taken.append(signal.getsignal(signal.SIGTERM) == callback._receive)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    L.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, callbacks=[callback], **quiet).fit(
        model, loader([mixed_samples] * 2)
    )
    assert taken == [True, True]
    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD)]


def test_a_patience_of_nothing_is_refused():
    with pytest.raises(ValueError, match="patience_s must be above 0, got 0"):
        SaveOnSignal(0)
