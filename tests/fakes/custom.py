"""People's own images: a table with columns of their own naming, and folders as findings."""

from pathlib import Path

from fakes._fake import NAN, Fake, write_dicom, write_image, write_text


def build_csv(folder: Path) -> Fake:
    """Five images of three patients in four formats; the table lies in another folder."""
    rows = [
        # file, subject, position, age, gender, Mass, Nodule, split
        ("p1/first.png", "p01", "PA", "45", "F", "1", "0", "train"),
        ("p1/second.jpg", "p01", "lateral", "46", "female", "0", "", "train"),
        ("p2/third.tif", "p02", "AP", "006M", "M", "", "1", "test"),
        ("p2/fourth.dcm", "p02", "pa", "014D", "Male", "-1", "0", "test"),
        ("p3/fifth", "p03", "", "", "", "0.0", "1.0", "test"),
    ]
    write_image(folder / "images" / rows[0][0], (64, 48), 0)
    write_image(folder / "images" / rows[1][0], (320, 390), 1)
    write_image(folder / "images" / rows[2][0], (64, 48), 2, top=65535)
    write_dicom(folder / "images" / rows[3][0], (64, 48), 3, photometric="MONOCHROME1")
    write_dicom(folder / "images" / rows[4][0], (48, 64), 4)  # DICOM files often have no ending
    lines = ["File Name,Subject ID,View Position,Patient Age,Gender,comment,Mass,Nodule,Split"]
    lines += [",".join([*row[:5], "text", *row[5:]]) for row in rows]
    names = [row[0] for row in rows]
    values = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0}
    return Fake(
        kwargs={
            "imgpath": folder / "images",
            "csvpath": write_text(folder / "tables" / "mine.csv", lines),
        },
        labels={
            row[0]: {"Mass": values.get(row[5], NAN), "Nodule": values.get(row[6], NAN)}
            for row in rows
        },
        default=names,
        views=dict(zip(names, ["PA", "L", "AP", "PA", "UNKNOWN"], strict=True)),
        patients={row[0]: row[1] for row in rows},
        ages=dict(zip(names, [45.0, 46.0, 0.5, 14 / 365.25, NAN], strict=True)),
        sexes={row[0]: {"F": "F", "f": "F", "M": "M"}.get(row[4][:1], "") for row in rows},
        splits={"train": names[:2], "test": names[2:]},
        required=("csvpath",),
    )


def build_folder(folder: Path) -> Fake:
    """Four images in three subfolders, among hidden files and files that are no images."""
    root = folder / "mine"
    names = ["COVID/b.dcm", "Normal/a.png", "pneumonia/deep/1.2.840", "pneumonia/z.jpg"]
    write_dicom(root / names[0], (64, 48), 0)
    write_image(root / names[1], (64, 48), 1)
    write_dicom(root / names[2], (48, 64), 2, photometric="MONOCHROME1")
    write_image(root / names[3], (320, 390), 3)
    write_image(root / "Normal" / ".hidden.png", seed=9)
    write_image(root / ".cache" / "thumbnail.png", seed=9)
    write_text(root / "pneumonia" / "readme.txt", ["no image"])
    write_text(root / "Thumbs.db", ["no image"])
    return Fake(
        kwargs={"folder": root, "labels": "folders"},
        labels={
            names[0]: {"COVID": 1.0},
            names[1]: {},
            names[2]: {"pneumonia": 1.0},
            names[3]: {"pneumonia": 1.0},
        },
        default=names,
    )


BUILDERS = {"CSV_Dataset": build_csv, "Folder_Dataset": build_folder}
