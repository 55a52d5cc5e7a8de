"""`xrv serve` and what its operator calls."""

import json

import pytest
from typer.testing import CliRunner

from support.service_runs import image, settled, until
from torchxrayvision.cli import app
from torchxrayvision.service import config_of


@pytest.fixture
def config(settings, tmp_path):
    """The settings as a file."""
    path = tmp_path / "serve.toml"
    path.write_text(
        f'folder = "{settings["folder"]}"\n[model]\nweights = "demo"\n'
        "[receive]\nport = 0\nany_peer = true\n[deliver]\nfirst_wait = 0.05\n"
    )
    return path


def run(*words):
    return CliRunner().invoke(app, ["serve", *map(str, words)])


def test_settings_are_asked_for_and_checked_before_anything_starts(tmp_path):
    assert "--config" in run().output
    assert run().exit_code == 2
    done = run("--config", tmp_path / "absent.toml")
    assert done.exit_code == 2
    assert "does not exist" in done.output
    (tmp_path / "a.toml").write_text("folder = 'x'\n[recieve]\n")
    done = run("--config", tmp_path / "a.toml")
    assert done.exit_code != 0
    assert "did you mean 'receive'" in str(done.exception)
    assert not (tmp_path / "x").exists()


def test_a_service_that_never_ran_has_no_status(config):
    done = run("status", "--config", config)
    assert "has not run with these settings" in str(done.exception)


def test_status_retry_and_drain(running, config, archive):
    archive.status = [0xA900] * 3
    service = running(targets=[archive.target()], results={"kinds": ["sr"]})
    service.accept(image(1), "stow")
    service.accept(image(2, BodyPartExamined="REFUSED"), "stow")
    assert until(lambda: service.queue.counts()["dead"] and service.queue.counts()["refused"])
    found = json.loads(run("status", "--config", config, "--json").stdout)
    assert found["jobs"]["dead"] == found["jobs"]["refused"] == 1
    assert found["deliveries"] == {"archive": {"dead": 1}}
    text = run("status", "--config", config).stdout
    assert "C-STORE answers A900" in text
    assert "as planted" in text
    assert (
        "to be tried again: 1 image\n" in run("retry", "--config", config, "--state", "dead").output
    )
    assert settled(service)
    assert service.queue.counts()["delivered"] == 1
    assert run("drain", "--config", config, "--wait", "10").exit_code == 0
    assert service.stopping.wait(10)
    assert run("drain", "--config", config, "--cancel").exit_code == 0
    assert not service.queue.setting("draining")


def test_drain_says_what_is_left(running, config):
    down = {"name": "down", "kind": "dicom", "host": "127.0.0.1", "port": 9, "aet": "DOWN"}
    service = running(targets=[down])
    service.accept(image(1), "stow")
    done = run("drain", "--config", config, "--wait", "0.2")
    assert done.exit_code == 1
    assert "not delivered yet: 1 image\n" in done.output


def test_the_example_of_the_tests_is_what_a_file_gives(config, settings):
    from torchxrayvision.service import read_config

    assert read_config(config).receive == config_of(settings).receive
