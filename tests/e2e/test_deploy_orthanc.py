"""The files in deploy/: the Orthanc that forwards and takes back, and settings that can be read."""

import datetime
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from support.orthanc import Orthanc, free_ports, needs_orthanc, storescu
from support.service_runs import until
from torchxrayvision.phantom import simulate, write_dicom
from torchxrayvision.service import Config, Service, config_of, read_config

DEPLOY = Path(__file__).parents[2] / "deploy"


class ExampleArchive(Orthanc):
    """Orthanc with deploy/orthanc/orthanc.json, but for its ports."""

    def __init__(self, folder, service_port):
        super().__init__(folder / "unused")
        example = folder / "deploy" / "orthanc"
        shutil.copytree(DEPLOY / "orthanc", example)
        self.folder = folder
        self.settings = example / "orthanc.json"
        text = self.settings.read_text()
        for old, new in ((8044, self.port), (4244, self.dicom_port), (11112, service_port)):
            assert text.count(str(old)) == 1
            text = text.replace(str(old), str(new))
        self.settings.write_text(text)


def film(folder, number, modality="DX"):
    path = folder / f"{number}.dcm"
    picture = simulate(number, size=256, views=["PA"], findings={"Effusion": 0.7})
    dataset = write_dicom(path, picture, seed=16, number=number)
    dataset.StudyInstanceUID = f"1.2.826.0.1.3680043.10.999.16.{number + 1}"
    dataset.StudyDate, dataset.StudyTime = f"{datetime.date.today():%Y%m%d}", "101112"
    dataset.Modality = modality
    dataset.save_as(path)
    return path


@pytest.mark.orthanc
@needs_orthanc
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_orthanc_forwards_and_gets_results_back(tmp_path):
    """While the service is down too: what could not be forwarded is fetched."""
    port, _ = free_ports(2)
    archive = ExampleArchive(tmp_path, port).start()
    values = tomllib.loads((DEPLOY / "orthanc" / "serve.toml").read_text())
    values["folder"] = str(tmp_path / "state")
    values["receive"]["port"], values["http"]["port"] = port, 0
    values["pull"][0] |= {"url": f"{archive.url}/dicom-web", "every": 1}
    values["targets"][0] |= {"url": f"{archive.url}/dicom-web", "verify_after": 0.1}
    values["limits"] = {"free_bytes": 0}
    wanted = Counter({"DX": 1, "SR": 1, "OT": 1, "SEG": 1})

    def answered(count):
        found = [Counter(m for m, _ in instances) for instances in archive.studies().values()]
        return sum(one == wanted for one in found) == count

    try:
        config = config_of(values)
        with Service(config) as service:
            storescu(archive.dicom_port, *(film(tmp_path, n) for n in range(3)), aet="ORTHANC")
            assert until(lambda: answered(3), 120), archive.studies()
            forwarded = service.metrics.value("received", origin="cstore", outcome="new")
            pulled = service.metrics.value("received", origin="pull", outcome="new")
            assert forwarded + pulled == 3
        late = [film(tmp_path, 3), film(tmp_path, 4), film(tmp_path, 5, modality="MG")]
        storescu(archive.dicom_port, *late, aet="ORTHANC")
        with Service(config) as service:
            assert until(lambda: answered(5), 120), archive.studies()
            assert service.metrics.value("received", origin="pull", outcome="new") == 2
            assert sum(service.queue.counts().values()) == 5
    finally:
        archive.stop()


@pytest.mark.parametrize("name", ["serve.toml", "orthanc/serve.toml"])
def test_settings_can_be_read(name):
    assert read_config(DEPLOY / name).targets


def test_the_example_of_settings_shows_the_defaults(tmp_path):
    """What is commented out and no example is what counts without it."""
    lines = []
    for line in (DEPLOY / "serve.toml").read_text().splitlines():
        line = re.sub(r"^# (?=[\w.]+ = )", "", line)
        lines.append(f"# {line}" if "# example" in line else line)
    text = "\n".join(lines)
    for section in ("watch", "pull"):  # of which the whole section is an example
        text = re.sub(rf"# # \[\[{section}\]\].*?\n\n", "\n", text, flags=re.DOTALL)
    (tmp_path / "all.toml").write_text(text)
    every, plain = read_config(tmp_path / "all.toml"), read_config(DEPLOY / "serve.toml")
    assert every == plain
    assert isinstance(every, Config)
    assert text.count(" = ") > (DEPLOY / "serve.toml").read_text().count("\n# ") * 0.8


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_the_unit_is_understood_by_systemd(tmp_path):
    text = (DEPLOY / "xrv-serve.service").read_text()
    assert text.count("ExecStart=/opt/xrv/bin/xrv ") == 1
    unit = tmp_path / "xrv-serve.service"
    unit.write_text(text.replace("/opt/xrv/bin/xrv", sys.executable))  # which exists
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("[Service]", "[Service]\nRestrt=always"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Restrt" in done.stderr


def test_the_container_copies_what_exists_and_runs_what_the_package_has():
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert copied
    for name in copied:
        assert (DEPLOY.parent / name).exists(), name
    stages = [line.split()[-1] for line in lines if line.startswith("FROM ")]
    assert stages == ["predict", "service-graph", "base", "mercure", "service"]
    commands = [line for line in lines if line.startswith("ENTRYPOINT ")]
    programs = (["predict"], ["serve"], ["serve", "--mercure"], ["serve"])
    assert commands == [f"ENTRYPOINT {json.dumps(['xrv', *words])}" for words in programs]


def test_installations_without_torch_have_the_bounds_of_the_package():
    facts = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    extras = facts["optional-dependencies"]
    known = {*facts["dependencies"], *extras["onnx"], *extras["dicom"], *extras["serve"]}
    known |= {*extras["dicom-results"], *extras["fast-png"]}
    for name in ("runtime", "serve"):
        lines = (DEPLOY / f"requirements-{name}.txt").read_text().splitlines()
        asked = {line.partition("#")[0].strip() for line in lines} - {""}
        assert len(asked) > 5
        assert asked - known <= {"-r requirements-runtime.txt"}
        assert not any(line.startswith(("torch", "pandas")) for line in asked)


def test_a_package_has_one_bound_in_all_extras():
    facts = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    bounds = {}
    for part in (facts["dependencies"], *facts["optional-dependencies"].values()):
        for requirement in part:
            name, bound = re.fullmatch(r"([\w-]+(?:\[[\w,-]+\])?)(.*)", requirement).groups()
            bounds.setdefault(name, set()).add(bound)
    assert {name: found for name, found in bounds.items() if len(found) > 1} == {}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_the_unit_is_confined():
    unit = DEPLOY / "xrv-serve.service"
    command = ["systemd-analyze", "security", "--offline=true", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "level" not in done.stdout:
        pytest.skip("this systemd-analyze does not work offline")
    exposure = float(re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)[1])
    assert exposure < 2.0, done.stdout
