"""How much faster does a network run than in 1.5.7, and with what numbers?

A batch in memory through DenseNet121 (224 x 224, 8 images), ResNet50 (512 x 512, 2), PSPNet
(512 x 512, 1) and ResNetAE101 (224 x 224, 8), on all cores. 1.5.7 runs its class under
`torch.no_grad()`; this package `inference.accelerate`, with the engine that it chooses by
measurement ("auto"), exact and fast; by hand, torchvision's network goes to plain ONNX Runtime.

The tensors come from a seed (tests/support/synthetic.py) and reach both versions through the files
of the releases, which 1.5.7 writes here: this script needs it. What the networks say of simulated
films is compared: numbers, ranks of the films, masks, reconstructions.

    python benchmarks/bench_models.py --baseline-python PATH
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _alternate import Timings, main, quick, timed

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.synthetic import fill

PRECISIONS = ("exact", "fast")
REPEATS = 2
RESNET = "resnet50-res512-all"
DENSENET = "densenet121-res224-all"


@dataclass(frozen=True)
class Case:
    """One network, and the films that it is timed and compared on."""

    size: int
    batch: int
    films: int

    def __str__(self) -> str:
        return f"{self.size} x {self.size}, batch {self.batch}"


CASES = {
    "DenseNet121": Case(224, 8, 32),
    "ResNet50": Case(512, 2, 8),
    "PSPNet": Case(512, 1, 2),
    "ResNetAE101": Case(224, 8, 8),
}


def cases() -> dict[str, Case]:
    names = os.environ.get("XRV_BENCH_NETS", "").split() or list(CASES)[: 1 if quick() else None]
    return {n: CASES[n] for n in names}


def prepare(folder: Path) -> None:
    """Simulated films of each size."""
    from torchxrayvision.phantom import simulate

    for size in {case.size for case in cases().values()}:
        count = max(case.films for case in cases().values() if case.size == size)
        films = [simulate(index, seed=6, size=size).image for index in range(count)]
        np.save(folder / f"films-{size}.npy", np.stack(films))


def films(out: Path, case: Case) -> np.ndarray:
    return np.load(out.parent / f"films-{case.size}.npy")[: case.films]


def measure(out: Path, name: str, case: Case, run: Callable[[Any], Any], label: str) -> Timings:
    """Time the first batch, and leave what comes of all films."""
    import torch

    pictures = films(out, case)
    batches = [
        torch.from_numpy(pictures[i : i + case.batch]) for i in range(0, case.films, case.batch)
    ]
    seconds = timed(lambda: run(batches[0]), REPEATS)
    answers = [run(batch) for batch in batches]
    np.save(out / f"{name}-{label}.npy", np.concatenate([np.asarray(a) for a in answers]))
    return {f"{name}, {case}, {label}": seconds}


# 1.5.7


def version_1(out: Path) -> Timings:
    import torch

    timings: Timings = {}
    with torch.no_grad():
        for name, case in cases().items():
            net = OLD[name](out.parent / "weights")
            run = (lambda x, net=net: net(x)["out"]) if name == "ResNetAE101" else net
            found = measure(out, name, case, run, PRECISIONS[0])
            seconds = next(iter(found.values()))
            timings |= {f"{name}, {case}, {label}": seconds for label in PRECISIONS}
    return timings


def tensors(network: Any, prefix: str = "", **options: Any) -> dict[str, Any]:
    import torch

    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return {prefix + n: torch.from_numpy(v) for n, v in fill(shapes, **options).items()}


def once(path: Path, content: Callable[[], Any], **options: Any) -> None:
    import torch

    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        torch.save(content(), path, **options)


def filename(urls: Any, name: str) -> str:
    return urls[name]["weights_url"].rpartition("/")[2]


def old_densenet(folder: Path) -> Any:
    import torchxrayvision as xrv

    def whole() -> Any:
        net = xrv.models.DenseNet()
        net.load_state_dict(tensors(net))
        return net

    path = folder / filename(xrv.models.model_urls, DENSENET)
    once(path, whole, _use_new_zipfile_serialization=False)
    net = xrv.models.DenseNet(weights=DENSENET, cache_dir=str(folder))
    net.op_threshs = None
    return net


def old_resnet(folder: Path) -> Any:
    import torchxrayvision as xrv

    once(folder / filename(xrv.models.model_urls, RESNET), lambda: tensors(grey_resnet50()))
    net = xrv.models.ResNet(weights=RESNET, cache_dir=str(folder))
    net.op_threshs = None
    net.apply_sigmoid = False
    return net


def grey_resnet50() -> Any:
    import torch
    import torchvision

    net = torchvision.models.resnet50(num_classes=18)
    net.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return net


def old_pspnet(folder: Path) -> Any:
    from torchxrayvision.baseline_models import chestx_det

    once(
        folder / "pspnet_chestxray_best_model_4.pth",
        lambda: tensors(chestx_det.pspnet(14), "module.", residual=".cb3."),
    )
    return chestx_det.PSPNet(cache_dir=str(folder)).eval()


def old_autoencoder(folder: Path) -> Any:
    from torchxrayvision import autoencoders

    path = folder / filename(autoencoders.model_urls, "101-elastic")
    once(path, lambda: tensors(autoencoders.ResNetAE101()))
    return autoencoders.ResNetAE(weights="101-elastic", cache_dir=str(folder)).eval()


OLD = {
    "DenseNet121": old_densenet,
    "ResNet50": old_resnet,
    "PSPNet": old_pspnet,
    "ResNetAE101": old_autoencoder,
}


# This package


def this_package(out: Path) -> Timings:
    import warnings

    os.environ["XRV_CACHE_DIR"] = str(out.parent / "cache")  # where converted networks go

    from torchxrayvision.errors import PrecisionWarning, XRVWarning
    from torchxrayvision.inference import accelerate

    warnings.simplefilter("ignore", XRVWarning)
    timings: Timings = {}
    chosen = {}
    for name, case in cases().items():
        net = NEW[name](out)
        choices: dict[str, str] = {}
        for precision in PRECISIONS:
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always", PrecisionWarning)
                fast = accelerate(net, case.batch, precision=precision)
            choices[precision] = str(fast.choice)
            if precision == "fast" and choices["fast"] == choices["exact"]:
                timings[f"{name}, {case}, fast"] = timings[f"{name}, {case}, exact"]
                np.save(out / f"{name}-fast.npy", np.load(out / f"{name}-exact.npy"))
                continue
            run = (lambda x, f=fast: f(x)["out"]) if name == "ResNetAE101" else fast
            timings |= measure(out, name, case, run, precision)
        chosen[name] = " and ".join(f"{k} {v}" for k, v in choices.items())
    (out / "choices.txt").write_text("; ".join(f"{k}: {v}" for k, v in chosen.items()))
    return timings


def released(out: Path, end: str) -> Path:
    """The file that 1.5.7 wrote, by the end of its name."""
    return next((out.parent / "weights").glob(f"*{end}"))


def new_classifier(path: Path) -> Any:
    from torchxrayvision.models import load_checkpoint

    net = load_checkpoint(path)
    net.output = "logit"
    return net


def new_pspnet(out: Path) -> Any:
    import torch

    from torchxrayvision.baseline_models.chestx_det import PSPNet

    # Not by its name: the package knows the hash of the published file.
    state = torch.load(released(out, "_model_4.pth"), weights_only=True)
    net = PSPNet(weights=False)
    net.model.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
    return net


def new_autoencoder(out: Path) -> Any:
    from torchxrayvision.autoencoders import ResNetAE

    return ResNetAE("101-elastic", cache_dir=str(out.parent / "weights"))


NEW: dict[str, Callable[[Path], Any]] = {
    "DenseNet121": lambda out: new_classifier(released(out, "-best.pt")),
    "ResNet50": lambda out: new_classifier(released(out, "-state.pt")),
    "PSPNet": new_pspnet,
    "ResNetAE101": new_autoencoder,
}


# By hand


def by_hand(out: Path) -> Timings:
    """torchvision's networks, exported once, in ONNX Runtime with its own settings."""
    import onnxruntime
    import torch

    timings: Timings = {}
    for name in [name for name in ("DenseNet121", "ResNet50") if name in cases()]:
        case = cases()[name]
        path = out.parent / f"{name}.onnx"
        if not path.exists():
            x = torch.zeros(case.batch, 1, case.size, case.size)
            torch.onnx.export(hand_made(name), (x,), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        entry = session.get_inputs()[0].name
        batch = films(out, case)[: case.batch]
        seconds = timed(lambda s=session, e=entry, b=batch: s.run(None, {e: b}), REPEATS)
        timings[f"{name}, {case}, exact"] = seconds
    return timings


def hand_made(name: str) -> Any:
    import torch
    import torchvision

    if name == "ResNet50":
        return grey_resnet50().eval()
    net = torchvision.models.densenet121(num_classes=18)
    net.features.conv0 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return net.eval()


# Agreement


def check(old: Path, new: Path) -> str:
    lines = [f"Engines chosen: {(new / 'choices.txt').read_text()}.", ""]
    lines += ["Agreement with 1.5.7 on simulated films:", ""]
    for name, case in cases().items():
        expected = np.load(old / f"{name}-exact.npy").astype(np.float64)
        for label in PRECISIONS:
            found = np.load(new / f"{name}-{label}.npy").astype(np.float64)
            lines.append(
                f"- {name}, {label}, {case.films} films: {COMPARED[name](expected, found)}"
            )
    return "\n".join(lines)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def classifiers(expected: np.ndarray, found: np.ndarray) -> str:
    largest = np.abs(sigmoid(expected) - sigmoid(found)).max()
    ranks = [spearman(a, b) for a, b in zip(expected.T, found.T, strict=True)]
    return f"probabilities within {largest:.1e}, least Spearman of a finding {min(ranks):.6f}"


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def masks(expected: np.ndarray, found: np.ndarray) -> str:
    one, other = expected > 0, found > 0
    sizes = (one.sum((0, 2, 3)) + other.sum((0, 2, 3))).clip(1)
    dice = 2 * (one & other).sum((0, 2, 3)) / sizes
    shown = dice[(one | other).any((0, 2, 3))]
    largest = np.abs(sigmoid(expected) - sigmoid(found)).max()
    least = f"least Dice of {len(shown)} structures {shown.min():.5f}"
    return f"probabilities within {largest:.1e}, {least}"


def pictures(expected: np.ndarray, found: np.ndarray) -> str:
    error = np.sqrt(((expected - found) ** 2).mean())
    span = expected.max() - expected.min()
    return f"PSNR {20 * np.log10(span / max(error, 1e-12)):.0f} dB of their range"


COMPARED = {
    "DenseNet121": classifiers,
    "ResNet50": classifiers,
    "PSPNet": masks,
    "ResNetAE101": pictures,
}

if __name__ == "__main__":
    main(
        __doc__,
        version_1,
        this_package,
        by_hand=by_hand,
        prepare=prepare,
        settings={"default threads": {}},
        check=check,
    )
