"""`xrv export`: a model as a file that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from torchxrayvision.cli.console import EXIT_USAGE, errors, file_to_write, show_error, show_warnings
from torchxrayvision.errors import UnknownNameError

if TYPE_CHECKING:
    from torchxrayvision.models import XRayModel

__all__ = ["export"]


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Published weights (`xrv weights list`), a file of your own, or a network of "
            "another group as module.Class, such as chestx_det.PSPNet."
        ),
    ],
    to: Annotated[str, typer.Option(help="onnx, openvino, torch-export or safetensors.")],
    out: Annotated[Path, typer.Option(help="The file to write.", callback=file_to_write)],
    weights: Annotated[
        str | None, typer.Option(help="Published weights that a file of your own belongs to.")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Side of the images, where the model names none.")
    ] = None,
) -> None:
    """Write a model as ONNX, OpenVINO, torch.export or safetensors, and compare the two.

    The batch is of any size. Targets, operating points, resolution and the way to prepare an image
    are in the file. A file that gives other numbers than the model is not kept.
    """
    with show_warnings():
        from torchxrayvision.inference import export as write

        try:
            done = write(_model(model, weights), to, out, input_resolution=resolution)
        except ValueError as error:
            show_error(error)
            raise typer.Exit(EXIT_USAGE) from None
    errors().print(
        f"{done.path}: differs from the model by at most {done.difference:.1e}",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def _model(name: str, weights: str | None) -> XRayModel:
    from torchxrayvision import baseline_models
    from torchxrayvision.models import get_model, load_checkpoint

    if Path(name).is_file():
        return load_checkpoint(name, weights=weights)
    module, _, network = name.rpartition(".")
    if module in baseline_models.__all__:
        package = getattr(baseline_models, module)
        known = [public for public in package.__all__ if not public.endswith("_Weights")]
        if network not in known:
            raise UnknownNameError(f"network of {module}", network, known)
        found: XRayModel = getattr(package, network)()
        return found
    return get_model(name)
