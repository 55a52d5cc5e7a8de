"""`xrv join`: one table from the shards of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import EXIT_SOME_FAILED, count, inform


def join(
    output: Annotated[Path, typer.Argument(help="The table that the shards were given.")],
    overwrite: opt.Overwrite = False,
) -> None:
    """Make the table of `xrv predict --shard i/n` runs, once all of them are done.

    It is byte for byte the one of a run without shards.
    """
    from torchxrayvision.inference import join_shards

    done = join_shards(output, overwrite=overwrite)
    inform(f"{count(done.total, 'row')} in {done.place}")
    if done.failed:
        raise typer.Exit(EXIT_SOME_FAILED)
