"""`xrv segment`: structures of radiographs as masks, pictures and measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    end_run,
    graph_faults,
    inform,
    named_images,
    note_pictures_among,
    read_options,
    refuse,
    refuse_existing,
    run_progress,
    show_warnings,
)
from torchxrayvision.errors import XRVError

if TYPE_CHECKING:
    from torchxrayvision.inference import MaskGraph

_DEFAULT: Final = "chestx_det"


@opt.reads_images
def segment(
    out_dir: opt.OutDir,
    paths: opt.Images = None,
    from_file: opt.FromFile = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", "-w", help=f"Segmentation network, such as demo-anatomy [{_DEFAULT}]."
        ),
    ] = None,
    graph: opt.GraphFile = None,
    structure: opt.Structures = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Least probability inside a mask.")
    ] = 0.5,
    pixel_spacing: Annotated[
        float | None,
        typer.Option(help="Millimetres per pixel, for files that do not say it themselves."),
    ] = None,
    upright: opt.Upright = False,
    nifti: Annotated[bool, typer.Option("--nifti", help="Write label maps as NIfTI too.")] = False,
    batch_size: opt.GrowingBatch = None,
    engine: opt.Engine = "torch",
    precision: Annotated[
        Literal["exact", "fast"],
        typer.Option(help="fast: masks with a Dice coefficient of 0.995 or more to exact ones."),
    ] = "exact",
    device: opt.Devices = None,
    reading: Callable[..., Any] = read_options,
    overwrite: opt.Overwrite = False,
) -> None:
    """Write masks, an overlay picture, areas and measures for each radiograph.

    Masks have the geometry of the file, also where --upright turned the image for the network.
    Millimetres are those at the detector, where organs appear larger than they are. A file that
    cannot be read becomes a row with an error, and the exit code is 1.
    """
    names = named_images(paths, from_file)
    for wrong, reason in graph_faults(graph, weights, device=device):
        if wrong:
            refuse(reason)
    table = out_dir / "measures.csv"
    refuse_existing(out_dir, overwrite, unfinished=table)
    note_pictures_among(names, out_dir)
    from torchxrayvision.segmentation import segment_to_folder

    with show_warnings(), run_progress() as progress:
        try:
            net = _network(weights, graph, engine)
            done, turned = segment_to_folder(
                names, net, out_dir, only=structure, nifti=nifti, threshold=threshold,
                pixel_spacing=None if pixel_spacing is None else (pixel_spacing, pixel_spacing),
                batch_size=batch_size, device=device, engine=engine, precision=precision,
                upright=upright, reading=reading(), overwrite=overwrite,
                on_found=progress.found, on_progress=progress.move,
            )  # fmt: skip
        except XRVError:
            raise
        except ValueError as error:
            refuse(error)
    if turned:
        said = "were turned upright" if upright else "seem to be rotated; --upright turns them"
        inform(f"{turned} of {done.total} images {said}; see turned_clockwise")
    end_run(done, names)


def _network(weights: str | None, graph: Path | None, engine: str) -> str | MaskGraph:
    """What is asked: a name, or the graph in a file."""
    from torchxrayvision.inference import open_mask_graph

    if graph is not None:
        return open_mask_graph(graph, "auto" if engine == "torch" else engine)
    opt.refuse_torch_where_missing(engine)
    return weights or _DEFAULT
