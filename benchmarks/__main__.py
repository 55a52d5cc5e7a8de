"""Run benchmarks, renew RESULTS.md: ``python -m benchmarks --baseline-python PATH``."""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from textwrap import fill

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "pillow",
    "pydicom",
    "onnxruntime",
    "openvino",
    "isal",
    "kornia-rs",
)
APART = {"bench_gpu.py"}  # 1.5.7 is not asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline-python", required=True)
    parser.add_argument("--rounds", default="5")
    parser.add_argument("--quick", action="store_true", help="only show that the scripts work")
    parser.add_argument("--only", nargs="*", help="names, such as resize; all if not given")
    arguments = parser.parse_args()
    scripts = sorted(path for path in HERE.glob("bench_*.py") if path.name not in APART)
    if arguments.only:
        scripts = [HERE / f"bench_{name}.py" for name in arguments.only]
    failed = []
    for path in scripts:
        body = measured(path, arguments)
        if body is None:
            failed.append(path.name)
            continue
        print(body, flush=True)
        if not arguments.quick:  # after each, so that a stop loses the rest only
            RESULTS.write_text(renewed(RESULTS.read_text("utf-8"), body), "utf-8")
    if failed:
        sys.exit(f"failed, their sections are as they were: {', '.join(failed)}")


def renewed(text: str, section: str) -> str:
    """A page with a section in the place of the one with the same title, or at its end.

    Other sections stay, also those that no script here writes.
    """
    parts = re.split(r"^(?=# )", text, flags=re.MULTILINE)
    title = section.partition("\n")[0]
    same = [part.partition("\n")[0] == title for part in parts]
    if not any(same):
        parts.append("")
        same.append(True)
    parts = [
        section if found else part.rstrip("\n") for part, found in zip(parts, same, strict=True)
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def measured(path: Path, arguments: argparse.Namespace) -> str | None:
    """The section of a script; None if it failed."""
    command = [sys.executable, str(path), "--rounds", arguments.rounds]
    command += ["--baseline-python", arguments.baseline_python]
    command += ["--quick"] if arguments.quick else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)  # not into the file: it names places
        return None
    question = path.read_text("utf-8").partition('"""')[2].partition("\n")[0]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"# {question}\n\n`python benchmarks/{path.name} --rounds {arguments.rounds}`, measured on "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d} with\n{fill(versions, 110)}.\n"
        f"{done.stdout.replace('## ', '### ')}"
    )


if __name__ == "__main__":
    main()
