"""Masks from the forms in which releases draw them: boxes, run lengths, ellipses, polygons.

Conventions, everywhere in this module: x grows to the right and y downwards; pixel (row r, column
c) covers ``[c, c + 1) x [r, r + 1)`` and its centre is ``(c + 0.5, r + 0.5)``; boxes are half open,
so a box of ``x=2, width=3`` covers columns 2, 3 and 4. Masks are ``bool (H, W)``. What lies outside
the frame is cut off; what is malformed raises :class:`~torchxrayvision.errors.DatasetError`.

Run lengths come in three dialects, told apart by function:

=====================  =====================================================  ================
function               runs                                                   scan order
=====================  =====================================================  ================
``decode_gap_rle``     ``gap run gap run ...`` (SIIM); ``-1`` is empty        down the columns
``decode_rle``         ``start length start length ...`` (CheXmask)           along the rows
``decode_coco_rle``    COCO's counts, plain or compressed (CheXlocalize)      down the columns
=====================  =====================================================  ================

Example:
    >>> import numpy as np
    >>> boxes_to_mask([[1, 0, 2, 1]], shape=(2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
"""

from __future__ import annotations

from torchxrayvision.masks.arrays import mask_to_box, masks_iou, resize_mask, union
from torchxrayvision.masks.runs import (
    decode_coco_rle,
    decode_gap_rle,
    decode_rle,
    encode_coco_rle,
    encode_gap_rle,
    encode_rle,
)

# For the other packages of the project.
from torchxrayvision.masks.shapes import box_edges as box_edges
from torchxrayvision.masks.shapes import boxes_to_mask, ellipse_to_mask, polygon_to_mask

__all__ = [
    "boxes_to_mask",
    "decode_coco_rle",
    "decode_gap_rle",
    "decode_rle",
    "ellipse_to_mask",
    "encode_coco_rle",
    "encode_gap_rle",
    "encode_rle",
    "mask_to_box",
    "masks_iou",
    "polygon_to_mask",
    "resize_mask",
    "union",
]
