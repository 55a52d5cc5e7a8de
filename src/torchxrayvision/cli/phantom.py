"""`xrv phantom`: write simulated radiographs in the layout of a real release."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from torchxrayvision.cli.console import console, errors, folder_to_write, progress_of

__all__ = ["phantom"]


def phantom(
    out: Annotated[
        Path, typer.Option(help="New or empty folder to write.", callback=folder_to_write)
    ],
    n: Annotated[int, typer.Option("--n", min=1, help="Number of films.")] = 20,
    layout: Annotated[
        str, typer.Option(help="folder (PNG, JPEG, DICOM, masks), nih, chexpert, rsna or siim.")
    ] = "folder",
    seed: Annotated[int, typer.Option(min=0, help="Another seed is other patients.")] = 0,
    size: Annotated[
        int | None, typer.Option(min=16, help="Side in pixels; as in the release if not given.")
    ] = None,
    site: Annotated[str, typer.Option(help="Look of the films: A, B or C.")] = "A",
    views: Annotated[
        list[str] | None,
        typer.Option("--view", help="View to simulate: PA, AP or L; may be repeated."),
    ] = None,
) -> None:
    """Write simulated radiographs with known findings as files and tables of a release."""
    from torchxrayvision.phantom import release_layouts, write_release

    with progress_of(n) as advance:
        arguments = write_release(
            out, n, seed, layout, size=size, site=site, views=views, progress=advance
        )
    given = dict(arguments)
    imgpath = given.pop("imgpath", None)
    name = release_layouts()[layout].removesuffix("_Dataset").lower()
    words = ["xrv", "datasets", "describe", name]
    words += [] if imgpath is None else ["--imgpath", str(imgpath)]
    for argument, value in given.items():
        words += ["--with", f"{argument}={value}"]
    errors().print(f"{n:,} simulated films in {out}. What they show:", markup=False)
    console().print(shlex.join(words), markup=False, soft_wrap=True)
