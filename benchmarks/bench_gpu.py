"""Does a GPU give the same numbers, and how fast is it, alone and from files?

The parts, each in a process of its own, so that one that fails, hangs or breaks the device leaves
the tables of the others:

numbers   every network, in each way that the package may choose, is compared with PyTorch on the
          CPU in float32: float32 to 1e-4, bfloat16 to the promise of `fast`
alone     DenseNet121 (224 x 224), ResNet50 (512 x 512) and PSPNet (512 x 512) in batches of sizes
          that are named, each way
growing   the same with batches that grow by themselves: where they end, and how far the outputs of
          an image move with the size of its batch, as a part of the largest output; to 1e-5. For
          the weights `demo`, which are packaged, how far its probabilities move
devices   DenseNet121 on one device and on all, in batches of one size; skipped where there is one
files     from PNG files of 1024 x 1024, as `predict` and `segment` read them

Other tensors are random: they do not change the time. It ends within `--seconds` (300), leaving out
what there was no time for, and says so. `--quick` is one small case of each, to see whether the
script works, also with `--device cpu`; what that prints is no result.

    python benchmarks/bench_gpu.py [--device cuda] [--quick] [--output TABLE.md]
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SIZES = {"densenet121": 224, "resnet50": 512, "pspnet": 512, "autoencoder-resnet101": 224}
TIMED = ("densenet121", "resnet50", "pspnet")
BATCHES = (8, 16, 32, 64, 128, 256)
GAIN = 1.05  # that a batch of twice the size must bring
FILMS = {"densenet121": 400, "resnet50": 200, "pspnet": 24}
HEADS = {
    "numbers": ("network", "largest difference", "holds"),
    "alone": ("network", "images per second", "batch", "memory"),
    "growing": ("network", "from", "to", "images per second", "largest difference", "holds"),
    "devices": ("network", "devices", "images per second", "times one"),
    "files": ("network", "images per second", "CPU per image"),
}
SHARES = {"numbers": 0.25, "alone": 0.3, "growing": 0.15, "devices": 0.1, "files": 0.2}


class Part:
    """One part, which prints a row as soon as it knows it."""

    def __init__(self, device: str, seconds: float, *, quick: bool) -> None:
        import torch

        self.torch = torch
        self.device = torch.device(device)
        self.quick = quick
        self._until = time.monotonic() + seconds

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds until nothing more is begun."""
        return self._until - time.monotonic()

    def row(self, *cells: object) -> None:
        print(f"| {' | '.join(map(str, cells))} |", flush=True)

    def network(self, name: str, device: Any = None) -> Any:
        from profile_models import network
        from torchxrayvision.models import get_model

        if name == "demo":
            return get_model(name).to(self.device)
        self.torch.manual_seed(0)
        net = network(name)
        # PSPNet and the autoencoder have a side of their own.
        small = self.quick and name in ("densenet121", "resnet50")
        net.input_resolution = 64 if small else SIZES[name]
        return net.to(self.device if device is None else device)

    def ways(self) -> Iterator[Any]:
        from torchxrayvision.inference import Choice
        from torchxrayvision.inference.engines.base import TorchEngine

        for arithmetic in ("float32", *TorchEngine.arithmetics(self.device)):
            yield Choice("torch", arithmetic)
            if self.cuda:
                yield Choice("torch", arithmetic, captured=True)

    def rate(self, engine: Any, seconds: float) -> float:
        """Images a second, of batches in memory to results in memory, overlapped as in a run."""
        for _ in range(1 + 2 * max(1, engine.overlaps)):
            engine.run()
        begun, done, waiting = time.perf_counter(), 0, []
        while time.perf_counter() - begun < seconds:
            waiting.append((len(engine.input), engine.start()))
            if len(waiting) > engine.overlaps:
                count, finish = waiting.pop(0)
                finish()
                done += count
        for count, finish in waiting:
            finish()
            done += count
        return done / (time.perf_counter() - begun)

    def release(self) -> str:
        """The most memory that the last row took; it is free again."""
        if not self.cuda:
            return ""
        cuda = self.torch.cuda
        memory = f"{cuda.max_memory_allocated(self.device) / 2**20:,.0f} MB"
        cuda.empty_cache()
        cuda.reset_peak_memory_stats(self.device)
        return memory


