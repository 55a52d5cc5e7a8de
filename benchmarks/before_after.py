"""Has a change made anything slower? Two checkouts of this package in turns, in CPU seconds.

Each case is a whole process, from the start of Python to its end, with its own children; both sides
run the same lines, under the same Python, and in turn, so that other work on the machine falls on
both. What is counted is CPU time, user and system, which waiting does not lengthen.

    git worktree add --detach BEFORE 6ce3163
    python benchmarks/before_after.py BEFORE --rounds 5
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from PIL import Image

from _films import write_films
from bench_prepare import write_dicom

HERE = Path(__file__).parents[1]
START = "import torchxrayvision as xrv, numpy as np\n"
CASES = {
    "import: datasets and models": "xrv.datasets.NIH_Dataset, xrv.models.DenseNet",
    "prepare: 10 files of each kind to 224": """
from torchxrayvision.images import read_raster
from torchxrayvision.transforms import prepare
for path in 10 * [f for f in sorted(FOLDER.glob("kinds/*"))]:
    raster = read_raster(path)
    prepare(raster.pixels, raster.scale, raster.offset, 224)
""",
    "resize: 2500 x 2048 to 224 and 512, 40 times": """
image = np.linspace(-1024, 1024, 2500 * 2048, dtype=np.float32).reshape(1, 2500, 2048)
for size in 40 * [224, 512]:
    xrv.datasets.XRayResizer(size)(image)
""",
    "epoch: 200 PNG of NIH in a DataLoader of 2 workers": """
import torch
crop = [xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224)]
from torchvision.transforms import Compose
films = str(FOLDER / "films")
data = xrv.datasets.NIH_Dataset(films, csvpath=films + ".csv", transform=Compose(crop))
loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True, num_workers=2)
assert sum(len(batch["img"]) for batch in loader) == len(data) == 200
""",
    "models: DenseNet121, 4 batches of 8 at 224": """
import torch
model = xrv.models.DenseNet().eval()
with torch.no_grad():
    for _ in range(4):
        model(torch.zeros(8, 1, 224, 224))
""",
    "datasets: build the eight packaged ones": """
names = "NIH RSNA_Pneumonia NIH_Google PC CheX Openi SIIM_Pneumothorax VinBrain".split()
for name in names:
    more = {} if name in ("RSNA_Pneumonia", "SIIM_Pneumothorax", "VinBrain") else {"views": "*"}
    getattr(xrv.datasets, name + "_Dataset")(imgpath=str(FOLDER), **more)
""",
}
PIPELINE = "pipeline: xrv predict, demo weights, 100 PNG"


def write_inputs(folder: Path) -> None:
    """Films as NIH stores them with their table, and files of other kinds."""
    films = write_films(folder / "films", [(1024, 1024)] * 200)
    rows = [f"{path.name},No Finding,{n},50,M,PA" for n, path in enumerate(films)]
    head = "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position"
    (folder / "films.csv").write_text("\n".join([head, *rows]) + "\n")
    for path in films[:100]:
        (folder / "some").mkdir(exist_ok=True)
        (folder / "some" / path.name).hardlink_to(path)
    (large,) = write_films(folder / "kinds", [(2500, 2048)])
    with Image.open(large) as image:
        image.save(folder / "kinds" / "large.jpg", quality=90)
        import numpy as np

        write_dicom(folder / "kinds" / "digital.dcm", np.asarray(image, np.uint16) << 4)


def seconds_of(side: Path, case: str, folder: Path) -> float:
    """CPU seconds of a process and its children."""
    code = f"from pathlib import Path\nFOLDER = Path({str(folder)!r})\n{START}{CASES.get(case, '')}"
    command = [sys.executable, "-c", code]
    table = folder / "table.csv"
    if case == PIPELINE:
        table.unlink(missing_ok=True)
        command = [sys.executable, "-m", "torchxrayvision", "predict", str(folder / "some")]
        command += ["--weights", "demo", "--engine", "torch", "--output", str(table)]
    search = {"PYTHONPATH": str(side / "src"), "OMP_NUM_THREADS": "1"}
    place = {"XRV_CACHE_DIR": str(folder / "cache")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, env={**os.environ, **search, **place}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{side}, {case}:\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="another checkout of this package")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="first words of cases; all if not given")
    arguments = parser.parse_args()
    sides = (arguments.before.resolve(), HERE)
    print(f"| CPU seconds, {arguments.rounds} rounds | before | now | ratio [range] |")
    print("| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as place:
        write_inputs(Path(place))
        for case in (*CASES, PIPELINE):
            if arguments.only and case.partition(":")[0] not in arguments.only:
                continue
            found: dict[Path, list[float]] = {side: [] for side in sides}
            for turn in range(arguments.rounds):
                for side in sides[:: 1 if turn % 2 else -1]:
                    found[side].append(seconds_of(side, case, Path(place)))
            old, new = found.values()
            ratios = [now / then for then, now in zip(old, new, strict=True)]
            ends = f"[{min(ratios):.2f} - {max(ratios):.2f}]"
            middle = f"{median(new) / median(old):.2f}"
            print(
                f"| {case} | {median(old):.2f} | {median(new):.2f} | {middle} {ends} |", flush=True
            )


if __name__ == "__main__":
    main()
