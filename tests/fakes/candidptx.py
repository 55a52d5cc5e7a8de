"""CANDID-PTX: DICOM files without an ending, run lengths of 1024 by 1024, repeated images."""

from pathlib import Path

import numpy as np

from fakes._fake import Fake, area, write_dicom, write_text

SHAPE = (1024, 1024)
UIDS = [f"1.2.826.0.1.3680043.8.498.{n}" for n in (1044, 2071, 3166, 4208, 5312)]


def gaps_and_runs(mask: np.ndarray) -> str:
    """The challenge's form, written down column by column without this package."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [0]])
    edges = np.flatnonzero(np.diff(flat))
    starts, ends = edges[::2], edges[1::2]
    gaps = starts - np.concatenate([[0], ends[:-1]])
    pairs = zip(gaps.tolist(), (ends - starts).tolist(), strict=True)
    return " ".join(f"{gap} {run}" for gap, run in pairs)


def build(folder: Path) -> Fake:
    """Five images of four patients; two outlines of a finding, blanks, an image in two rows."""
    first, second = area(SHAPE, (100, 200, 140, 300)), area(SHAPE, (120, 250, 200, 320))
    tube, rib = area(SHAPE, (500, 0, 520, 700)), area(SHAPE, (30, 600, 90, 640))
    reports = [
        "SOPInstanceUID,EncodedPixels,StudyInstanceUID,Report,filename",
        f'{UIDS[0]},{gaps_and_runs(first)},1.2.1,"Small, apical pneumothorax.",P0001_1.dcm',
        f"{UIDS[0]},{gaps_and_runs(second)},1.2.1,Small.,P0001_1.dcm",
        f"{UIDS[1]},-1,1.2.2,No pneumothorax.,P0001_2.dcm",
        f"{UIDS[2]},,1.2.3,Chest tube in place.,P0002_1.dcm",
        f"{UIDS[3]},-1,1.2.4,Fracture.,P0003_1.dcm",
        f"{UIDS[4]},-1,1.2.5,Tube seen.,P0004_1.dcm",
    ]
    tubes = [
        "anon_SOPUID,annotation_ref,mask_rle",
        f"{UIDS[2]},1,{gaps_and_runs(tube)}",
        f"{UIDS[4]},2,",  # listed without an outline
    ]
    ribs = ["anon_SOPUID,annotation_ref,mask_rle", f"{UIDS[3]},1,{gaps_and_runs(rib)}"]
    for seed, uid in enumerate(UIDS):
        ending = "" if seed % 2 else ".dcm"
        write_dicom(folder / "dataset" / f"{uid}{ending}", SHAPE, seed, bits=8)
    return Fake(
        kwargs={
            "imgpath": folder / "dataset",
            # The file starts with a byte order mark.
            "csvpath": write_text(folder / "Pneumothorax_reports.csv", reports, "utf-8-sig"),
            "chest_tube_csvpath": write_text(folder / "chest_tube.csv", tubes),
            "rib_fracture_csvpath": write_text(folder / "acute_rib_fracture.csv", ribs),
        },
        labels={
            UIDS[0]: {"Pneumothorax": 1.0},
            UIDS[1]: {},
            UIDS[2]: {"Chest Tube": 1.0},
            UIDS[3]: {"Rib fracture": 1.0},
            UIDS[4]: {"Chest Tube": 1.0},
        },
        default=UIDS,
        patients=dict(zip(UIDS, ["0001", "0001", "0002", "0003", "0004"], strict=True)),
        masks={
            UIDS[0]: {"Pneumothorax": first | second},
            UIDS[2]: {"Chest Tube": tube},
            UIDS[3]: {"Rib fracture": rib},
        },
        required=("csvpath",),
    )


BUILDERS = {"CANDIDPTX_Dataset": build}
