"""`xrv segment`: structures of radiographs as masks, pictures and measures."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    inform,
    named_images,
    refuse,
    refuse_existing,
    run_progress,
    show_warnings,
)
from torchxrayvision.cli.options import (
    BatchSize,
    Device,
    Engine,
    Frame,
    FromFile,
    Images,
    Isolate,
    MaxPixels,
    OutDir,
    Overwrite,
    Strict,
    Structures,
    TimeLimit,
    Upright,
    Workers,
)
from torchxrayvision.errors import XRVError


def segment(
    out_dir: OutDir,
    paths: Images = None,
    from_file: FromFile = None,
    weights: Annotated[
        str, typer.Option("--weights", "-w", help="Segmentation network, such as chestx_det.")
    ] = "chestx_det",
    structure: Structures = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Least probability inside a mask.")
    ] = 0.5,
    pixel_spacing: Annotated[
        float | None,
        typer.Option(help="Millimetres per pixel, for files that do not say it themselves."),
    ] = None,
    upright: Upright = False,
    nifti: Annotated[bool, typer.Option("--nifti", help="Write label maps as NIfTI too.")] = False,
    batch_size: BatchSize = 1,
    engine: Engine = "torch",
    precision: Annotated[
        Literal["exact", "fast"],
        typer.Option(help="fast: masks with a Dice coefficient of 0.995 or more to exact ones."),
    ] = "exact",
    device: Device = None,
    workers: Workers = None,
    time_limit: TimeLimit = None,
    isolate: Isolate = False,
    strict: Strict = False,
    frame: Frame = None,
    max_pixels: MaxPixels = None,
    overwrite: Overwrite = False,
) -> None:
    """Write masks, an overlay picture, areas and measures for each radiograph.

    Masks have the geometry of the file, also where --upright turned the image for the network.
    Millimetres are those at the detector, where organs appear larger than they are. A file that
    cannot be read becomes a row with an error, and the exit code is 1.
    """
    names = named_images(paths, from_file)
    table = out_dir / "measures.csv"
    refuse_existing(out_dir, overwrite, unfinished=table)
    from torchxrayvision.inputs import ReadOptions
    from torchxrayvision.segmentation import segment_to_folder

    reading = ReadOptions.of(
        workers=workers, time_limit=time_limit, isolate=isolate, strict=strict, frame=frame,
        max_pixels=max_pixels,
    )  # fmt: skip
    with show_warnings(), run_progress() as progress:
        try:
            done, turned = segment_to_folder(
                names, weights, out_dir, only=structure, nifti=nifti, threshold=threshold,
                pixel_spacing=None if pixel_spacing is None else (pixel_spacing, pixel_spacing),
                batch_size=batch_size, device=device, engine=engine, precision=precision,
                upright=upright, reading=reading, overwrite=overwrite,
                on_found=progress.found, on_progress=progress.move,
            )  # fmt: skip
        except XRVError:
            raise
        except ValueError as error:
            refuse(str(error))
    if not done.images:
        refuse(f"no image in {', '.join(names)}")
    inform(f"{done.resumed} rows were there already" if done.resumed else "")
    inform(f"{done.total} rows in {table}")
    inform(done.skipped)
    if turned:
        said = "were turned upright" if upright else "seem to be rotated; --upright turns them"
        inform(f"{turned} of {done.total} images {said}; see turned_clockwise")
    if done.failed:
        inform(f"{done.failed} of {done.total} files could not be read")
        raise typer.Exit(EXIT_SOME_FAILED)
