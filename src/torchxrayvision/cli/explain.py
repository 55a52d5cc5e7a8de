"""`xrv explain`: pictures of what speaks for a finding."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    inform,
    named_images,
    progress_of,
    refuse,
    refuse_existing,
    show_error,
    show_warnings,
)
from torchxrayvision.cli.options import (
    DEFAULT_WEIGHTS,
    Checkpoint,
    Device,
    FromFile,
    Images,
    OutDir,
    Overwrite,
    Weights,
)
from torchxrayvision.errors import ImageReadError, UnknownNameError

if TYPE_CHECKING:
    from torchxrayvision.explain import Explanation

__all__ = ["explain"]

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
    target: Annotated[
        list[str], typer.Option(help="Finding to explain; may be given several times.")
    ],
    out_dir: OutDir,
    paths: Images = None,
    from_file: FromFile = None,
    method: Annotated[
        Literal[
            "cam",
            "gradcam",
            "gradcam++",
            "gradients",
            "ig",
            "occlusion",
            "counterfactual",
        ],
        typer.Option(help="How; counterfactual writes an animation."),
    ] = "gradcam",
    weights: Weights = None,
    checkpoint: Checkpoint = None,
    autoencoder: Annotated[
        str, typer.Option(help="Weights of the autoencoder of a counterfactual.")
    ] = DEFAULT_AUTOENCODER,
    film: Annotated[
        Literal["gif", "webp", "mp4"], typer.Option("--animation", help="Format of an animation.")
    ] = "gif",
    boxes: Annotated[
        bool, typer.Option("--boxes", help="Draw a box around the strongest evidence.")
    ] = False,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Write a heat map over the radiograph for each radiograph and finding.

    OUT_DIR/explanations.json lists what was done: the value of the finding, and the pixel and box
    of the strongest evidence. A file that cannot be read is listed with an error, and the exit
    code is 1.
    """
    names = named_images(paths, from_file)
    refuse_existing(out_dir, overwrite)
    from torchxrayvision.inputs import expand

    with show_warnings():
        run = _Run(
            target, method, weights, checkpoint, autoencoder, film, boxes, device or "cpu", out_dir
        )
        sources = list(expand(names))
        if not sources:
            refuse(f"no image in {', '.join(names)}")
        out_dir.mkdir(parents=True, exist_ok=True)
        rows: list[_Row] = []
        with progress_of(len(sources)) as advance:
            for done, source in enumerate(sources, start=1):
                rows += run.one(source)
                advance(done, len(sources))
    text = json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False)
    (out_dir / SUMMARY).write_text(text + "\n", "utf-8")
    for row in rows:
        if row.error:
            show_error(ValueError(f"{row.path}: {row.error}"))
    inform(f"{len(rows)} rows in {out_dir / SUMMARY}")
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
