"""Say whether the checkout is ready to be released, and what is not; build and try its wheel.

python tools/release.py check        # versions agree, the change log names them, the tree is clean
python tools/release.py try dist     # the wheel alone, in an environment of its own, offline
python tools/release.py again dist   # a second build of this checkout has the same bytes

The first command refuses what is not ready with exit code 1. After all: tag the commit `vVERSION`
and push the tag; the workflow `wheel` publishes what it built of it.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_BYTES = 25 << 20
# Every packaged table and network, through the commands that need them; sockets are blocked.
TRIALS = (
    ("--version",),
    ("datasets", "describe", "padchest"),
    ("datasets", "list"),
    ("weights", "show", "demo"),
    ("demo", "--out-dir", "{folder}/demo"),
    ("predict", "{folder}/demo/films/images", "--weights", "demo", "--output", "demo.csv"),
    # The commands of docs/get-started.md.
    ("phantom", "--out-dir", "films", "-n", "6", "--seed", "3"),
    ("predict", "films/images", "--weights", "demo", "--output", "findings.csv"),
    (
        "explain",
        "films/images",
        "--weights",
        "demo",
        "--target",
        "Effusion",
        "--out-dir",
        "pictures",
    ),
)
_BLOCKED = """
import socket, sys
def refuse(*args, **kwargs):
    raise OSError("the network is not there")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from torchxrayvision.cli import main
sys.argv = ["xrv", *sys.argv[1:]]
main()
"""


def version_of(root: Path) -> str:
    """The version that the package has."""
    text = (root / "src/torchxrayvision/__init__.py").read_text("utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


def complaints(root: Path, today: datetime.date) -> list[str]:
    """What is not ready; empty if all is."""
    found, version = [], version_of(root)
    changes = (root / "CHANGELOG.md").read_text("utf-8")
    if not re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changes, re.MULTILINE):
        found.append(f"CHANGELOG.md has no heading '## {version} ({today})'")
    if re.search(r"^## Unreleased", changes, re.MULTILINE):
        found.append("CHANGELOG.md still has a heading 'Unreleased'")
    if re.search(r"(a|b|rc|\.dev)\d+$", version):
        found.append(f"{version} is a version before the release")
    citation = (root / "CITATION.cff").read_text("utf-8")
    if f"version: {version}" not in citation:
        found.append(f"CITATION.cff does not name version {version}")
    recipe = (root / "deploy/conda/meta.yaml").read_text("utf-8")
    if f'version: "{version}"' not in recipe:
        found.append(f"deploy/conda/meta.yaml does not name version {version}")
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=False
    ).stdout
    if changed:
        found.append(f"{len(changed.splitlines())} files are not committed")
    return found


def check_wheel(wheel: Path) -> list[str]:
    """What is wrong with a built wheel by its content."""
    found = []
    if wheel.stat().st_size > MOST_BYTES:
        found.append(f"{wheel.name} has {wheel.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
    names = zipfile.ZipFile(wheel).namelist()
    strange = [n for n in names if not n.startswith(("torchxrayvision/", "torchxrayvision-"))]
    if strange:
        found.append(f"{wheel.name} holds {strange[:3]}")
    found += [
        f"{wheel.name} lacks {part}"
        for part in ("py.typed", "licenses/LICENSE", "app/static/")
        if not any(part in name for name in names)
    ]
    return found


def build_again(folder: Path) -> int:
    """Build a second time, and compare the bytes of wheel and sdist with those in `folder`."""
    with tempfile.TemporaryDirectory() as place:
        build = [sys.executable, "-m", "build", "--outdir", place, str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        made = sorted(Path(place).iterdir())
        differ = [
            path.name
            for path in made
            if not (folder / path.name).is_file()
            or (folder / path.name).read_bytes() != path.read_bytes()
        ]
    print(
        *([f"{name} differs" for name in differ] or [f"{len(made)} files are the same"]), sep="\n"
    )
    return 1 if differ else 0


def try_wheel(folder: Path, index: str) -> int:
    """Install the wheel in an environment of its own and run commands without a network."""
    (wheel,) = folder.glob("*.whl")
    if wrong := check_wheel(wheel):
        print(*wrong, sep="\n")
        return 1
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([sys.executable, "-m", "venv", f"{place}/env"], check=True)
        python = f"{place}/env/bin/python"
        extra = ["--extra-index-url", index] if index else []
        install = [python, "-m", "pip", "install", "--quiet", *extra, f"{wheel.resolve()}[dicom]"]
        subprocess.run(install, check=True)
        for trial in TRIALS:
            words = [word.format(folder=place) for word in trial]
            ended = subprocess.run(
                [python, "-c", _BLOCKED, *words],
                cwd=place, capture_output=True, text=True, check=False,
            )  # fmt: skip
            # 1 is a file that cannot be read: the demonstration has one on purpose.
            if ended.returncode not in ((0, 1) if words[0] == "predict" else (0,)):
                print(f"xrv {' '.join(words)}: exit code {ended.returncode}\n{ended.stderr}")
                return 1
            print(f"xrv {' '.join(trial)}: well")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("check", "try", "again"))
    parser.add_argument("dist", nargs="?", type=Path, default=ROOT / "dist")
    parser.add_argument("--torch-index", default="", help="index with the CPU build of torch")
    options = parser.parse_args(arguments)
    if options.what == "try":
        return try_wheel(options.dist, options.torch_index)
    if options.what == "again":
        return build_again(options.dist)
    wrong = complaints(ROOT, datetime.datetime.now(tz=datetime.UTC).date())
    print(*(wrong or [f"{version_of(ROOT)} is ready"]), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
