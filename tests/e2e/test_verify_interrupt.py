"""`xrv datasets verify` in front of somebody who changes their mind."""

import os
import re
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

pty = pytest.importorskip("pty", reason="a terminal is needed to see a bar")

IMAGES = 3000
PAUSE = 0.05  # seconds per image, so that all of them would take longer than the limit below
LIMIT = 20
SLOW = f"""
import signal
import time
# Whoever runs the tests in the background of a shell leaves interrupts ignored to its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
from torchxrayvision.datasets import verification
check = verification._check
def slowly(*args, **options):
    time.sleep({PAUSE})
    return check(*args, **options)
verification._check = slowly
from torchxrayvision.cli import main
main()
"""


@pytest.fixture
def folder(tmp_path):
    first = tmp_path / "images" / "0.png"
    first.parent.mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(first)
    for number in range(1, IMAGES):
        os.link(first, first.with_name(f"{number}.png"))
    return first.parent


@pytest.mark.parametrize("option", [[], ["--isolate"]], ids=["threads", "processes"])
def test_a_bar_moves_and_an_interrupt_ends_it_at_once(folder, option):
    command = [sys.executable, "-c", SLOW, "datasets", "verify", "Folder_Dataset"]
    there, here = pty.openpty()
    process = subprocess.Popen(
        [*command, "--with", f"folder={folder}", "--workers", "2", *option],
        stdout=subprocess.PIPE,
        stderr=here,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(here)
    shown, seen = "", set()
    try:
        while len(seen) < 3:  # numbers that the bar has shown
            assert select.select([there], [], [], 120)[0], shown
            shown += os.read(there, 4096).decode()
            seen = {n for n in re.findall(rf"(\d+)/{IMAGES}", shown) if n != "0"}
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(LIMIT) == 130
        assert time.monotonic() - began < LIMIT < IMAGES * PAUSE / 2
    finally:
        process.kill()
        process.communicate()
        os.close(there)
