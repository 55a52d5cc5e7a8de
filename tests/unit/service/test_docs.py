"""docs/hospital.md says what the code does: classes, syntaxes, and tests that exist."""

import re
from pathlib import Path

from torchxrayvision.service import archives, receive, stow

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "hospital.md").read_text("utf-8")
CONFORMANCE = PAGE[PAGE.index("## Conformance") : PAGE.index("## Threats")]


def rows(text):
    return dict(re.findall(r"^\| (.+?) \| (1\.2\.840\.[\d.]+) \|$", text, re.MULTILINE))


def test_the_conformance_statement_names_what_is_negotiated():
    received, sent = CONFORMANCE.split("**Storage SCU**")
    assert {uid: name for name, uid in rows(received).items()} == receive.STORAGE_CLASSES
    assert {uid: name for name, uid in rows(sent).items()} == archives.RESULT_CLASSES
    said = {f"1.2.840.10008{end}" for end in re.findall(r"(\.1\.2(?:\.\d+)*)(?=[,) ])", received)}
    packages = [uid for several in receive._WITH.values() for uid in several]
    assert said == {*receive._NATIVE, *packages}


def test_each_claim_against_a_threat_names_tests_that_exist():
    source = "".join(p.read_text("utf-8") for p in Path(__file__).parent.glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", PAGE[PAGE.index("## Threats") :]))
    assert len(named) > 20
    missing = {name for name in named if f"def {name}(" not in source}
    assert not missing


def test_reasons_of_stow_are_those_of_the_code():
    said = {int(code, 16) for code in re.findall(r"^\| `([0-9A-F]{4})` \|", PAGE, re.MULTILINE)}
    code = {stow.CLASS_NOT_SUPPORTED, stow.OUT_OF_RESOURCES, stow.OTHER_STUDY,
            stow.CANNOT_UNDERSTAND, stow.SYNTAX_NOT_SUPPORTED}  # fmt: skip
    assert said == code


def test_files_that_the_page_names_exist():
    for name in re.findall(r"\((\.\./deploy/[^)]+)\)", PAGE):
        assert (ROOT / "docs" / name).exists(), name
