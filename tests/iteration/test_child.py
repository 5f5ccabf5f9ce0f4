"""Commands in processes of their own: their exit codes, and signals that reach them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from multimodal.iteration.child import CommandError, run_command


def test_a_command_that_fails_is_named_with_its_code():
    with pytest.raises(CommandError, match=r"`multimodal nothing` ended with exit code 2") as caught:
        run_command("nothing")
    assert caught.value.code == 2


def test_a_command_that_works_says_nothing():
    run_command("--version")


def test_sigterm_is_passed_on(monkeypatch):
    inner = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print('ready', flush=True); time.sleep(60)"
    monkeypatch.setattr("multimodal.iteration.child.COMMAND", [sys.executable, "-c", inner])
    started: list[subprocess.Popen] = []
    real = subprocess.Popen

    def piped(*arguments, **settings):
        started.append(real(*arguments, **settings | {"stdout": subprocess.PIPE}))
        return started[0]

    monkeypatch.setattr("multimodal.iteration.child.subprocess.Popen", piped)

    def stop():
        while not started:
            time.sleep(0.01)
        started[0].stdout.readline()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(CommandError) as caught:
        run_command()
    assert caught.value.code == 5
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
