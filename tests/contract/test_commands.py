"""One command line: an option has the same name, letter, values and meaning in every command."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from torchxrayvision import cli
from torchxrayvision.cli import app, present_arguments


def walk(command, name=()):
    """Every command by its words."""
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for word, child in children.items():
        yield from walk(child, (*name, word))


COMMANDS = dict(walk(typer.main.get_command(app)))


def options(command):
    shown = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    return [p for p in shown if p.name != "help"]


# Options whose meaning differs by command, with the reason.
DIFFERENT = {
    "all_images": "describe and verify look at every image, export writes what the class keeps",
    "batch_size": "the default: segmentation networks take one image at a time",
    "config": "a recipe of training, and the settings of the service",
    "device": "the default: explanations are computed where their tests hold them exact",
    "dry_run": "a benchmark says what is there, an upload what would go",
    "engine": "the default: a conversion pays for long runs only",
    "number": "the demonstration needs some of every finding",
    "output": "export writes one file in the format that --to names, or a folder",
    "precision": "masks and probabilities differ in what fast promises",
    "segmenter": "the page has one of its own accord, results only if asked",
    "seed": "the demonstration's own default is a seed whose films show everything",
    "weights": "segmentation and classification have networks of their own; an audit may do "
    "without; similar images are found offline",
    "workers": "training counts processes and takes 0 for none",
    "hold_out": "patients are left to the evaluation, or to the probes' own test",
    "images": "a report shows some, a probe is fitted to all",
    "report": "an evaluation has a model card and a checklist, a probe is no model",
    "methods": "explanations that are scored; see method",
    "split": "an audit takes any parts, a probe those that train and test",
    "views": "a view is kept in a dataset and simulated in a phantom",
    "overwrite": "predict replaces the rows of an unfinished run as well",
    "restart": "as overwrite",
    "patient": "an audit prints no default that another command has",
    "out_dir": "optional where the command has a name for it",
    "method": "ways to explain, to calibrate and to search",
    "to": "formats of a model and of a dataset, the file of a calibration, and the image that "
    "others are compared with",
}


def test_an_option_has_one_name_one_letter_and_one_meaning():
    seen = {}
    for words, command in COMMANDS.items():
        for option in options(command):
            facts = (tuple(sorted(option.opts)), option.help)
            seen.setdefault(option.opts[0], {}).setdefault(facts, []).append((words, option.name))
    for name, kinds in seen.items():
        letters = {opts for opts, _ in kinds}
        assert len(letters) == 1, f"{name}: {letters}"
        names = {option for uses in kinds.values() for _, option in uses}
        assert len(kinds) == 1 or names <= set(DIFFERENT), f"{name}: {kinds}"


def test_a_letter_stands_for_one_option():
    letters = {}
    for command in COMMANDS.values():
        for option in options(command):
            for short in (o for o in option.opts if len(o) == 2):
                long = next(o for o in option.opts if o.startswith("--"))
                assert letters.setdefault(short, long) == long


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("width", [60, 80, 160])
def test_help_is_whole_sentences_at_any_width(words, width):
    result = CliRunner().invoke(app, [*words, "-h"], terminal_width=width)
    assert result.exit_code == 0
    printed = "".join(result.output.split())
    for option in options(COMMANDS[words]):
        assert option.help, f"{option.opts} has no help"
        assert option.help.rstrip().endswith((".", "]")), f"{option.opts}: {option.help}"
        assert "".join(option.help.split()) in printed, f"{option.opts} is cut"


@pytest.mark.parametrize("group", [(), ("datasets",), ("weights",)], ids=" ".join)
def test_lists_of_commands_are_not_cut(group):
    result = CliRunner().invoke(app, [*group, "--help"], terminal_width=80)
    listed = result.output.partition("Commands:")[2]
    assert listed
    assert "..." not in listed


# What prints a table, and so prints JSON too.
PRINTING = [
    ("predict",), ("check",), ("audit",), ("benchmark",), ("evaluate",), ("info",), ("similar",),
    ("datasets", "list"),
    ("datasets", "describe"), ("datasets", "verify"), ("datasets", "split"),
    ("weights", "list"), ("weights", "show"),
]  # fmt: skip
WRITING = [
    ("predict",), ("check",), ("audit",), ("evaluate",), ("segment",), ("explain",), ("results",),
    ("export",), ("phantom",), ("datasets", "export"), ("datasets", "split"), ("similar",),
]  # fmt: skip


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_what_prints_a_table_prints_json(words):
    assert "--json" in {o for option in options(COMMANDS[words]) for o in option.opts}


@pytest.mark.parametrize("words", WRITING, ids=" ".join)
def test_what_writes_results_asks_before_it_replaces_any(words):
    assert "--overwrite" in {o for option in options(COMMANDS[words]) for o in option.opts}


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["predict", "a.png", "-q"], ["-q", "predict", "a.png"]),
        (["segment", "--model=x", "--out", "y"], ["segment", "--weights=x", "--out-dir", "y"]),
        (["predict", "--restart", "--", "-v"], ["predict", "--overwrite", "--", "-v"]),
        (["info", "--out"], ["info", "--out"]),
        ([], []),
    ],
)
def test_arguments_of_before_are_those_of_today(given, taken, capsys):
    assert present_arguments(given) == taken
    renamed = [word for word in given if word not in taken and word.startswith("--")]
    said = capsys.readouterr().err
    assert all(word.partition("=")[0] in said for word in renamed)


def test_quiet_leaves_results_and_errors(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["xrv", "weights", "fetch", "--quiet"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "name the weights to fetch" in capsys.readouterr().err


REFUSED = [
    ["predict", "a.png", "--engine", "foo"],
    ["predict", "a.png", "--device", "foo"],
    ["predict", "a.png", "--output-kind", "foo"],
    ["predict", "--nonsense"],
    ["predict"],
    ["predict", "a.png", "--shard", "1/2"],
    ["predict", "a.png", "--weights", "foo"],
    ["check"],
    ["audit", "a.png", "--split", "part"],
    ["segment", "a.png", "--out-dir", "o", "--threshold", "2"],
    ["explain", "a.png", "--out-dir", "o", "--target", "Mass", "--method", "foo"],
    ["results", "a.dcm", "--out-dir", "o", "--as", "sr,foo"],
    ["results", "a.dcm", "--out-dir", "o", "--as", "seg"],
    ["export", "demo", "--to", "foo", "--output", "x"],
    ["evaluate", "a.csv", "b.csv", "--output", "x.xlsx"],
    ["datasets", "describe", "nhi"],
    ["weights", "fetch"],
    ["train", "--config", "x.csv"],
]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_a_wrong_option_is_refused_without_torch(arguments, tmp_path):
    code = (
        "import sys; from torchxrayvision.cli import main\n"
        f"sys.argv = ['xrv', *{arguments!r}]\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert "AssertionError" not in done.stderr, done.stderr
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
