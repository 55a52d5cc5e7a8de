import io
import zlib

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from support.service_runs import image
from torchxrayvision.errors import ImageReadError, ImageTooLargeError
from torchxrayvision.service import GateRules
from torchxrayvision.service.gate import (
    GateHeader,
    instance_of,
    is_uid,
    read_gate_header,
    refusal_by_header,
    refusal_by_screening,
)


def test_the_header_is_read_in_upper_case():
    found = read_gate_header(image(7, BodyPartExamined="CHEST", ViewPosition="AP"), 1 << 20)
    assert found == GateHeader("1.2.3.4.7", "CR", "CHEST", "AP")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (GateHeader("1", "CR", "CHEST", "PA"), ""),
        (GateHeader("1", "DX", "", ""), ""),
        (GateHeader("1", "CT", "CHEST", "PA"), "its modality is none of CR, DX"),
        (GateHeader("1", "CR", "MARKER^PLANTED", "PA"), "its body part is none of"),
        (GateHeader("1", "CR", "CHEST", "LL"), "its view is none of PA, AP, (not said)"),
    ],
)
def test_rules_refuse_by_modality_part_and_view(header, reason):
    said = refusal_by_header(GateRules(), header)
    assert said.startswith(reason)
    assert bool(said) == bool(reason)
    assert "MARKER" not in said


def test_no_rule_for_views_takes_all():
    assert not refusal_by_header(GateRules(views=()), GateHeader("1", "CR", "CHEST", "LL"))


def test_the_screening_refuses_when_it_may():
    said = "refused: looks like a lateral radiograph"
    assert refusal_by_screening(GateRules(), said) == "looks like a lateral radiograph"
    assert not refusal_by_screening(GateRules(screening="note"), said)
    assert not refusal_by_screening(GateRules(), "noted: dark")
    assert not refusal_by_screening(GateRules(), "ok")


def test_the_uid_comes_from_the_meta_information_or_the_dataset():
    data = image(3)
    assert instance_of(data) == "1.2.3.4.3"
    stream = io.BytesIO()
    bare = pydicom.dcmread(io.BytesIO(data))
    del bare.file_meta
    bare.preamble = None
    bare.save_as(stream, implicit_vr=True, little_endian=True)
    assert stream.getvalue()[128:132] != b"DICM"
    assert instance_of(stream.getvalue()) == "1.2.3.4.3"


@pytest.mark.parametrize("data", [b"", b"DICM", b"\0" * 128 + b"DICM", b"\x89PNG" + b"x" * 400])
def test_what_has_no_uid_is_an_error(data):
    with pytest.raises(ImageReadError):
        instance_of(data)


def test_a_deflated_bomb_is_not_inflated():
    stream = io.BytesIO()
    made = pydicom.dcmread(io.BytesIO(image(1)))
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    made.save_as(stream, enforce_file_format=True)
    data = stream.getvalue()
    assert read_gate_header(data, 1 << 20).instance == "1.2.3.4.1"
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    meta_end = 132 + 12 + int.from_bytes(data[140:144], "little")
    bomb = packer.compress(bytes(64 << 20)) + packer.flush()
    assert len(bomb) < 1 << 17
    with pytest.raises(ImageTooLargeError, match="inflates"):
        read_gate_header(data[:meta_end] + bomb, 1 << 20)


@pytest.mark.parametrize(
    ("text", "good"),
    [("1.2.3", True), ("1" * 64, True), ("1" * 65, False), ("", False), ("..", False),
     ("1.2.a", False), ("1.2\0", False), ("١.٢", False), ("1 2", False)],
)  # fmt: skip
def test_what_a_uid_is(text, good):
    assert is_uid(text) is good
