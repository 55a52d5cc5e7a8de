"""How many planted duplicates and leaks `xrv audit` finds, and how long it takes.

    python -m benchmarks.audit_duplicates --images 20000 --cache films [--real FOLDER]

Simulated radiographs of three sites, and real ones where a folder is given, get duplicates of seven
kinds (encoded again, resized, cropped by 10 %, windowed, inverted, mirrored, rotated by 2 to 5
degrees), and patients in two parts of a split, under one number and under two. A pair that the
audit reports and nobody planted is a false one, also if it is two films of one patient. Simulated
patients have one film but for twice as many as leak: their films are the same body in nearly the
same pose, which no two real films are. Rendering 20,000 images takes about ten minutes of processor
time, and happens once.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from torchxrayvision.audit import audit
from torchxrayvision.datasets import Phantom_Dataset
from torchxrayvision.models import get_model
from torchxrayvision.phantom import png_bytes

KINDS = ("encoded", "resized", "cropped", "windowed", "inverted", "mirrored", "rotated")
SITES = ("A", "B", "C")
SIDE = 256
MORE = 200  # simulated patients with a second film


def render(count: int, folder: Path) -> pd.DataFrame:
    """Simulated images, written where they are not there yet; one row each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, site in enumerate(SITES):
        films = Phantom_Dataset(n=-(-count * 2 // 3), seed=1000 + number, size=SIDE, site=site)
        seen: dict[str, int] = {}
        for i, row in enumerate(films.csv.to_dict("records")):
            seen[row["patientid"]] = seen.get(row["patientid"], 0) + 1
            if seen[row["patientid"]] > 1 + (number == 0 and len(seen) <= 2 * MORE):
                continue
            path = folder / f"{site}-{i:06d}.png"
            if not path.exists():
                path.write_bytes(png_bytes(films[i]["img"]))
            labels = {name: row[name] for name in ("Effusion", "Cardiomegaly", "Nodule")}
            patient = f"{site}{row['patientid']}"
            rows.append({"path": str(path), "patientid": patient, "site": site, **labels})
    table = pd.DataFrame(rows)
    later = table["patientid"].duplicated()
    more = table[later].drop_duplicates("patientid").head(MORE)
    return pd.concat([table[~later], more]).sort_index().head(count).reset_index(drop=True)


def change(grey: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    """One film as somebody else might have stored it."""
    width, height = grey.size
    if kind == "encoded":
        stream = io.BytesIO()
        grey.save(stream, "JPEG", quality=int(rng.integers(40, 80)))
        return Image.open(stream).convert("L")
    if kind == "resized":
        share = rng.uniform(0.5, 0.9)
        return grey.resize((round(width * share), round(height * share)), Image.Resampling.LANCZOS)
    if kind == "cropped":
        left, top = rng.uniform(0, 0.1, 2) * (width, height)
        box = (round(left), round(top), round(left + 0.9 * width), round(top + 0.9 * height))
        return grey.crop(box)
    if kind == "windowed":
        pixels = np.asarray(grey, float)
        low, high = np.percentile(pixels, [rng.uniform(2, 10), rng.uniform(88, 98)])
        shown = np.clip((pixels - low) / max(high - low, 1), 0, 1) ** rng.uniform(0.8, 1.25)
        return Image.fromarray((shown * 255).astype(np.uint8))
    if kind == "inverted":
        return Image.eval(grey, lambda value: 255 - value)
    if kind == "mirrored":
        return grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = rng.choice([-1, 1]) * rng.uniform(2, 5)
    return grey.rotate(angle, Image.Resampling.BILINEAR)


def plant(
    table: pd.DataFrame, folder: Path, duplicates: int, leaks: int
) -> tuple[pd.DataFrame, set, set]:
    """The table with planted rows, the pairs of one film, and the patients that leak."""
    rng = np.random.default_rng(0)
    people = table["patientid"].unique()
    side = dict(zip(people, rng.choice(["train", "test"], len(people), p=[0.7, 0.3]), strict=True))
    table = table.assign(split=table["patientid"].map(side))
    sources = rng.choice(len(table), duplicates, replace=False)
    pairs, rows, aliases = set(), [], set()
    for number, row in enumerate(sources):
        kind = KINDS[number % len(KINDS)]
        source = table.iloc[row]
        path = folder / f"copy-{number:04d}.png"
        change(Image.open(source["path"]).convert("L"), kind, rng).save(path)
        pairs.add((source["path"], str(path), kind))
        new = {**source, "path": str(path)}
        if number < leaks // 2:  # under another number, in the other part
            new["patientid"] = f"alias-{number}"
            new["split"] = "test" if source["split"] == "train" else "train"
            aliases.add(source["patientid"])
        rows.append(new)
    counts = table["patientid"].value_counts()
    several = [p for p in counts.index[counts > 1] if p not in aliases]
    direct = set(rng.choice(several, leaks - leaks // 2, replace=False))
    for patient in direct:
        at = table.index[table["patientid"] == patient][0]
        table.loc[at, "split"] = "test" if table.loc[at, "split"] == "train" else "train"
    return pd.concat([table, pd.DataFrame(rows)], ignore_index=True), pairs, direct | aliases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--cache", type=Path, default=Path("films"))
    parser.add_argument("--real", type=Path, help="a folder of real images, as NIH names them")
    parser.add_argument("--duplicates", type=int, default=500)
    parser.add_argument("--leaks", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    table = render(given.images, given.cache)
    if given.real is not None:
        files = sorted(map(str, given.real.iterdir()))
        people = [Path(name).name.partition("_")[0] for name in files]
        table = pd.concat([table, pd.DataFrame({"path": files, "patientid": people})])
        table = table.reset_index(drop=True).assign(site=lambda t: t["site"].fillna("NIH"))
    with tempfile.TemporaryDirectory() as folder:
        table, planted, leaking = plant(table, Path(folder), given.duplicates, given.leaks)
        began = {"wall": 0.0, "cpu": 0.0}

        def note(what: str, done: int, total: int) -> None:
            if what.startswith("reading"):
                used = resource.getrusage(resource.RUSAGE_SELF)
                began.update(wall=time.monotonic(), cpu=used.ru_utime + used.ru_stime)
            if done % 2000 == 0 or done == total:
                used = resource.getrusage(resource.RUSAGE_SELF)
                cpu = used.ru_utime + used.ru_stime
                print(f"{what} {done} of {total}: {cpu:.0f} s of processor time", flush=True)

        found = audit(list(table["path"]), table, model=get_model("demo").eval(), on_progress=note)
        used = resource.getrusage(resource.RUSAGE_SELF)
        wall = time.monotonic() - began["wall"]
        cpu = used.ru_utime + used.ru_stime - began["cpu"]
    reported = {(a, b) for a, b in found.duplicates[["first", "second"]].itertuples(index=False)}
    truth = {(a, b): kind for a, b, kind in planted}
    hit = {pair for pair in truth if pair in reported or pair[::-1] in reported}
    false = {pair for pair in reported if pair not in truth and pair[::-1] not in truth}
    told = {
        patient for issue in found.blockers for row in issue.rows for patient in row.split(" = ")
    }
    print(json.dumps({
        "images": len(table), "planted": len(truth), "found": len(hit), "false": len(false),
        "recall": len(hit) / len(truth), "precision": len(hit) / max(1, len(hit) + len(false)),
        "missed": sorted(truth[pair] for pair in truth if pair not in hit),
        "false_pairs": sorted(false)[:20],
        "leaks": len(leaking), "leaks_found": len(leaking & told),
        "after_decoding_seconds": round(wall, 1), "processor_seconds": round(cpu, 1),
        "peak_memory_mb": round(used.ru_maxrss / 1024),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
