"""What stands between an engine and the processor's peak?

For DenseNet121 at 224 (batch 8), ResNet50 at 512 (2), PSPNet at 512 (1) and ResNetAE101 at 224
(8), on one thread: the arithmetic of the convolutions, by kernel size; what the processor reaches
in a float32 matrix product; the CPU time of PyTorch as 1.5.7 uses it and of each engine, by turns,
as a part of that peak; and in which operations PyTorch spends its time. Winograd's method does less
arithmetic, so that it can be above the peak. The tensors are random: they do not change the time.

    OMP_NUM_THREADS=1 python benchmarks/profile_models.py [NETWORK ...]
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

CASES = {
    "densenet121": (224, 8),
    "resnet50": (512, 2),
    "pspnet": (512, 1),
    "autoencoder-resnet101": (224, 8),
}
REPEATS = 5
PLAIN = "PyTorch as it is"


def cpu(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """CPU seconds of a call of each, the median of calls by turns."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(REPEATS):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            found[name].append(time.process_time() - begun)
    return {name: median(seconds) for name, seconds in found.items()}


def peak(side: int = 1536) -> float:
    """GFLOP/s of a matrix product."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    return 2 * side**3 / cpu({"": lambda: a @ b})[""] / 1e9


def network(name: str) -> Any:
    from torchxrayvision.autoencoders import ResNetAE
    from torchxrayvision.baseline_models.chestx_det import PSPNet
    from torchxrayvision.models import get_model

    if name == "pspnet":
        return PSPNet(weights=False).eval()
    if name.startswith("autoencoder"):
        return ResNetAE(architecture=name).eval()
    return get_model(name, num_classes=18).eval()


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
    from torchxrayvision.inference.engines.accelerate import Accelerated
    from torchxrayvision.inference.engines.choose import Choice
    from torchxrayvision.inference.engines.winograd import has_wide_convolutions

    size, batch = CASES[name]
    net = network(name)
    net.input_resolution = size
    x = torch.rand(batch, 1, size, size) * 2048 - 1024
    counts = arithmetic(net, x)
    total = sum(counts.values())
    parts = ", ".join(f"{kernel} {value / total:.0%}" for kernel, value in counts.most_common())
    print(f"\n## {name} at {size}, batch {batch}\n\n{total:.1f} GFLOP: {parts}.\n")
    print(
        "| engine | CPU ms | GFLOP/s | of the peak | faster |\n| --- | ---: | ---: | ---: | ---: |"
    )
    choices = [Choice("torch"), Choice("onnx"), Choice("openvino")]
    if has_wide_convolutions(net):
        choices.append(Choice("onnx", winograd=True))
    engines = {str(choice): Accelerated(net, batch, choice) for choice in choices}
    times = cpu({k: lambda run=run: run(x) for k, run in {PLAIN: net, **engines}.items()})
    plain = times[PLAIN]
    for label, seconds in times.items():
        rate, faster = total / seconds, plain / seconds
        print(f"| {label} | {seconds * 1e3:.0f} | {rate:.0f} | {rate / top:.0%} | {faster:.2f} |")
    print(
        f"\nAt the peak it would be {plain * top / total:.2f} times faster than PyTorch as it is."
    )
    print(f"PyTorch as it is spends its time in {shares(net, x)}.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(CASES))
    networks = parser.parse_args().networks or CASES
    torch.set_num_threads(1)
    top = peak()
    print(f"Matrix product: {top:.0f} GFLOP/s on one thread.")
    with torch.no_grad():
        for name in networks:
            profile_of(name, top)


if __name__ == "__main__":
    main()
