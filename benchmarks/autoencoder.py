"""What `examples/autoencoder.toml` reaches, in which processor time, and whether a kill changes it.

    python -m benchmarks.autoencoder --out-dir runs [--kill]

Trains an autoencoder on simulated radiographs, which are rendered first, and prints PSNR on those
of other simulated patients and the CPU seconds of all processes. With `--kill` a second run is
killed (SIGKILL) in its fourth epoch or later and resumed; its weights must be the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "examples/autoencoder.toml"
FILES = ("best.safetensors", "last.safetensors")


def command(folder: Path, cache: Path, *more: str) -> list[str]:
    words = ["train", "--config", str(CONFIG), "--out-dir", str(folder), "--cache", str(cache)]
    return [sys.executable, "-m", "torchxrayvision", *words, "--workers", "1", *more]


def spent() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def killed(folder: Path, cache: Path, states: int) -> None:
    """Start a run and end it without warning once it has written so many states."""
    process = subprocess.Popen(command(folder, cache), stderr=subprocess.DEVNULL)
    state, seen = folder / "resume.safetensors", set()
    while process.poll() is None and len(seen) < states:
        if state.exists():
            seen.add(state.stat().st_mtime_ns)
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    print(f"killed after {len(seen)} states")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out-dir", type=Path, required=True)
    parser.add_argument("--kill", action="store_true", help="kill and resume a second run")
    options = parser.parse_args()
    whole, cache = options.out_dir / "whole", options.out_dir / "cache"
    before = spent()
    subprocess.run(command(whole, cache), check=True)
    print(f"CPU seconds: {spent() - before:.0f}")
    with (whole / "reconstruction.csv").open() as file:
        for row in csv.DictReader(file):
            print(f"{row['part']} {row['measure']}: {row['mean']} ({row['low']} to {row['high']})")
    with (whole / "split.csv").open() as file:
        parts = [row["part"] for row in csv.DictReader(file)]
    print({part: parts.count(part) for part in sorted(set(parts))})
    if options.kill:
        other = options.out_dir / "killed"
        killed(other, cache, states=4)
        subprocess.run(command(other, cache, "--resume"), check=True)
        same = all((whole / n).read_bytes() == (other / n).read_bytes() for n in FILES)
        print(f"the same bytes: {same}")


if __name__ == "__main__":
    main()
