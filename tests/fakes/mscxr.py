"""MS-CXR: one row a box, several boxes of a phrase, paths below MIMIC-CXR-JPG."""

from pathlib import Path

from fakes._fake import NAN, Fake, area, write_image, write_text

HEADER = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split"
FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Lung Opacity"),
    *("Pneumonia", "Pneumothorax"),
)
SHAPE = (320, 390)
IDS = [
    "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014",
    "174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962",
    "2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab",
    "4b4a5e1e-0a1e2b1f-7c3bb7b1-9f3d9f4e-1a2b3c4d",
]
PATHS = [
    f"files/p10/p10000032/s50414267/{IDS[0]}.jpg",
    f"files/p10/p10000032/s53189527/{IDS[1]}.jpg",
    f"files/p11/p11000183/s58733084/{IDS[2]}.jpg",
    f"files/p12/p12000256/s54932210/{IDS[3]}.jpg",
]


def build(folder: Path) -> Fake:
    """Four images of three patients; two boxes of a phrase, two phrases, a box of no width."""
    size = f"{SHAPE[1]},{SHAPE[0]}"
    lines = [
        HEADER,
        f'{IDS[0]},Pneumonia,"right, lower lobe opacity",{PATHS[0]},50,60,100,120,{size},train',
        f'{IDS[0]},Pneumonia,"right, lower lobe opacity",{PATHS[0]},100,100,100,120,{size},train',
        f"{IDS[0]},Pleural Effusion,small effusion,{PATHS[0]},10,200,80,90,{size},train",
        f"{IDS[1]},Edema,mild edema,{PATHS[1]},20,30,300,200,{size},train",
        f"{IDS[2]},Cardiomegaly,enlarged heart,{PATHS[2]},120,150,180,100,{size},val",
        f"{IDS[3]},Lung Opacity,faint opacity,{PATHS[3]},120,150,0,100,{size},test",
    ]
    for seed, path in enumerate(PATHS):
        write_image(folder / path, SHAPE, seed)
    found = [("Pneumonia", "Effusion"), ("Edema",), ("Cardiomegaly",), ("Lung Opacity",)]
    nothing = dict.fromkeys(FINDINGS, NAN)
    return Fake(
        kwargs={
            "imgpath": folder,
            "csvpath": write_text(folder / "MS_CXR_Local_Alignment_v1.1.0.csv", lines),
        },
        labels={
            path: nothing | dict.fromkeys(names, 1.0)
            for path, names in zip(PATHS, found, strict=True)
        },
        default=PATHS,
        patients=dict(zip(PATHS, ["10000032", "10000032", "11000183", "12000256"], strict=True)),
        masks={
            PATHS[0]: {
                "Pneumonia": area(SHAPE, (50, 60, 150, 180), (100, 100, 200, 220)),
                "Effusion": area(SHAPE, (10, 200, 90, 290)),
            },
            PATHS[1]: {"Edema": area(SHAPE, (20, 30, 320, 230))},
            PATHS[2]: {"Cardiomegaly": area(SHAPE, (120, 150, 300, 250))},
        },
        boxes={
            PATHS[0]: [(50, 60, 100, 120), (100, 100, 100, 120), (10, 200, 80, 90)],
            PATHS[1]: [(20, 30, 300, 200)],
            PATHS[2]: [(120, 150, 180, 100)],
        },
        splits={"train": PATHS[:2], "val": [PATHS[2]], "test": [PATHS[3]]},
        required=("csvpath",),
    )


BUILDERS = {"MSCXR_Dataset": build}
