"""From Python in one call: paths in, a table in memory out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from torchxrayvision.inference._borrowed import borrowed
from torchxrayvision.inference._choose import choose_engine, open_engine
from torchxrayvision.inference._engine import input_size
from torchxrayvision.inference._pipeline import Reading, batches, first_images, results_of
from torchxrayvision.inference._sources import expand
from torchxrayvision.inference._writers import columns_of
from torchxrayvision.models import check_output_kind, get_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd
    import torch

    from torchxrayvision.inference._pipeline import Result
    from torchxrayvision.inference._sources import Source
    from torchxrayvision.models import XRayClassifier

__all__ = ["predict", "predictions"]


def predict(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    model: str | XRayClassifier,
    *,
    output: str | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    device: str | torch.device | None = None,
    engine: str = "auto",
    precision: str = "exact",
) -> pd.DataFrame:
    """Predict the findings of radiographs.

    Each file is read, cropped to its centre square, resized as scikit-image does, and run. For a
    table that does not fit the memory, or a run that may be interrupted, see `predict_to_file`.

    Args:
        paths: What `expand` takes: files, folders, patterns, lists, archives; one or several.
        model: Name of published weights, or a model, which is afterwards as it was.
        output: `"logit"`, `"probability"` or `"operating-point"`; None for the model's default.
        batch_size: Images that go through the network together.
        workers: Threads that read images; None for one a processor.
        device: Where the network runs meanwhile; None leaves it where it is.
        engine: `"torch"`, `"onnx"`, `"openvino"`, or `"auto"` for the fastest on this machine.
        precision: `"exact"`, or `"fast"` for probabilities within 0.01 of it.

    Returns:
        One row a file: `path`, `error` (empty if all went well), one float32 column a trained
        finding, NaN after an error.

    Raises:
        UnknownNameError: If no such weights, output kind, engine or precision exist.
        DependencyError: If the package of the engine is missing.
        RemoteError: If the weights cannot be fetched.
    """
    import pandas as pd

    net = get_model(model) if isinstance(model, str) else model
    listed = [paths] if isinstance(paths, str | os.PathLike) else paths
    with borrowed(net, device):
        results = list(
            predictions(
                net, list(expand(listed)), kind=output, batch_size=batch_size, engine=engine,
                precision=precision, reading=Reading(workers=workers),
            )
        )  # fmt: skip
    table: dict[str, object] = {
        "path": [r.path for r in results],
        "error": [r.error for r in results],
    }
    for name, index in columns_of(net.targets, net.trained).items():
        values = [float("nan") if r.outputs is None else r.outputs[index] for r in results]
        table[name] = pd.Series(values, dtype="float32")
    return pd.DataFrame(table)


def predictions(
    model: XRayClassifier,
    sources: Sequence[Source],
    *,
    kind: str | None = None,
    batch_size: int = 8,
    engine: str = "auto",
    precision: str = "exact",
    reading: Reading | None = None,
    embeddings: bool = False,
) -> Iterator[Result]:
    """Predict every source, one result each, in order, as they are done.

    Args:
        model: In evaluation mode, on its device; must have an input resolution.
        sources: What `expand` gives.
        kind: `"logit"`, `"probability"` or `"operating-point"`; None for the model's default.
        batch_size: Images that go through the network together.
        engine: See `predict`.
        precision: See `predict`.
        reading: How files are read.
        embeddings: Whether results carry the features.

    Yields:
        One result a source. A file that cannot be read gives a result with an error.
    """
    wanted = model.default_output if kind is None else check_output_kind(kind)
    size = max(1, min(batch_size, len(sources)))  # one film must not cost a whole batch
    choice = choose_engine(
        model, size, engine, precision, images=len(sources),
        sample=lambda: first_images(sources, input_size(model), size, reading or Reading()),
    )  # fmt: skip
    runner = open_engine(model, wanted, size, choice)
    for chunk, batch in batches(runner, sources, reading=reading, features=embeddings):
        yield from results_of(chunk, batch)
