"""Read one radiograph to float32 of shape (1, H, W) in [-1024, 1024], whatever its format.

The rules, and where they come from:

* **Format** is told from the content, never from the name.
* **Full scale** is declared, never measured: -1024 is the smallest and 1024 the largest value that
  the declared depth can hold. For DICOM that is Bits Stored and Pixel Representation (PS3.3
  section C.7.6.3.1). A linear rescale (C.11.1) moves values and range together and so leaves the
  image as it is, except that a negative slope inverts it; the range after a Modality LUT is
  that of the bits in its descriptor; after a window or VOI LUT (C.11.2) it is the window. A
  descriptor of 16 bits, which writers put over any table, counts as Bits Stored where no entry
  exceeds those.
* **Colour** is the mean of red, green and blue; alpha is dropped. Colour DICOM is refused.
* **Orientation** of Exif and TIFF is applied, as every viewer does; that of XMP is not.
* **MONOCHROME1** and white-is-zero are inverted last, unless ``fix_monochrome=False``.
* **Pixel padding** (PS3.3 section C.7.5.1.1.2) is not part of the image and becomes air, -1024.
* **Unused high bits** of a DICOM pixel cell, with old overlays in them, are cut off (PS3.5
  section 8.1.1), but never those that the values run on into.
* **A header that contradicts the pixels** gives way: High Bit over right-aligned values, a Bits
  Stored below the depth of the code stream or of the values, a transfer syntax that is not that
  of the code stream, tables of offsets. Elements that only adjust the image are ignored where
  they are odd; those that other readers take as given are defaulted. `Raster.notes` has a
  clause for each.
* **Pixels that are not square** are read as they are; `ImageInfo.aspect` is their height over
  their width, and `transforms.prepare`, commands and datasets resample them to square ones.
* **Damage** is an error, and no other exception than those of `torchxrayvision.errors` leaves
  this package; no error or note quotes text of a header, where damage may have moved the name
  of a patient. An image that ends early is refused and not filled with grey, also where an end
  marker was put behind the cut. Two losses inside a JPEG cannot be told from an image: a piece
  from the middle of one scan of a progressive file, and one within a restart interval. Cut within
  its last scan, a progressive file comes out whole but coarser.
"""

from torchxrayvision.images.common import DEFAULT_LIMITS, ImageInfo, Limits, Raster, Reduction

# For the other packages of the project.
from torchxrayvision.images.common import silence_decoders as silence_decoders
from torchxrayvision.images.read import HEAD as HEAD
from torchxrayvision.images.read import load as load
from torchxrayvision.images.read import (
    load_image,
    normalize,
    read_image,
    read_info,
    read_raster,
    read_xray_dcm,
)
from torchxrayvision.images.read import sniff as sniff

__all__ = [
    "DEFAULT_LIMITS",
    "ImageInfo",
    "Limits",
    "Raster",
    "Reduction",
    "load_image",
    "normalize",
    "read_image",
    "read_info",
    "read_raster",
    "read_xray_dcm",
]