def numbers(part: Part) -> None:
    from torchxrayvision.inference.engines.base import example, reference
    from torchxrayvision.inference.engines.choose import agreement, open_network

    for name in TIMED[:1] if part.quick else SIZES:
        net = part.network(name, "cpu")
        images = example(net.input_resolution, 2)
        expected = reference(net, images)
        net = net.to(part.device)
        for way in part.ways():
            if part.left < 0:
                part.row(f"{name}, {way}", "no time left", "")
                continue
            engine = open_network(net, 2, way)
            engine.input[...] = images.numpy()
            exact = way.arithmetic == "float32"
            found = agreement(net, expected, engine.run(), "exact" if exact else "fast")
            no = "NO" if exact else "no: fast computes in float32"
            asked = ", NOT captured" if way.captured and not engine.captured else ""
            part.row(f"{name}, {way}", f"{found.what} {found.distance:.2g} of {found.limit:g}",
                     f"{'yes' if found.holds else no}{asked}")  # fmt: skip
            del engine
        del net
        part.release()


def alone(part: Part) -> None:
    from torchxrayvision.inference.engines.base import example
    from torchxrayvision.inference.engines.choose import open_network

    for name in TIMED[: 1 if part.quick else None]:
        net = part.network(name)
        for way in part.ways():
            best, batch, ended = 0.0, 0, ""
            for size in (2,) if part.quick else BATCHES:
                if part.left < 0:
                    ended = ", no time left"
                    break
                try:
                    engine = open_network(net, size, way)
                    engine.input[...] = example(net.input_resolution, 1).numpy()
                    rate = part.rate(engine, 0.2 if part.quick else 1.0)
                    fits = engine.fitted == size
                    del engine
                except part.torch.OutOfMemoryError:
                    fits = False
                if not fits:
                    ended = f", {size} do not fit"
                    break
                if rate < GAIN * best:
                    break
                best, batch = rate, size
            part.row(f"{name}, {net.input_resolution}, {way}", f"{best:,.0f}", f"{batch}{ended}",
                     part.release())  # fmt: skip
        del net


def growing(part: Part) -> None:
    """As a run without a batch size; on a CPU the growth is forced, to try the script."""
    from torchxrayvision.inference import Choice
    from torchxrayvision.inference.engines.base import example, reference
    from torchxrayvision.inference.engines.choose import open_network
    from torchxrayvision.inference.engines.growth import GrowingEngine, most_images

    for name in ("demo", *TIMED)[: 1 if part.quick else None]:
        net = part.network(name)
        way, first = Choice("torch", captured=part.cuda), 1 if name == "pspnet" else 8
        most = 2 * first if part.quick else most_images(net, first, None, way)
        engine = GrowingEngine(lambda size, net=net, way=way: open_network(net, size, way),
                               first, most)  # fmt: skip
        images = example(net.input_resolution, 2)
        expected = reference(net, images)[0][:1]
        furthest = 0.0
        while not engine.growth.settled and part.left > 0:
            engine.input[...] = images.numpy()[:1]
            finish = engine.start()
            furthest = max(furthest, difference(expected, finish()[0], name))
        rate = part.rate(engine, 0.2 if part.quick else 1.0) if part.left > 0 else 0.0
        ended = f"{engine.growth.size}" + ("" if engine.growth.settled else ", no time left")
        holds = "yes" if furthest <= 1e-5 else "NO"
        part.row(f"{name}, {net.input_resolution}, {way}", first, ended,
                 f"{rate:,.0f}", f"{furthest:.2g}", holds)  # fmt: skip
        engine.close()
        del engine, net
        part.release()


def difference(expected: Any, given: Any, name: str) -> float:
    """The largest one of the same image in all places of a batch."""
    if name == "demo":
        return float((given.sigmoid() - expected.sigmoid()).abs().max())
    return float((given - expected).abs().max() / expected.abs().max())


def devices(part: Part) -> None:
    from torchxrayvision.inference import Choice, Plan
    from torchxrayvision.inference.engines.base import example
    from torchxrayvision.inference.engines.choose import open_planned

    count = part.torch.cuda.device_count() if part.cuda else 2 if part.quick else 1
    if count < 2:
        part.row("densenet121", "skipped: this machine has one device", "", "")
        return
    names = tuple(f"{part.device.type}:{index}" for index in range(count))
    one = 0.0
    for used in (names[:1], names):
        net = part.network("densenet121", used[0])
        size = 2 if part.quick else 64
        way = Choice("torch", captured=part.cuda)
        engine = open_planned(net, size, way, Plan(devices=used if len(used) > 1 else ()))
        engine.input[...] = example(net.input_resolution, 1).numpy()
        rate = part.rate(engine, 0.2 if part.quick else 3.0)
        engine.close()
        one = one or rate
        part.row(f"densenet121, {net.input_resolution}, {way}, batches of {size}", " ".join(used),
                 f"{rate:,.0f}", f"{rate / one:.2f}")  # fmt: skip
        del engine, net


