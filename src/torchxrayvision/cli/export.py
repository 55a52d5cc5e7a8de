"""`xrv export`: a model as a file that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    file_to_write,
    inform,
    refuse,
    refuse_existing,
    show_warnings,
)
from torchxrayvision.errors import UnknownNameError

if TYPE_CHECKING:
    from torchxrayvision.models import XRayModel

_CHECKPOINTS: Final = (".pt", ".pth", ".ckpt", ".tar", ".bin", ".safetensors")


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Published weights (`xrv weights list`), a file of your own, or a network of "
            "another group as module.Class, such as chestx_det.PSPNet."
        ),
    ],
    to: Annotated[
        Literal["onnx", "openvino", "torch-export", "safetensors"],
        typer.Option(help="The format."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write.", callback=file_to_write)
    ],
    weights: Annotated[
        str | None,
        typer.Option("--weights", "-w", help="Published weights that a file of your own fits."),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Side of the images, where the model names none.")
    ] = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Write a model as ONNX, OpenVINO, torch.export or safetensors, and check the file.

    The file takes batches of any size and holds the targets, the operating points, the resolution
    and how to prepare an image. A file that gives other numbers than the model is not kept.
    """
    refuse_existing(output, overwrite)
    with show_warnings():
        from torchxrayvision.inference import export as write

        try:
            done = write(_model(model, weights), to, output, input_resolution=resolution)
        except ValueError as error:
            refuse(error)
    inform(f"{done.path}: differs from the model by at most {done.difference:.1e}")


def _model(name: str, weights: str | None) -> XRayModel:
    from torchxrayvision import baseline_models
    from torchxrayvision.models import get_model, load_checkpoint

    path = Path(name)
    if path.is_file():
        return load_checkpoint(path, weights=weights)
    if path.suffix.lower() in _CHECKPOINTS:  # no name of weights ends like this
        refuse(f"{name}: no such file")
    module, _, network = name.rpartition(".")
    if module in dir(baseline_models):
        package = getattr(baseline_models, module)
        known = [public for public in package.__all__ if not public.endswith("_Weights")]
        if network not in known:
            raise UnknownNameError(f"network of {module}", network, known)
        found: XRayModel = getattr(package, network)()
        return found
    return get_model(name)
