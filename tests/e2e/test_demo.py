"""`xrv demo` as a user runs it, with the weights of the package and no network at all."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest

from torchxrayvision.evaluation import join_labels

FILMS = 16

# Run by Python before anything else, so that no socket can be made. urllib3 tries one when it is
# imported, to see whether there is IPv6, and takes no for an answer.
NO_SOCKETS = """
import errno, socket, sys
class NoSocket(socket.socket):
    def __init__(self, *args, **kwargs):
        raise OSError(errno.EPERM, "sockets are blocked")
socket.socket = NoSocket
from torchxrayvision.cli import main
sys.argv[0] = "xrv"
main()
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    home = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "XRV_CACHE_DIR": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", NO_SOCKETS, "demo", "--number", str(FILMS)],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return home, result


def test_it_ends_with_the_place_of_a_report(done):
    home, result = done
    assert result.returncode == 0, result.stderr
    assert f"{FILMS - 1} of {FILMS} simulated radiographs read, mean AUROC" in result.stdout
    assert "nan" not in result.stdout
    assert result.stdout.splitlines()[-1] == f"report: {home / 'xrv-demo' / 'report.html'}"
    assert (home / "xrv-demo" / "report.html").stat().st_size > 100_000
    assert not (home / "cache").exists()


def test_the_networks_that_ship_know_the_films(done):
    """Far below what the card promises, so that two dozen films cannot fail it by chance."""
    folder = done[0] / "xrv-demo"
    auroc = pd.read_csv(folder / "auroc.csv").set_index("finding")
    assert auroc.loc["mean", "auroc"] > 0.8
    measured = pd.read_csv(folder / "measures.csv").set_index("path")
    truth = pd.read_csv(folder / "films" / "truth.csv").set_index("path")
    off = (measured["cardiothoracic_ratio"] - truth["cardiothoracic_ratio"]).abs()
    assert off.mean() < 0.04
    assert measured["Lungs"].mean() > 0.9


def test_its_tables_fit_the_other_commands(done):
    folder = done[0] / "xrv-demo"
    predictions = pd.read_csv(folder / "predictions.csv")
    labels = pd.read_csv(folder / "films" / "labels.csv")
    rows, findings = join_labels(predictions, labels)
    assert len(rows) == FILMS
    assert "Effusion" in findings
