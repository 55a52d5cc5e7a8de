"""VinDr-CXR as on Kaggle: DICOM files, a row a box or a reader's "No finding"."""

from pathlib import Path

from fakes._fake import Fake, area, write_dicom, write_text

SHAPE = (64, 48)
IDS = [
    "50a418190bc3fb1ef1633bf9678929b3",
    "0c96a8a1d8c9bd2d2c4d3f7a6f8a9c11",
    "9a5094b2563a1ef3ff50dc5c7ff71345",
    "ff5094b2563a1ef3ff50dc5c7ff7aaaa",
]
HEADER = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
ROWS = [
    f"{IDS[0]},No finding,14,R11,,,,",
    f"{IDS[0]},No finding,14,R15,,,,",
    f"{IDS[0]},No finding,14,R16,,,,",
    f"{IDS[2]},Cardiomegaly,3,R10,10.0,20.0,30.0,40.0",
    f"{IDS[2]},Cardiomegaly,3,R9,12.0,30.0,40.0,45.0",
    f"{IDS[2]},Pleural effusion,10,R9,0.0,0.0,5.0,5.0",
    f"{IDS[2]},Cardiomegaly,3,R8,11.0,21.0,29.0,39.0",
    f"{IDS[2]},Pleural effusion,10,R10,2.0,2.0,6.0,7.0",
    f"{IDS[1]},Other lesion,9,R10,1.0,2.0,3.0,4.0",
    f"{IDS[1]},Other lesion,9,R10,5.0,6.0,9.0,9.0",  # one reader twice
    f"{IDS[1]},Pulmonary fibrosis,13,R8,4.0,4.0,20.0,21.0",
    f"{IDS[1]},Pulmonary fibrosis,13,R9,4.0,4.0,20.0,21.0",
    f"{IDS[3]},Pleural thickening,11,R1,7.0,9.0,7.0,12.0",  # a box of no area
    f"{IDS[3]},Lung Opacity,7,R2,0.0,0.0,99.0,99.0",  # out of the image
    f"{IDS[3]},Lung Opacity,7,R3,0.0,0.0,1.0,1.0",
]


def build(folder: Path) -> Fake:
    """Four images, each read by three readers."""
    for seed, name in enumerate(IDS):
        write_dicom(
            folder / "train" / f"{name}.dicom",
            SHAPE,
            seed,
            bits=(12, 14, 16, 10)[seed],
            photometric="MONOCHROME1" if seed == 2 else "MONOCHROME2",
        )
    first, *_ = order = sorted(IDS)
    assert first == IDS[1]
    files = {name: f"{name}.dicom" for name in order}
    labels = {
        IDS[0]: {},
        IDS[1]: {"Other Lesion": 1.0, "Pulmonary Fibrosis": 1.0},
        IDS[2]: {"Cardiomegaly": 1.0, "Effusion": 1.0},
        IDS[3]: {"Pleural_Thickening": 1.0, "Lung Opacity": 1.0},
    }
    masks = {
        IDS[1]: {
            "Other Lesion": area(SHAPE, (1, 2, 3, 4), (5, 6, 9, 9)),
            "Pulmonary Fibrosis": area(SHAPE, (4, 4, 20, 21)),
        },
        IDS[2]: {
            "Cardiomegaly": area(SHAPE, (10, 20, 30, 40), (12, 30, 40, 45)),
            "Effusion": area(SHAPE, (0, 0, 5, 5), (2, 2, 6, 7)),
        },
        IDS[3]: {"Lung Opacity": area(SHAPE, (0, 0, 48, 64))},
    }
    return Fake(
        kwargs={
            "imgpath": folder,
            "csvpath": write_text(folder / "train.csv", [HEADER, *ROWS]),
        },
        labels={files[name]: labels[name] for name in order},
        views=dict.fromkeys(files.values(), "PA"),
        default=list(files.values()),
        splits={"train": list(files.values())},
        masks={files[name]: found for name, found in masks.items()},
    )


BUILDERS = {"VinDr_Dataset": build}