def files(part: Part) -> None:
    from _films import write_films
    from torchxrayvision.inputs import expand

    with tempfile.TemporaryDirectory() as place:
        shapes = [(256, 256)] * 4 if part.quick else [(1024, 1024)] * 40
        made = write_films(Path(place, "films"), shapes)
        for name in TIMED[:: 2 if part.quick else 1]:
            net = part.network(name)
            for precision in ("exact", "fast")[: 1 if part.quick else None]:
                if part.left < 0:
                    part.row(f"{name}, {precision}", "no time left", "")
                    continue
                count = 2 if part.quick else FILMS[name]
                known = [next(iter(expand(path))) for path in made]
                listed = [known[i % len(known)] for i in range(count)]
                begun, cpu = time.perf_counter(), time.process_time()
                failed = sum(bool(one.error) for one in results(net, name, listed, precision))
                seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
                part.row(f"{name}, {precision}, {count} films"
                         + (f", {failed} FAILED" if failed else ""),
                         f"{count / seconds:.1f}", f"{cpu / count * 1e3:.1f} ms")  # fmt: skip
                if failed:
                    sys.exit("films that were just written cannot be read")
            del net
            part.release()


def results(net: Any, name: str, listed: list[Any], precision: str) -> Iterator[Any]:
    """As the commands do it, with batches of the sizes that they choose."""
    from torchxrayvision.inference import predictions
    from torchxrayvision.segmentation import segment

    if name == "pspnet":
        return segment(listed, net, precision=precision)
    return predictions(net, listed, engine="torch", precision=precision, check="off")


PARTS: dict[str, Callable[[Part], None]] = {
    "numbers": numbers, "alone": alone, "growing": growing, "devices": devices, "files": files,
}  # fmt: skip


def table(name: str, args: argparse.Namespace, seconds: float) -> tuple[str, bool]:
    """The table of a part, and whether it ended well; one that does not end is killed."""
    command = [sys.executable, __file__, "--part", name, "--device", args.device,
               "--seconds", f"{0.8 * seconds:.0f}", *["--quick"] * args.quick]  # fmt: skip
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            code: int | str = subprocess.run(
                command, stdout=out, stderr=err, timeout=seconds, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"killed after {seconds:.0f} s"
        out.seek(0)
        err.seek(0)
        rows = [line.rstrip() for line in out if line.startswith("|")]
        said = [line.strip() for line in err if line.strip()]
    if code:
        reason = said[-1][:300].replace("|", "/") if said else "no message"
        rows.append(f"| FAILED ({code}): {reason} |{' |' * (len(HEADS[name]) - 1)}")
    heads = HEADS[name]
    lines = [f"\n## {name.capitalize()}\n", f"| {' | '.join(heads)} |",
             f"| --- |{' ---: |' * (len(heads) - 1)}", *rows]  # fmt: skip
    return "\n".join(lines), not code


def machine(name: str) -> str:
    """What is measured; exits where it is not there."""
    import torch

    if name.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device here; --device cpu --quick tries the script")
    gpu = torch.cuda.get_device_name(name) if name.startswith("cuda") else "no GPU"
    version = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    return f"{gpu}, {platform.machine()}, {version}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="one small case of each")
    parser.add_argument("--seconds", type=float, default=300, help="most that it takes (300)")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    parser.add_argument("--part", choices=PARTS, help="this one, in this process")
    args = parser.parse_args()
    if args.part:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            PARTS[args.part](Part(args.device, args.seconds, quick=args.quick))
        return
    begun, text, ended = time.monotonic(), machine(args.device), True
    print(text, flush=True)
    shares = dict(SHARES)
    for name in PARTS:
        left = args.seconds - (time.monotonic() - begun)
        share = left * shares[name] / sum(shares.values())  # what is not used goes to the next
        del shares[name]
        one, well = table(name, args, max(share, 1.0))
        print(one, flush=True)
        text, ended = f"{text}\n{one}", ended and well
        if args.output is not None:  # after each: what was measured is not lost
            args.output.write_text(text + "\n", "utf-8")
    if not ended:
        sys.exit("a part failed; the table says which")


if __name__ == "__main__":
    main()
