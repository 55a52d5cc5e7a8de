"""Does a GPU give the same numbers, and how fast is it, alone and from files?

First every network is compared with PyTorch on the CPU in float32: `exact` to 1e-4, `fast` within
its promise. Then DenseNet121 (224 x 224), ResNet50 (512 x 512) and PSPNet (512 x 512) are timed
alone, in each way that the package may choose, in batches that grow until they gain nothing more or
do not fit; and from PNG files of 1024 x 1024, as `predict` and `segment` read them. The tensors are
random: they do not change the time.

It ends within `--seconds` (300), leaving out what there was no time for, and says so. `--quick` is
one small case of each, to see whether the script works, also with `--device cpu`; what that prints
is no result.

    python benchmarks/bench_gpu.py [--device cuda] [--quick] [--output TABLE.md]
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from _films import write_films
from profile_models import network
from torchxrayvision.inference import Choice, predictions
from torchxrayvision.inference.engines.base import TorchEngine, example, reference
from torchxrayvision.inference.engines.choose import agreement, choose_engine, open_network
from torchxrayvision.inputs import ReadOptions, expand
from torchxrayvision.segmentation import segment

SIZES = {"densenet121": 224, "resnet50": 512, "pspnet": 512, "autoencoder-resnet101": 224}
TIMED = ("densenet121", "resnet50", "pspnet")
BATCHES = (8, 16, 32, 64, 128, 256)
GAIN = 1.05  # that a batch of twice the size must bring
FILMS = {"densenet121": 400, "resnet50": 200, "pspnet": 24}


@dataclass
class Clock:
    """What is left of the time."""

    seconds: float
    begun: float

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.begun)


def table(title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [
        f"\n## {title}\n",
        f"| {' | '.join(heads)} |",
        f"| --- |{' ---: |' * (len(heads) - 1)}",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def loaded(name: str, device: torch.device, *, quick: bool) -> Any:
    torch.manual_seed(0)
    net = network(name)
    # PSPNet and the autoencoder have a side of their own.
    net.input_resolution = 64 if quick and name in ("densenet121", "resnet50") else SIZES[name]
    return net.to(device)


def checks(names: tuple[str, ...], device: torch.device, clock: Clock, quick: bool) -> str:
    """Whether the numbers are those of the CPU."""
    rows = []
    for name in names:
        if clock.left < 0.6 * clock.seconds:
            rows.append((name, "no time left", "", ""))
            continue
        net = loaded(name, torch.device("cpu"), quick=quick)
        images = example(net.input_resolution, 2)
        expected = reference(net, images)
        net = net.to(device)
        for precision in ("exact", "fast"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                choice = choose_engine(
                    net, 2, "torch", precision, images=10**5 if device.type == "cuda" else 1,
                    sample=images.numpy,
                )  # fmt: skip
            engine = open_network(net, 2, choice)
            engine.input[...] = images.numpy()
            found = agreement(net, expected, engine.run(), precision)
            said = f"{found.distance:.2g} of {found.limit:g}"
            rows.append((f"{name}, {precision}", str(choice), f"{found.what} {said}",
                         "yes" if found.holds else "NO"))  # fmt: skip
        del net
    return table("Numbers", ("network", "chosen", "largest difference", "holds"), rows)


def ways(device: torch.device) -> Iterator[Choice]:
    for arithmetic in ("float32", *TorchEngine.arithmetics(device)):
        yield Choice("torch", arithmetic)
        if device.type == "cuda":
            yield Choice("torch", arithmetic, captured=True)


def images_a_second(engine: Any, device: torch.device, seconds: float) -> float:
    """Of batches in pinned memory to results in memory, overlapped as a run does."""
    for _ in range(3):
        engine.run()
    synchronise(device)
    count, begun, before = 0, time.perf_counter(), None
    while time.perf_counter() - begun < seconds:
        finish = engine.start()
        if before is not None:
            before()
        before = finish
        count += len(engine.input)
    if before is not None:
        before()
    return count / (time.perf_counter() - begun)


def alone(device: torch.device, clock: Clock, quick: bool) -> str:
    rows = []
    for name in TIMED[: 1 if quick else None]:
        net = loaded(name, device, quick=quick)
        for way in ways(device):
            best, batch = 0.0, 0
            for size in BATCHES[: 1 if quick else None]:
                if clock.left < 0.35 * clock.seconds:
                    break
                try:
                    engine = open_network(net, 2 if quick else size, way)
                    engine.input[...] = example(net.input_resolution, 1).numpy()
                    rate = images_a_second(engine, device, 0.2 if quick else 1.5)
                except torch.OutOfMemoryError:
                    break
                del engine
                if rate < GAIN * best:
                    break
                best, batch = rate, size
            if device.type == "cuda":
                memory = f"{torch.cuda.max_memory_allocated(device) / 2**20:,.0f} MB"
                torch.cuda.reset_peak_memory_stats(device)
                torch.cuda.empty_cache()
            else:
                memory = ""
            rows.append((f"{name}, {net.input_resolution}, {way}", f"{best:,.0f}",
                         str(2 if quick else batch), memory))  # fmt: skip
        del net
    return table("Alone", ("network", "images per second", "batch", "memory"), rows)


def from_files(device: torch.device, clock: Clock, quick: bool) -> str:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "films")
        made = write_films(folder, [(256, 256)] * 4 if quick else [(1024, 1024)] * 40)
        for name in TIMED[:: 2 if quick else 1]:
            net = loaded(name, device, quick=quick)
            for precision in ("exact", "fast")[: 1 if quick else None]:
                if clock.left < 20 and not quick:
                    rows.append((f"{name}, {precision}", "no time left", ""))
                    continue
                count = 2 if quick else FILMS[name]
                files = (list(expand([made[i % len(made)] for i in range(min(count, 40))])) * 10)[
                    :count
                ]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    begun, cpu = time.perf_counter(), time.process_time()
                    done = sum(not one.error for one in results(net, name, files, precision))
                seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
                if done != count:
                    sys.exit(f"{name}: {count - done} of {count} films failed")
                rows.append((f"{name}, {precision}, {count} films", f"{count / seconds:.1f}",
                             f"{cpu / count * 1e3:.1f} ms"))  # fmt: skip
            del net
    return table("From files", ("network", "images per second", "CPU per image"), rows)


def results(net: Any, name: str, files: list[Any], precision: str) -> Iterator[Any]:
    if name == "pspnet":
        return segment(files, net, batch_size=4, precision=precision, reading=ReadOptions())
    return predictions(net, files, batch_size=32, engine="torch", precision=precision, check="off")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="one small case of each")
    parser.add_argument("--seconds", type=float, default=300, help="most that it takes (300)")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device here; --device cpu --quick tries the script")
    clock = Clock(args.seconds, time.monotonic())
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    parts = [f"{gpu}, {platform.machine()}, torch {torch.__version__}, CUDA {torch.version.cuda}"]
    names = TIMED[:1] if args.quick else tuple(SIZES)
    parts.append(checks(names, device, clock, args.quick))
    parts.append(alone(device, clock, args.quick))
    parts.append(from_files(device, clock, args.quick))
    text = "\n".join(parts)
    print(text)
    if args.output is not None:
        args.output.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
