"""One simulated image as a file: PNG, JPEG, DICOM, and a mask as PNG."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from torchxrayvision.phantom import Simulation

JPEG_QUALITY = 95
BITS_STORED = 12
_SOP_CLASSES = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
}
# Direction of the rows and of the columns in the patient (PS3.3 C.7.6.1.1.1).
_ORIENTATION = {"PA": ["L", "F"], "AP": ["L", "F"], "L": ["A", "F"]}
_VIEW_POSITION = {"PA": "PA", "AP": "AP", "L": "LL"}


def grey_levels(image: NDArray[np.float32], bits: int) -> NDArray[Any]:
    """Whole numbers for an image, the inverse of `torchxrayvision.images.normalize`.

    Args:
        image: float32 (1, H, W) in [-1024, 1024].
        bits: Depth; 8 or less gives uint8.

    Returns:
        uint8 or uint16 (H, W); 0 for -1024 and the largest number of the depth for 1024.

    Example:
        >>> grey_levels(np.array([[[-1024, 0, 1024]]], dtype=np.float32), 12).tolist()
        [[0, 2048, 4095]]
    """
    top = (1 << bits) - 1
    levels = np.rint((image[0].astype(np.float64) + 1024) * (top / 2048)).clip(0, top)
    return np.asarray(levels, dtype=np.uint8 if bits <= 8 else np.uint16)


def png_bytes(image: NDArray[np.float32], bits: int = 8) -> bytes:
    """A grey PNG file of 8 or 16 bits."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(grey_levels(image, bits)).save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def write_png(path: Path, image: NDArray[np.float32], bits: int = 8) -> None:
    """Write an image as grey PNG of 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(image, bits))


def write_jpeg(path: Path, image: NDArray[np.float32]) -> None:
    """Write an image as grey JPEG of 8 bits."""
    _save(path, grey_levels(image, 8), quality=JPEG_QUALITY)


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask as PNG of 0 and 255."""
    _save(path, mask.astype(np.uint8) * np.uint8(255), compress_level=3)


def _save(path: Path, pixels: NDArray[Any], **options: Any) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def uid(*parts: object) -> str:
    """A DICOM unique identifier out of names and numbers, the same on every machine.

    Source:
        DICOM PS3.5 section B.2: UIDs of UUIDs under the root 2.25.

    Example:
        >>> uid("study", 0, 1) == uid("study", 0, 1) != uid("series", 0, 1)
        True
    """
    name = "torchxrayvision.phantom/" + "/".join(map(str, parts))
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, name).int}"


def write_dicom(
    path: Path | None,
    made: Simulation,
    *,
    seed: int,
    number: int,
    patient: str = "",
    inverted: bool = False,
    modality: str = "DX",
) -> Dataset:
    """Write an image as DICOM: 12 bits stored, uncompressed, with the tags of a chest radiograph.

    Args:
        path: File to write; None writes none.
        made: What `simulate` gave.
        seed: Seed of the simulation, for the identifiers.
        number: Number of the image in its release, for the identifiers.
        patient: PatientID; empty for that of the image.
        inverted: Store it as MONOCHROME1, in which 0 is white.
        modality: "DX", or "CR" as in older collections.

    Returns:
        The header and pixels, as written or to be written.

    Source:
        DICOM PS3.3 A.2 (CR) and A.26 (DX); PS3.3 C.11.2.1.2 for the window, which spans the depth.
    """
    import pydicom
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_SOP_CLASSES[modality])
    meta.MediaStorageSOPInstanceUID = UID(uid("instance", seed, number))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path or ""), Dataset(), file_meta=meta, preamble=b"\0" * 128)
    _identify(dataset, made, patient or str(made.patient.id), seed, number)
    _acquisition(dataset, made, modality, inverted)
    _pixels(dataset, grey_levels(made.image, BITS_STORED), inverted)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return dataset


def _identify(dataset: Dataset, made: Simulation, patient: str, seed: int, number: int) -> None:
    """Patient, study, series and instance; nobody has these names."""
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = uid("study", seed, number)
    dataset.SeriesInstanceUID = uid("series", seed, number)
    dataset.PatientName = f"Simulated^{patient}"
    dataset.PatientID = patient
    dataset.PatientSex = made.patient.sex
    dataset.PatientAge = f"{int(made.patient.age_years):03d}Y"
    dataset.PatientBirthDate = dataset.StudyDate = dataset.StudyTime = ""
    dataset.ReferringPhysicianName = dataset.AccessionNumber = ""
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = str(number + 1), 1, 1
    dataset.ImageComments = "Simulated radiograph; no such person exists"


def _acquisition(dataset: Dataset, made: Simulation, modality: str, inverted: bool) -> None:
    from pydicom.dataset import Dataset as Item

    dataset.Modality = modality
    dataset.Manufacturer = "TorchXRayVision"
    dataset.ManufacturerModelName = f"phantom, site {made.site}"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = _VIEW_POSITION[made.view]
    dataset.PatientOrientation = _ORIENTATION[made.view]
    spacing = f"{made.pixel_spacing:.6g}"
    # Equal values say that the second is not calibrated to the patient (PS3.3 10.7.1.3).
    dataset.ImagerPixelSpacing = dataset.PixelSpacing = [spacing, spacing]
    dataset.BurnedInAnnotation = "NO"
    if modality == "CR":
        dataset.Laterality = ""
        return
    region = Item()
    region.CodeValue, region.CodingSchemeDesignator = "51185008", "SCT"
    region.CodeMeaning = "Thorax"
    dataset.AnatomicRegionSequence = [region]
    dataset.ImageLaterality = "U"  # the thorax is not one of a pair
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if inverted else -1  # -1: larger is denser


def _pixels(dataset: Dataset, levels: NDArray[Any], inverted: bool) -> None:
    top = (1 << BITS_STORED) - 1
    dataset.Rows, dataset.Columns = levels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, BITS_STORED, BITS_STORED - 1
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.WindowCenter, dataset.WindowWidth = str((top + 1) // 2), str(top + 1)
    dataset.LossyImageCompression = "00"
    stored = np.uint16(top) - levels if inverted else levels
    dataset.PixelData = stored.astype("<u2").tobytes()
