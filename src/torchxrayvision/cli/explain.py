"""`xrv explain`: pictures of what speaks for a finding."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

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
from torchxrayvision.errors import ImageReadError, UnknownNameError

if TYPE_CHECKING:
    from torchxrayvision.explain import Explanation

__all__ = ["explain"]

DEFAULT_WEIGHTS: Final = "densenet121-res224-all"
DEFAULT_AUTOENCODER: Final = "101-elastic"
SUMMARY: Final = "explanations.json"
_FILM: Final = "counterfactual"


@dataclass(frozen=True)
class _Row:
    """One explanation, or why there is none, as the summary lists it."""

    path: str
    target: str
    method: str
    weights: str
    error: str = ""
    kind: str = ""
    value: float | None = None
    peak: tuple[int, int] | None = None
    box: tuple[int, int, int, int] | None = None
    picture: str = ""
    film: str = ""


def explain(
    paths: Annotated[list[Path], typer.Argument(help="Radiographs, or folders of them.")],
    target: Annotated[list[str], typer.Option(help="Finding to explain; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.", callback=folder_to_write)],
    method: Annotated[
        str,
        typer.Option(
            help="cam, gradcam, gradcam++, gradients, ig, occlusion or counterfactual (a film)."
        ),
    ] = "gradcam",
    weights: Annotated[
        str | None,
        typer.Option(help=f"Published weights, see `xrv weights list` [{DEFAULT_WEIGHTS}]."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A file of your own; with --weights, in the place of that file."),
    ] = None,
    autoencoder: Annotated[
        str, typer.Option(help="Weights of the autoencoder of a counterfactual.")
    ] = DEFAULT_AUTOENCODER,
    film: Annotated[str, typer.Option(help="gif, webp or mp4.")] = "gif",
    boxes: Annotated[
        bool, typer.Option("--boxes", help="Draw a box around the strongest evidence.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1, mps.", callback=checked_device)
    ] = "cpu",
) -> None:
    """Write a picture for each radiograph and finding: what speaks for it, over the radiograph.

    OUT/explanations.json lists what was done: the value of the finding, the pixel and the box of
    the strongest evidence. Files that cannot be read are listed with an error, and the exit code
    is 1.
    """
    from torchxrayvision.inputs import expand

    with show_warnings():
        run = _Run(target, method, weights, checkpoint, autoencoder, film, boxes, device, out)
        sources = list(expand(paths))
        if not sources:
            show_error(ValueError(f"no image in {', '.join(map(str, paths))}"))
            raise typer.Exit(EXIT_USAGE)
        out.mkdir(parents=True, exist_ok=True)
        rows: list[_Row] = []
        with progress_of(len(sources)) as advance:
            for done, source in enumerate(sources, start=1):
                rows += run.one(source)
                advance(done, len(sources))
    text = json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False)
    (out / SUMMARY).write_text(text + "\n", "utf-8")
    for row in rows:
        if row.error:
            show_error(ValueError(f"{row.path}: {row.error}"))
    errors().print(f"{len(rows)} rows in {out / SUMMARY}", markup=False, soft_wrap=True)
    if any(row.error for row in rows):
        raise typer.Exit(EXIT_SOME_FAILED)


class _Run:
    """Everything that is the same for all files."""

    def __init__(
        self,
        targets: list[str],
        method: str,
        weights: str | None,
        checkpoint: Path | None,
        autoencoder: str,
        film: str,
        boxes: bool,
        device: str,
        out: Path,
    ) -> None:
        from torchxrayvision.explain import METHODS, check_film
        from torchxrayvision.models import get_model, load_checkpoint

        if method not in (*METHODS, _FILM):
            raise UnknownNameError("method", method, (*METHODS, _FILM))
        check_film(f".{film}")
        if checkpoint is None:
            self.model = get_model(weights or DEFAULT_WEIGHTS).to(device)
        else:
            self.model = load_checkpoint(checkpoint, weights=weights).to(device)
        known = [n for n, good in zip(self.model.targets, self.model.trained, strict=True) if good]
        for name in targets:
            if name not in known:  # a file later would be too late, and an untrained output wrong
                raise UnknownNameError("target", name, known)
        self.options: dict[str, Any] = {}
        if method == _FILM:
            from torchxrayvision.autoencoders import ResNetAE

            self.options["autoencoder"] = ResNetAE(autoencoder).to(device)
        self.targets = list(dict.fromkeys(targets))
        self.method, self.film, self.boxes = method, film, boxes
        self.out, self.taken = out, set[str]()
        self.name = str(self.model.weights)

    def one(self, source: Any) -> list[_Row]:
        """Explain all targets of one file."""
        return [self._explain(source, target) for target in self.targets]

    def _explain(self, source: Any, target: str) -> _Row:
        from torchxrayvision.explain import explain_file

        row = _Row(source.given, target, self.method, self.name, source.problem)
        if row.error:
            return row
        if source.member is not None:
            return replace(row, error="is in an archive; explain takes files, unpack it first")
        try:
            result = explain_file(source.path, self.model, target, self.method, **self.options)
        except ImageReadError as error:
            return replace(row, error=str(error.reason))
        return self._write(result, row)

    def _write(self, result: Explanation, row: _Row) -> _Row:
        from PIL import Image

        stem = self._free(f"{Path(row.path).stem}.{row.target}.{row.method}")
        picture, film = f"{stem}.png", ""
        Image.fromarray(result.picture(boxes=self.boxes)).save(self.out / picture)
        if result.counterfactual is not None:
            from torchxrayvision.explain import save_film

            film = save_film(
                result.counterfactual, self.out / f"{stem}.film.{self.film}", title=row.target
            ).name
        return replace(
            row,
            kind=result.kind,
            value=result.value,
            peak=result.peak,
            box=result.box,
            picture=picture,
            film=film,
        )

    def _free(self, name: str) -> str:
        """A file name that this run has not used yet."""
        plain = re.sub(r"[^\w.+-]+", "_", name)
        free, count = plain, 1
        while free in self.taken:
            count += 1
            free = f"{plain}.{count}"
        self.taken.add(free)
        return free
