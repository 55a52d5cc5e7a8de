"""What is read and what is refused, from the header before the networks and from the screening."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from torchxrayvision.errors import ImageReadError, ImageTooLargeError
from torchxrayvision.images import silence_decoders

if TYPE_CHECKING:
    from torchxrayvision.service.config import GateRules

_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_PREAMBLE: Final = 132
_KEYWORDS: Final = ("SOPInstanceUID", "Modality", "BodyPartExamined", "ViewPosition")
_REFUSED: Final = "refused: "
_DAMAGED: Final = "its DICOM header cannot be read"


@dataclass(frozen=True, slots=True)
class GateHeader:
    """What the gate looks at; upper case, empty where absent.

    Args:
        instance: SOP Instance UID.
        modality: Modality (0008,0060).
        body_part: Body Part Examined (0018,0015).
        view: View Position (0018,5101).
    """

    instance: str
    modality: str = ""
    body_part: str = ""
    view: str = ""


def instance_of(data: bytes) -> str:
    """The SOP Instance UID of a DICOM file, without a look at anything else where possible.

    Args:
        data: A DICOM file; its meta information counts where it has any.

    Returns:
        The UID, of digits and dots.

    Raises:
        ImageReadError: If there is none.
    """
    from pydicom.filereader import dcmread, read_dataset

    try:
        with silence_decoders():
            if data[_PREAMBLE - 4 : _PREAMBLE] == b"DICM":
                stream = io.BytesIO(data[_PREAMBLE : _PREAMBLE + 65_536])
                meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
                uid = str(meta.MediaStorageSOPInstanceUID)
            else:
                tags: list[str] = ["SOPInstanceUID"]
                bare = dcmread(
                    io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=tags
                )
                uid = str(bare.SOPInstanceUID)
    except Exception as error:
        raise ImageReadError("the object", _DAMAGED) from error
    if not is_uid(uid):
        raise ImageReadError("the object", "its SOP Instance UID is no UID")
    return uid


def is_uid(text: str) -> bool:
    """Whether a text is a UID: digits and dots, at most 64.

    Args:
        text: Any text.

    Example:
        >>> is_uid("1.2.840"), is_uid("../../etc/passwd")
        (True, False)
    """
    return 0 < len(text) <= 64 and text.isascii() and text.replace(".", "").isdigit()


def read_gate_header(data: bytes, most: int) -> GateHeader:
    """What the gate looks at in a file.

    Args:
        data: A DICOM file.
        most: Bytes that a deflated one may inflate to.

    Returns:
        The header.

    Raises:
        ImageReadError: If it cannot be read.
        ImageTooLargeError: If it inflates to more.
    """
    from pydicom.filereader import dcmread, read_dataset

    try:
        with silence_decoders():
            if data[_PREAMBLE - 4 : _PREAMBLE] == b"DICM":
                stream = io.BytesIO(data)
                stream.seek(_PREAMBLE)
                meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
                if str(meta.get("TransferSyntaxUID", "")) == _DEFLATED:
                    _check_inflated(data[stream.tell() :], most)
            tags: list[str] = list(_KEYWORDS)
            dataset = dcmread(
                io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=tags
            )
            texts = [str(dataset.get(name) or "").strip(" \0").upper() for name in _KEYWORDS]
    except ImageReadError:
        raise
    except Exception as error:
        raise ImageReadError("the image", _DAMAGED) from error
    return GateHeader(*texts)


def _check_inflated(data: bytes, most: int) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    left, total = data, 0
    while left and not inflater.eof:
        total += len(inflater.decompress(left, 1 << 20))
        left = inflater.unconsumed_tail
        if total > most:
            raise ImageTooLargeError("the image", f"inflates to more than {most:,} bytes")


def refusal_by_header(rules: GateRules, header: GateHeader) -> str:
    """Why the rules refuse an image for its header.

    Args:
        rules: Of the settings.
        header: Of the image.

    Returns:
        One clause, which quotes no value of the header; empty if they do not.

    Example:
        >>> from torchxrayvision.service import GateRules
        >>> refusal_by_header(GateRules(), GateHeader("1.2", "CT"))
        'its modality is none of CR, DX'
    """
    for name, value, allowed in (
        ("modality", header.modality, rules.modalities),
        ("body part", header.body_part, rules.body_parts),
        ("view", header.view, rules.views),
    ):
        if allowed and value not in {one.upper() for one in allowed}:
            listed = ", ".join(one or "(not said)" for one in allowed)
            return f"its {name} is none of {listed}"
    return ""


def refusal_by_screening(rules: GateRules, check: str) -> str:
    """Why the rules refuse an image for what the screening says.

    Args:
        rules: Of the settings.
        check: Of `torchxrayvision.inference.Result`: `ok`, `noted: ...` or `refused: ...`.

    Returns:
        One clause; empty if they do not.
    """
    if rules.screening == "refuse" and check.startswith(_REFUSED):
        return check.removeprefix(_REFUSED)
    return ""
