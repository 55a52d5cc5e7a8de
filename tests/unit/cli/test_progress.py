"""What a command says while it works."""

from torchxrayvision.cli import console


def test_each_stage_is_counted_on_its_own(monkeypatch, capsys):
    monkeypatch.setattr(console, "_LOG_EVERY", 0.0)
    progress = console.RunProgress()
    progress.move(5, 10)
    progress.move(10, 10)
    progress.move(1, 40, "comparing thumbnails")
    progress.move(2, 40, "comparing thumbnails")
    said = capsys.readouterr().err.splitlines()
    assert said[1].startswith("10 of 10 images, ")
    assert said[-1].startswith("comparing thumbnails: 2 of 40, ")
    assert "images" not in said[-1]
