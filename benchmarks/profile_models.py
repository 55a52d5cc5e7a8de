"""What stands between an engine and the processor's peak?

For DenseNet121 at 224 (batch 8) and ResNet50 at 512 (batch 2), on one thread: the multiplications
that the convolutions need, by kernel size; what the processor reaches in a float32 matrix product;
the CPU time of PyTorch as 1.5.7 uses it and of each engine, as a part of that peak; and in which
operations PyTorch spends its time. The tensors are random: they do not change the time.

    OMP_NUM_THREADS=1 python benchmarks/profile_models.py
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

CASES = {"densenet121": (224, 8), "resnet50": (512, 2)}
ENGINES = ("torch", "onnx", "openvino")
REPEATS = 5


def cpu(run: Callable[[], Any]) -> float:
    """CPU seconds of a call, median."""
    run()
    found = []
    for _ in range(REPEATS):
        begun = time.process_time()
        run()
        found.append(time.process_time() - begun)
    return median(found)


def peak(side: int = 1536) -> float:
    """GFLOP/s of a matrix product."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    return 2 * side**3 / cpu(lambda: a @ b) / 1e9


def arithmetic(net: torch.nn.Module, x: torch.Tensor) -> Counter[str]:
    """GFLOP of the convolutions by size of their kernel."""
    counts: Counter[str] = Counter()

    def count(layer: Any, _: Any, output: torch.Tensor) -> None:
        each = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
        kernel = "x".join(map(str, layer.kernel_size))
        counts[kernel] += 2 * each * output.numel() / 1e9

    hooks = [
        layer.register_forward_hook(count)
        for layer in net.modules()
        if isinstance(layer, torch.nn.Conv2d)
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return counts


def shares(net: torch.nn.Module, x: torch.Tensor) -> str:
    """Operations of PyTorch by their part of the CPU time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        net(x)
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    largest = sorted(events, key=lambda event: -event.self_cpu_time_total)[:5]
    return ", ".join(f"{e.key} {e.self_cpu_time_total / total:.0%}" for e in largest)


def profile_of(name: str, top: float) -> None:
    from torchxrayvision.inference import accelerate
    from torchxrayvision.models import get_model

    size, batch = CASES[name]
    net: Any = get_model(name, num_classes=18).eval()
    net.input_resolution = size
    x = torch.rand(batch, 1, size, size) * 2048 - 1024
    counts = arithmetic(net, x)
    total = sum(counts.values())
    parts = ", ".join(f"{kernel} {value / total:.0%}" for kernel, value in counts.most_common())
    print(f"\n## {name} at {size}, batch {batch}\n\n{total:.1f} GFLOP: {parts}.\n")
    print(
        "| engine | CPU ms | GFLOP/s | of the peak | faster |\n| --- | ---: | ---: | ---: | ---: |"
    )
    plain = 0.0
    for label in ("PyTorch as it is", *ENGINES):
        run = net if label not in ENGINES else accelerate(net, batch, engine=label)
        seconds = cpu(lambda run=run: run(x))
        plain = plain or seconds
        rate, faster = total / seconds, plain / seconds
        print(f"| {label} | {seconds * 1e3:.0f} | {rate:.0f} | {rate / top:.0%} | {faster:.2f} |")
    print(
        f"\nAt the peak it would be {plain * top / total:.2f} times faster than PyTorch as it is."
    )
    print(f"PyTorch as it is spends its time in {shares(net, x)}.")


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    top = peak()
    print(f"Matrix product: {top:.0f} GFLOP/s on one thread.")
    with torch.no_grad():
        for name in CASES:
            profile_of(name, top)


if __name__ == "__main__":
    main()
