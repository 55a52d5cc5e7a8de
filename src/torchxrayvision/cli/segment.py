"""`xrv segment`: structures of radiographs as masks, pictures and measures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    EXIT_USAGE,
    checked_device,
    errors,
    folder_to_write,
    progress_of,
    show_error,
    show_warnings,
)

if TYPE_CHECKING:
    from torchxrayvision.segmentation import Segmentation

__all__ = ["segment"]


def segment(
    paths: Annotated[list[str], typer.Argument(help="Radiographs, or folders of them.")],
    model: Annotated[str, typer.Option(help="Network, such as chestx_det.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.", callback=folder_to_write)],
    structure: Annotated[
        list[str] | None,
        typer.Option(help='Only this one, such as "Lungs"; may be given again.'),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Least probability inside a mask.")
    ] = 0.5,
    pixel_spacing: Annotated[
        float | None,
        typer.Option(help="Millimetres a pixel, for files that do not say it themselves."),
    ] = None,
    upright: Annotated[
        bool, typer.Option(help="Set films that lie turned upright for the network.")
    ] = False,
    nifti: Annotated[bool, typer.Option(help="Write label maps as NIfTI too.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 1,
    engine: Annotated[
        str, typer.Option(help="torch, onnx, openvino, or auto for the fastest here.")
    ] = "torch",
    precision: Annotated[
        str, typer.Option(help="exact, or fast: masks with a Dice coefficient of 0.995.")
    ] = "exact",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps [cpu].", callback=checked_device)
    ] = None,
) -> None:
    """Write masks, an overlay picture, areas and measures for each radiograph.

    Masks have the geometry of the file, also where --upright turned the film for the network.
    Millimetres are those at the detector, where organs appear larger than they are. Files that
    cannot be read become rows with an error, and the exit code is 1.
    """
    from torchxrayvision.inputs import expand
    from torchxrayvision.segmentation import SegmentationWriter, get_segmenter
    from torchxrayvision.segmentation import segment as run

    with show_warnings():
        net = get_segmenter(model)
        spacing = None if pixel_spacing is None else (pixel_spacing, pixel_spacing)
        total = sum(1 for _ in expand(paths))
        if total == 0:
            show_error(ValueError(f"no image in {', '.join(paths)}"))
            raise typer.Exit(EXIT_USAGE)
        try:
            results = run(
                paths,
                net,
                threshold=threshold,
                pixel_spacing=spacing,
                batch_size=batch_size,
                device=device,
                engine=engine,
                precision=precision,
                upright=upright,
            )
        except ValueError as error:
            show_error(error)
            raise typer.Exit(EXIT_USAGE) from None
        failed = turned = 0
        with SegmentationWriter(out, net.targets, only=structure, nifti=nifti) as writer:
            for result in _progress(results, total):
                writer.write(result)
                failed += bool(result.error)
                turned += bool(result.turned)
    errors().print(f"{total} rows in {out / 'measures.csv'}", markup=False, soft_wrap=True)
    if turned:
        done = "were set upright" if upright else "seem to lie turned, --upright sets them upright"
        errors().print(f"{turned} of {total} films {done}; see turned_clockwise", markup=False)
    if failed:
        errors().print(f"{failed} of {total} files could not be read")
        raise typer.Exit(EXIT_SOME_FAILED)


def _progress(results: Iterator[Segmentation], total: int) -> Iterator[Segmentation]:
    """The results, under a bar on a terminal."""
    with progress_of(total) as advance:
        for done, result in enumerate(results, start=1):
            yield result
            advance(done, total)
