"""Run every benchmark and write RESULTS.md: ``python -m benchmarks --baseline-python PATH``."""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline-python", required=True)
    parser.add_argument("--rounds", default="5")
    parser.add_argument("--quick", action="store_true", help="only show that the scripts work")
    parser.add_argument("--only", nargs="*", help="names, such as resize; all if not given")
    arguments = parser.parse_args()
    scripts = sorted(HERE.glob("bench_*.py"))
    if arguments.only:
        scripts = [HERE / f"bench_{name}.py" for name in arguments.only]
    written = [head()]
    for path in scripts:
        written.append(section(path, arguments))
        print(written[-1], flush=True)
        if not (
            arguments.only or arguments.quick
        ):  # after each, so that a stop loses the rest only
            (HERE / "RESULTS.md").write_text("\n".join(written))


def head() -> str:
    names = (
        "torch",
        "torchvision",
        "numpy",
        "pandas",
        "pillow",
        "pydicom",
        "onnxruntime",
        "openvino",
    )
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        "# Results\n\n"
        "Both sides in turns in one run on one machine; a ratio is 1.5.7 divided by this package, "
        "the median of the rounds with their range.\n"
        "Written by `make bench BASELINE=path/to/python` with that Python's environment holding "
        "torchxrayvision 1.5.7.\n\n"
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, Python {platform.python_version()}, "
        f"{versions}, {platform.machine()}.\n"
    )


def section(path: Path, arguments: argparse.Namespace) -> str:
    command = [sys.executable, str(path), "--rounds", arguments.rounds]
    command += ["--baseline-python", arguments.baseline_python]
    command += ["--quick"] if arguments.quick else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    question = path.read_text().partition('"""')[2].partition("\n")[0]
    body = done.stdout
    if done.returncode:
        body = "\nfailed\n"
        print(done.stderr[-2000:], file=sys.stderr)  # not into the file: it names places
    return f"\n# {question}\n\n`python benchmarks/{path.name}`\n{body.replace('## ', '### ')}"


if __name__ == "__main__":
    main()
