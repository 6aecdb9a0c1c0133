"""What the tests of helper processes have made in them; imported there by its plain name."""

import os
import signal
import time

import torch


def writer(folder):
    """Each batch leaves a file with the process that made it, and its number of threads."""

    def make(batch):
        time.sleep(0.05)
        (folder / str(batch)).write_text(f"{os.getpid()} {torch.get_num_threads()}")

    return make


def patient(folder):
    """As `writer`, but waits until a helper has made something."""
    make = writer(folder)

    def wait_first(batch):
        deadline = time.monotonic() + 60
        while not any(folder.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        make(batch)

    return wait_first


def killed(folder):
    def make(batch):
        (folder / "dying").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    return make


def failing(folder):
    raise ValueError(f"found nothing in {folder.name}")
