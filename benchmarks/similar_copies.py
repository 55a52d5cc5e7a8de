"""How often `xrv similar` finds the image that a changed copy was made of first.

    python -m benchmarks.similar_copies FOLDER --images 500

Each image is encoded again (JPEG of quality 50), resized to half up to nine tenths of its side,
and windowed (2 to 10 % of the darkest and of the brightest pixels cut off, gamma 0.8 to 1.25).
Every copy is looked for among the unchanged images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from benchmarks.audit_duplicates import change
from PIL import Image

from torchxrayvision.models import get_model
from torchxrayvision.similarity import FEATURES, Encoder, similar, write_index

KINDS = ("encoded at 50", "resized", "windowed")


def copy(grey: Image.Image, kind: str, rng: np.random.Generator, path: Path) -> None:
    """One image as somebody else might have stored it."""
    if kind == "encoded at 50":
        grey.save(path.with_suffix(".jpg"), "JPEG", quality=50)
    else:
        change(grey, kind, rng).save(path.with_suffix(".png"), compress_level=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--weights", default="demo")
    options = parser.parse_args()
    paths = sorted(p for p in options.folder.rglob("*") if p.suffix in (".png", ".jpg"))
    paths = paths[: options.images]
    rng = np.random.default_rng(0)
    network = get_model(options.weights)
    with tempfile.TemporaryDirectory() as name:
        for kind in KINDS:
            place = Path(name, kind)
            place.mkdir()
            for path in paths:
                with Image.open(path) as image:
                    copy(image.convert("L"), kind, rng, place / path.stem)
        print(
            f"{len(paths)} images\n\n| copy | {' | '.join(FEATURES)} |\n| --- | --- | --- | --- |"
        )
        found = {kept: shares(paths, Path(name), Encoder(network, kept)) for kept in FEATURES}
        for kind in KINDS:
            print(f"| {kind} | {' | '.join(f'{found[kept][kind]:.1%}' for kept in FEATURES)} |")
        spent = ", ".join(f"{kept} {found[kept]['seconds']:.1f}" for kept in FEATURES)
        print(f"\nCPU seconds: {spent}")


def shares(paths: list[Path], copies: Path, encoder: Encoder) -> dict[str, float]:
    """Share of the copies of each kind whose first neighbour is the image that they are of."""
    began = time.process_time()
    index = copies / f"{encoder.features}.parquet"
    write_index([str(path) for path in paths], index, encoder)
    answer = {}
    for kind in KINDS:
        table = similar(str(index), str(copies / kind), encoder, n=1)
        right = [
            Path(q).stem == Path(p).stem for q, p in zip(table["query"], table["path"], strict=True)
        ]
        answer[kind] = float(np.mean(right))
    answer["seconds"] = time.process_time() - began
    return answer


if __name__ == "__main__":
    main()
