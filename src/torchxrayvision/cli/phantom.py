"""`xrv phantom`: write simulated radiographs in the layout of a real release."""

from __future__ import annotations

import shlex
import shutil
from typing import Annotated, Literal

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import console, count, inform, progress_of, refuse_existing


def phantom(
    out_dir: opt.OutDir,
    number: opt.Count = None,
    layout: Annotated[
        Literal["folder", "nih", "chexpert", "rsna", "siim"],
        typer.Option(help="Release to imitate; folder holds PNG, JPEG, DICOM and masks."),
    ] = "folder",
    seed: opt.Seed = 0,
    size: Annotated[
        int | None, typer.Option(min=16, help="Side in pixels; as in the release if not given.")
    ] = None,
    site: Annotated[
        Literal["A", "B", "C"], typer.Option(help="Hospital whose appearance to imitate.")
    ] = "A",
    views: Annotated[
        list[str] | None,
        typer.Option("--view", help="View to simulate: PA, AP or L; may be given several times."),
    ] = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Write simulated radiographs with known findings as files and tables of a release."""
    refuse_existing(out_dir, overwrite)
    from torchxrayvision.phantom import release_layouts, write_release

    n = number or 20
    if overwrite and out_dir.is_dir():
        shutil.rmtree(out_dir)

    with progress_of(n) as advance:
        arguments = write_release(
            out_dir, n, seed, layout, size=size, site=site, views=views, progress=advance
        )
    given = dict(arguments)
    imgpath = given.pop("imgpath", None)
    name = release_layouts()[layout].removesuffix("_Dataset").lower()
    words = ["xrv", "datasets", "describe", name]
    words += [] if imgpath is None else ["--imgpath", str(imgpath)]
    for argument, value in given.items():
        words += ["--with", f"{argument}={value}"]
    inform(f"{count(n, 'simulated radiograph')} in {out_dir}. What they show:")
    console().print(shlex.join(words), markup=False, soft_wrap=True)
