"""`xrv segment`: structures of radiographs as masks, pictures and measures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    inform,
    named_images,
    progress_of,
    refuse,
    refuse_existing,
    show_warnings,
)
from torchxrayvision.cli.options import (
    BatchSize,
    Device,
    Engine,
    FromFile,
    Images,
    OutDir,
    Overwrite,
)

if TYPE_CHECKING:
    from torchxrayvision.segmentation import Segmentation

__all__ = ["segment"]


def segment(
    out_dir: OutDir,
    paths: Images = None,
    from_file: FromFile = None,
    weights: Annotated[
        str, typer.Option("--weights", "-w", help="Segmentation network, such as chestx_det.")
    ] = "chestx_det",
    structure: Annotated[
        list[str] | None,
        typer.Option(help='Only this one, such as "Lungs"; may be given several times.'),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Least probability inside a mask.")
    ] = 0.5,
    pixel_spacing: Annotated[
        float | None,
        typer.Option(help="Millimetres per pixel, for files that do not say it themselves."),
    ] = None,
    upright: Annotated[
        bool, typer.Option("--upright", help="Turn rotated radiographs upright for the network.")
    ] = False,
    nifti: Annotated[bool, typer.Option("--nifti", help="Write label maps as NIfTI too.")] = False,
    batch_size: BatchSize = 1,
    engine: Engine = "torch",
    precision: Annotated[
        Literal["exact", "fast"],
        typer.Option(help="fast: masks with a Dice coefficient of 0.995 or more to exact ones."),
    ] = "exact",
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Write masks, an overlay picture, areas and measures for each radiograph.

    Masks have the geometry of the file, also where --upright turned the image for the network.
    Millimetres are those at the detector, where organs appear larger than they are. A file that
    cannot be read becomes a row with an error, and the exit code is 1.
    """
    names = named_images(paths, from_file)
    refuse_existing(out_dir, overwrite)
    from torchxrayvision.inputs import expand
    from torchxrayvision.segmentation import SegmentationWriter, get_segmenter
    from torchxrayvision.segmentation import segment as run

    with show_warnings():
        net = get_segmenter(weights)
        spacing = None if pixel_spacing is None else (pixel_spacing, pixel_spacing)
        total = sum(1 for _ in expand(names))
        if total == 0:
            refuse(f"no image in {', '.join(names)}")
        try:
            results = run(
                names,
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
            refuse(str(error))
        failed = turned = 0
        with SegmentationWriter(out_dir, net.targets, only=structure, nifti=nifti) as writer:
            for result in _progress(results, total):
                writer.write(result)
                failed += bool(result.error)
                turned += bool(result.turned)
    inform(f"{total} rows in {out_dir / 'measures.csv'}")
    if turned:
        done = "were turned upright" if upright else "seem to be rotated; --upright turns them"
        inform(f"{turned} of {total} images {done}; see turned_clockwise")
    if failed:
        inform(f"{failed} of {total} files could not be read")
        raise typer.Exit(EXIT_SOME_FAILED)


def _progress(results: Iterator[Segmentation], total: int) -> Iterator[Segmentation]:
    """The results, under a bar on a terminal."""
    with progress_of(total) as advance:
        for done, result in enumerate(results, start=1):
            yield result
            advance(done, total)
