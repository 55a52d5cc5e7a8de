import re

import pytest

from torchxrayvision.errors import ConfigError
from torchxrayvision.service import config_of, read_config
from torchxrayvision.service.work import config_of_process

TARGET = {"name": "pacs", "kind": "dicom", "host": "a", "port": 104, "aet": "PACS"}
WEB = {"name": "web", "kind": "dicomweb", "url": "https://a/dicom-web"}
WEB_PULL = {"name": "web", "url": "https://a/dicom-web"}


def test_a_whole_file_is_read_with_paths_relative_to_it(tmp_path):
    (tmp_path / "cert.pem").write_text("x")
    text = """
    folder = "state"
    [model]
    weights = "demo"
    segmenter = "demo-anatomy"
    [results]
    kinds = ["sr", "seg"]
    [receive]
    aet = "XRV"
    max_associations = 3
    tls = {certificate = "cert.pem", key = "cert.pem"}
    [[receive.peers]]
    aet = "CT 1"
    host = "10.0.0.0/8"
    [[targets]]
    name = "pacs"
    kind = "dicomweb"
    url = "http://localhost:8042/dicom-web"
    [[watch]]
    folder = "in"
    settle = 1
    """
    (tmp_path / "serve.toml").write_text(text)
    config = read_config(tmp_path / "serve.toml")
    assert config.folder == tmp_path / "state"
    assert config.watch[0].folder == tmp_path / "in"
    assert config.watch[0].settle == 1.0
    assert config.receive.peers[0].aet == "CT 1"
    assert config.receive.tls.certificate == tmp_path / "cert.pem"
    assert config.targets[0].verify
    assert config.gate.modalities == ("CR", "DX")


WRONG = {
    "folder": ({}, "is missing"),
    "folder ": ({"folder": 1}, "a path"),
    "recieve": ({"recieve": {}}, "did you mean 'receive'"),
    "receive.port": ({"receive": {"port": "x"}}, "a whole number"),
    "receive.port ": ({"receive": {"port": 70000}}, "0 to 65535"),
    "receive.port  ": ({"receive": {"port": True}}, "a whole number"),
    "receive.peers": ({"receive": {}}, "name who may send"),
    "receive.peers[0].aet": ({"receive": {"peers": [{"aet": "A" * 17}]}}, "an AE title"),
    "receive.peers[0].host": (
        {"receive": {"peers": [{"aet": "A", "host": "10.1.1.300"}]}}, "an address or a network"),
    "receive.aet": ({"receive": {"aet": "A\\B", "any_peer": True}}, "an AE title"),
    "receive": ({"receive": 3}, "a section"),
    "receive.tls.certificate": (
        {"receive": {"any_peer": True, "tls": {"key": "k"}}}, "together with key"),
    "receive.tls.key": (
        {"receive": {"any_peer": True, "tls": {"key": "k", "certificate": __file__}}},
        "a file that exists"),
    "results.kinds[1]": ({"results": {"kinds": ["sr", "pdf"]}}, "one of sr, sc, seg"),
    "results.kinds": ({"results": {"kinds": ["seg"]}}, "needs model.segmenter"),
    "results.kinds ": ({"results": {"kinds": "sr"}}, "a list"),
    "results.kinds  ": ({"results": {"kinds": []}}, "is empty"),
    "gate.screening": ({"gate": {"screening": "off"}}, "one of refuse, note"),
    "work.time_limit": ({"work": {"time_limit": float("nan")}}, "a number"),
    "work.processes": ({"work": {"processes": 0}}, "1 to 256"),
    "limits.waiting": ({"limits": {"waiting": 0}}, "at least 1"),
    "targets[0].url": ({"targets": [WEB | {"url": "ftp://a"}]}, "http"),
    "targets[0].user": ({"targets": [WEB | {"user": "a"}]}, "password_file"),
    "targets[0].aet": ({"targets": [TARGET | {"aet": ""}]}, "an AE title"),
    "targets[0].host": ({"targets": [TARGET | {"port": 0}]}, "C-STORE"),
    "targets[0].name": ({"targets": [TARGET | {"name": "a b"}]}, "letters"),
    "targets[1].name": ({"targets": [TARGET, TARGET]}, "a second time"),
    "targets[0].kind": ({"targets": [{"name": "a"}]}, "is missing"),
    "targets[0].verify": ({"targets": [TARGET | {"verify": "yes"}]}, "true or false"),
    "watch[0].folder": ({"watch": [{}]}, "is missing"),
    "model": ({"model": {"weights": ""}}, "names no network"),
    "model.calibration": ({"model": {"calibration": "none.json"}}, "a file that exists"),
    "model.calibration ": (
        {"model": {"weights": "", "segmenter": "demo-anatomy", "calibration": __file__}},
        "is for a classifier"),
    "model.checkpoint": ({"model": {"checkpoint": "none.pt"}}, "a file that exists"),
    "model.engine": ({"model": {"engine": "tensorrt"}}, "one of auto, torch, onnx, openvino"),
    "model.device": ({"model": {"engine": "onnx", "device": "cuda"}}, "graphs run on the CPU"),
    "model.device ": ({"model": {"device": "cuda:0,cuda:1"}}, "work.processes is 1"),
    "model.device  ": (
        {"model": {"device": "cuda:0,"}, "work": {"processes": 2}}, "names between commas"),
    "model.graph": ({"model": {"graph": "none.onnx"}}, "a file that exists"),
    "model.graph ": (
        {"model": {"graph": __file__, "checkpoint": __file__}, "results": {"kinds": ["sr"]}},
        "stands alone"),
    "results": ({"model": {"graph": __file__}}, "heat_maps = false"),
    "results.kinds   ": ({"results": {"kinds": ["pm"], "heat_maps": False}}, "names pm"),
    "results.evidence": (
        {"results": {"evidence": ["Mass"], "heat_maps": False}}, "heat_maps = true"),
    "pull[0].url": ({"pull": [{"name": "a"}]}, "http"),
    "pull[1].name": ({"pull": [WEB_PULL, WEB_PULL]}, "a second time"),
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_every_wrong_setting_is_an_error_that_names_its_key(key):
    values, words = WRONG[key]
    if key != "folder":
        values = {"folder": "state"} | values
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        config_of(values)
    assert caught.value.key == key.strip()


def test_a_file_that_is_no_toml_is_an_error(tmp_path):
    (tmp_path / "serve.toml").write_text("folder = [")
    with pytest.raises(ConfigError, match="no TOML"):
        read_config(tmp_path / "serve.toml")


def test_several_devices_go_to_the_processes_by_turns():
    found = config_of({
        "folder": "state", "model": {"device": "cuda:0, cuda:1"}, "work": {"processes": 3}
    })  # fmt: skip
    given = [config_of_process(found, number) for number in range(3)]
    assert [one.model.device for one in given] == ["cuda:0", "cuda:1", "cuda:0"]
    assert {one.model.weights for one in given} == {found.model.weights}


def test_a_graph_stands_alone_and_draws_nothing(tmp_path):
    graph = tmp_path / "own.onnx"
    graph.write_bytes(b"")
    found = config_of({"folder": "state", "model": {"graph": str(graph)},
                       "results": {"kinds": ["sr", "sc"], "heat_maps": False}})  # fmt: skip
    assert found.model.graph == graph
    assert found.model.engine == "torch"
