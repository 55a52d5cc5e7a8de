"""`xrv weights add`, `remove`, `convert`, `card`, `export-hub` and `push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    console,
    count,
    file_to_write,
    folder_to_write,
    inform,
    print_json,
    refuse,
    refuse_existing,
    show_warnings,
)

if TYPE_CHECKING:
    from torchxrayvision.facts import License

Model = Annotated[
    str,
    typer.Argument(
        help="A name of weights, a checkpoint of your own, or a folder with config.json."
    ),
]
LicenseName = Annotated[
    str | None,
    typer.Option("--license", help="Terms, where the weights state none: MIT, CC BY-NC 4.0, ..."),
]
LicenseUrl = Annotated[str, typer.Option(help="Where the text of the terms stands.")]


def _license(name: str | None, url: str) -> License | None:
    from torchxrayvision.facts import License

    if name is None:
        if url:
            refuse("--license-url needs --license")
        return None
    return License(name=name, url=url)


def add(
    source: Annotated[
        str,
        typer.Argument(
            help="A file, a folder of a saved network or of a release, or hf://owner/name, with "
            "@revision and /path/of/file as wanted."
        ),
    ],
    name: Annotated[
        str,
        typer.Option("--name", help="By which --weights finds them from now on."),
    ] = "",
    like: Annotated[
        str | None,
        typer.Option(
            help="Published weights whose outputs and operating points apply, or of whose form "
            "the tensors of an encoder or zero-shot network are."
        ),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(help="Names of the outputs, with commas, if none are stated."),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Side of the images, where the model names none.")
    ] = None,
    license_name: LicenseName = None,
    license_url: LicenseUrl = "",
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Bring weights from a file or the Hub into the cache, under a name that --weights takes.

    A published file, known by its SHA-256 or named by --name, is put where it is looked for. Any
    other is read without executing anything in it, and kept as safetensors with its hash and
    where it came from.
    """
    terms = _license(license_name, license_url)
    if not name and not source.startswith("hf://") and not Path(source).expanduser().exists():
        refuse(f"{source}: there is no such file; name one, or hf://owner/name")
    if source.startswith("hf://"):  # before torch is loaded: without a network it ends here
        from torchxrayvision.remote import HubAddress, look_up

        look_up(HubAddress.parse(source))
    names = [part.strip() for part in targets.split(",")] if targets is not None else None
    from torchxrayvision.models import add_weights

    with show_warnings():
        done = add_weights(
            source,
            name,
            like=like,
            targets=names,
            input_resolution=resolution,
            license=terms,
            overwrite=overwrite,
        )
    if as_json:
        print_json({key: getattr(done, key) for key in done.__dataclass_fields__})
        return
    kept = "published weights" if done.published else count(len(done.targets), "output")
    console().print(
        f"{done.name}: {kept}, licence {done.license or 'not stated'}\n{done.path}\n"
        f"sha256 {done.sha256}",
        markup=False,
        soft_wrap=True,
    )


def remove(
    names: Annotated[list[str], typer.Argument(help="Names that `xrv weights add` gave.")],
) -> None:
    """Delete weights that were added; published ones are files of the cache."""
    from torchxrayvision.weights import remove_own

    for name in names:
        remove_own(name)
        inform(f"{name} is removed")


def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint of any kind that PyTorch writes.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write.", callback=file_to_write)
    ],
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Write the tensors of a checkpoint as safetensors, with where they came from.

    Nothing in the checkpoint is executed. The header holds its name, SHA-256 and container, and
    the numbers and words that lay beside the tensors.
    """
    if output.suffix.lower() != ".safetensors":
        refuse(f"--output ends in .safetensors, not {output.name}")
    refuse_existing(output, overwrite)
    from torchxrayvision.models import convert as write

    made = write(source, output)
    if as_json:
        print_json(made)
        return
    inform(f"{count(made['tensors'], 'tensor')} of {source} ({made['container']}) in {output}")
    for left in made["left_out"]:
        inform(f"left out: {left}")


def card(
    name: Annotated[str, typer.Argument(help="Name or alias of weights.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write.", callback=file_to_write),
    ] = None,
    hub: Annotated[
        bool, typer.Option("--hub", help="With the metadata that the Hugging Face Hub reads.")
    ] = False,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Print the card of weights as Markdown, as JSON, or as the Hub reads it."""
    refuse_existing(output, overwrite)
    from torchxrayvision.weights import ModelCard

    made = ModelCard.of(name)
    if as_json and output is None:
        print_json({**made.to_dict(), "hub": made.hub_metadata()})
        return
    text = made.to_hub() if hub else made.to_markdown()
    if as_json:
        import json

        text = json.dumps(made.to_dict(), indent=1, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    from torchxrayvision.files import write_atomically

    with write_atomically(output) as part:
        part.write_text(text, "utf-8")
    inform(f"the card of {made.name} in {output}")


def export_hub(
    model: Model,
    folder: Annotated[Path, typer.Argument(help="Folder for its files.", callback=folder_to_write)],
    license_name: LicenseName = None,
    license_url: LicenseUrl = "",
    overwrite: opt.Overwrite = False,
) -> None:
    """Write a model as the Hub keeps it: config.json, model.safetensors and a card.

    A network that takes texts has its tokeniser and its texts, as data, beside them.
    `xrv.models.from_pretrained` and `xrv weights add` read the folder back, to the same outputs.
    """
    terms = _license(license_name, license_url)
    refuse_existing(folder, overwrite)
    from torchxrayvision.models import export_hub as write

    with show_warnings():
        config = write(model, folder, license=terms)
    inform(f"{config.architecture} with {count(len(config.targets), 'output')} in {folder}")
    if config.license is None or config.license.name == "not stated":
        inform("no terms are stated: `xrv weights push` wants them, --license NAME")


def push(
    model: Model,
    repo: Annotated[str, typer.Argument(help="owner/name on the Hub; made if it is missing.")],
    license_name: LicenseName = None,
    license_url: LicenseUrl = "",
    public: Annotated[
        bool, typer.Option("--public/--private", help="Who sees a repository that is made.")
    ] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be uploaded, and ask nobody.")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Upload a model with its card to the Hugging Face Hub (extra `hub`).

    What states no terms is refused. The token is that of HF_TOKEN or of `hf auth login`.
    """
    terms = _license(license_name, license_url)
    from torchxrayvision.models import push_to_hub

    with show_warnings():
        done = push_to_hub(
            model, repo, private=not public, license=terms, message=message, dry_run=dry_run
        )
    if as_json:
        print_json({key: getattr(done, key) for key in done.__dataclass_fields__})
        return
    seen = "private if it is new" if done.private else "public if it is new"
    console().print(f"{done.repo}, {seen}, licence {done.license}", markup=False, soft_wrap=True)
    for name, (size, digest) in done.files.items():
        line = f"{name}: {size:,} bytes, sha256 {digest}"
        console().print(line, markup=False, soft_wrap=True)
    inform(done.url or "nothing was uploaded: --dry-run")
