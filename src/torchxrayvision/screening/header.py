"""What the header of a DICOM file says of its picture, and where the picture says otherwise."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from torchxrayvision.images import silence_decoders
from torchxrayvision.inputs import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchxrayvision.inputs import InputFile
    from torchxrayvision.screening.pose import Pose

__all__ = ["Header", "contradictions", "read_header"]

_KEYWORDS: Final = ("Modality", "BodyPartExamined", "ViewPosition", "PhotometricInterpretation")
# Projection radiography, film that was scanned, and what secondary captures are stored as.
_MODALITIES: Final = frozenset({"", "CR", "DX", "RG", "RF", "XA", "OT", "SC", "PX"})
# PS3.16 annex L and what scanners write instead.
_CHEST: Final = (
    "CHEST",
    "THORAX",
    "LUNG",
    "RIB",
    "HEART",
    "TORSO",
    "STERNUM",
    "CLAVICLE",
    "TSPINE",
)
# Codes of PS3.3 and PS3.16 that a remark may quote.
_KNOWN: Final = (
    " AR AU BI BMD CT DG DOC ECG ES GM IO IVOCT IVUS KO LS MG MR NM OAM OCT OP OPM OPT OPV PR PT "
    "REG RTDOSE RTIMAGE RTPLAN RTSTRUCT SEG SM SMR SR TG US XC ABDOMEN ANKLE ARM BREAST CALCANEUS "
    "CERVIX COCCYX CSPINE ELBOW EXTREMITY EYE FEMUR FINGER FOOT FOREARM HAND HEAD HIP HUMERUS JAW "
    "KNEE LEG LSPINE MANDIBLE NECK PATELLA PELVIS SCAPULA SHOULDER SKULL SPINE TEETH THUMB TIBIA "
    "TOE WRIST ZYGOMA CHEST THORAX LUNG RIB RIBS HEART TORSO STERNUM CLAVICLE TSPINE "
)
_LATERAL: Final = frozenset({"LL", "RL", "LAT", "LATERAL", "LLD", "RLD", "L", "R"})
_FRONTAL: Final = frozenset({"PA", "AP"})
_OTHER: Final = {"MONOCHROME1": "MONOCHROME2", "MONOCHROME2": "MONOCHROME1"}


@dataclass(frozen=True, slots=True)
class Header:
    """Elements of a DICOM file, upper case, empty where absent or damaged.

    Args:
        modality: Modality (0008,0060).
        body_part: Body Part Examined (0018,0015).
        view: View Position (0018,5101).
        photometric: Photometric Interpretation (0028,0004).
    """

    modality: str = ""
    body_part: str = ""
    view: str = ""
    photometric: str = ""

    @property
    def elsewhere(self) -> bool:
        """Whether it names a part of the body that is not the chest."""
        return bool(self.body_part) and not any(word in self.body_part for word in _CHEST)


def read_header(file: InputFile) -> Header:
    """Read the elements; a damaged header gives empty ones.

    Args:
        file: A DICOM file.
    """
    from pydicom import dcmread

    try:
        with silence_decoders():
            dataset = dcmread(
                io.BytesIO(read_bytes(file)),
                force=True,
                stop_before_pixels=True,
                specific_tags=list(_KEYWORDS),
            )
            # Values are converted when they are asked for.
            texts = [str(dataset.get(name) or "").strip(" \0").upper() for name in _KEYWORDS]
        return Header(*texts)
    except Exception:  # noqa: BLE001 - Ray raises just that
        return Header()


def _named(code: str) -> str:
    """A code as a remark may quote it; damage and custom put anything there, names too."""
    return code if f" {code} " in _KNOWN else "something else"


def contradictions(header: Header, pose: Pose) -> Iterator[str]:
    """Where header and picture do not agree.

    Args:
        header: As read.
        pose: What the picture shows.

    Yields:
        One clause each.

    Example:
        >>> from torchxrayvision.screening.pose import Pose
        >>> list(contradictions(Header("CR", "ANKLE"), Pose(2.0, 0, False, -1.0, -1.0)))
        ['BodyPartExamined says ANKLE, the picture shows a chest']
    """
    if header.modality not in _MODALITIES:
        yield f"Modality says {_named(header.modality)}, which is no projection radiograph"
    frontal = pose.chest > 0
    lateral = not frontal and pose.lateral > 0 and not header.elsewhere
    if header.elsewhere and frontal:
        yield f"BodyPartExamined says {_named(header.body_part)}, the picture shows a chest"
    if header.body_part and not header.elsewhere and not frontal and not lateral:
        yield f"BodyPartExamined says {_named(header.body_part)}, the picture does not show it"
    if header.view in _LATERAL and frontal:
        yield f"ViewPosition says {header.view}, the picture is frontal"
    if header.view in _FRONTAL and lateral:
        yield f"ViewPosition says {header.view}, the picture is lateral"
    if frontal and pose.inverted and header.photometric in _OTHER:
        right = _OTHER[header.photometric]
        yield f"PhotometricInterpretation says {header.photometric}, {right} shows it right"
