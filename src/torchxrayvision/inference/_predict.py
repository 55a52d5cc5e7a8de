"""From Python in one call: paths in, a table out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from torchxrayvision.inference._pipeline import default_workers, run
from torchxrayvision.inference._sources import expand
from torchxrayvision.inference._writers import columns_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    import torch

    from torchxrayvision.models import XRayClassifier

__all__ = ["predict"]


def predict(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    model: str | XRayClassifier,
    *,
    output: str | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    device: str | torch.device | None = None,
) -> pd.DataFrame:
    """Predict the findings of radiographs.

    Each file is read, cropped to its centre square, resized as scikit-image does, and run.

    Args:
        paths: A file or folder, or several; PNG, JPEG, TIFF and DICOM.
        model: Name of published weights, or a model.
        output: `"logit"`, `"probability"` or `"operating-point"`; None for the model's default.
        batch_size: Images that go through the network together.
        workers: Threads that read images; None for one a processor.
        device: Where the network runs; None leaves it where it is.

    Returns:
        One row a file: `path`, `error` (empty if all went well), one float32 column a trained
        finding, NaN after an error.

    Raises:
        UnknownNameError: If no such weights or output kind exist.
        RemoteError: If the weights cannot be fetched.
    """
    import pandas as pd

    from torchxrayvision.models import get_model
    from torchxrayvision.models._calibration import check_output_kind

    net = get_model(model) if isinstance(model, str) else model
    net = net.eval() if device is None else net.eval().to(device)
    kind = net.default_output if output is None else check_output_kind(output)
    listed = [paths] if isinstance(paths, str | os.PathLike) else paths
    count = default_workers() if workers is None else workers
    results = list(
        run(net, expand(listed), kind=kind, batch_size=batch_size, workers=count, embeddings=False)
    )
    columns = columns_of(net.targets, net.trained)
    table: dict[str, object] = {
        "path": [r.path for r in results],
        "error": [r.error for r in results],
    }
    for name, index in columns.items():
        values = [float("nan") if r.outputs is None else r.outputs[index] for r in results]
        table[name] = pd.Series(values, dtype="float32")
    return pd.DataFrame(table)
