"""Who may read a file that holds a secret."""

import os
import types

import pytest

from torchxrayvision.errors import ConfigError
from torchxrayvision.service import credentials


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_secret_that_everybody_may_read_is_refused(tmp_path):
    file = tmp_path / "secret"
    file.write_text("word\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="may be read by everybody; chmod 600 it"):
        credentials.secret_of(file, "password_file")
    file.chmod(0o600)
    assert credentials.secret_of(file, "password_file") == "word"


def test_windows_where_every_file_has_these_bits_takes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(credentials, "os", types.SimpleNamespace(name="nt"))
    file = tmp_path / "secret"
    file.write_text("word\n")
    file.chmod(0o666)
    assert credentials.secret_of(file, "password_file") == "word"
