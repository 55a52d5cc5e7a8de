"""Hannover COVID-19: the repository's own header, withheld ages, days counted to the past."""

from pathlib import Path

from fakes._fake import NAN, Fake, write_image, write_text

HEADER = (
    "patient_id,image_id,sex,age,size,weight,admission_offset,icu_admission_offset,"
    "icu_release_offset,death_offset,modality,projection,crp_offset,crp_val,d-dimer_offset,"
    "d-dimer_val,factor_xii_offset,factor_xii_val,ldh_offset,ldh_val,lymphocytes_offset,"
    "lymphocytes_val,neutrophils_offset,neutrophils_val,pco2_offset,pco2_val,po2_offset,po2_val"
)
# patient, image, sex, days to admission, icu, death, modality, projection, laboratory
ROWS = [
    ("042f06a9", "b343e657", "m", "0", "0.0,4.0", "", "CR", "ap", "0.0,5.0,,,0.0,145.0"),
    ("042f06a9", "c9280a30", "m", "-2", "-2.0,2.0", "", "CR", "ap", "0.0,38.0,,,-2.0,145.0"),
    ("09ec853d", "a4318ac9", "m", "10", "10.0,20.0", "", "CR", "ap", "10.0,46.0,,,,"),
    ("09ec853d", "2168a917", "m", "-21", "-21.0,-11.0", "", "DX", "pa", "0.0,44.0,,,,"),
    ("0a359802", "61bc50d1", "f", "0", "0.0,1.0", "9.0", "CR", "ap", "0.0,-inf,,,0.0,45.0"),
    ("c6300000", "82a78c13", "", "", ",", "", "DX", "pa", ",,0.0,inf,,"),
]


def build(folder: Path) -> Fake:
    """Six images of four patients; one taken before the illness, one without any offset."""
    lines = [HEADER]
    for seed, (patient, image, sex, days, icu, death, modality, view, lab) in enumerate(ROWS):
        rest = ",".join([""] * 10)
        lines.append(
            f"{patient},{image},{sex},,,,{days},{icu},{death},{modality},{view},{lab},{rest}"
        )
        write_image(folder / "png" / f"{image}.png", (64, 48), seed)
    names = [f"png/{row[1]}.png" for row in ROWS]
    return Fake(
        kwargs={"imgpath": folder, "csvpath": write_text(folder / "data.csv", lines)},
        labels={
            name: {"COVID-19": NAN if row[3] == "10" else 1.0}
            for name, row in zip(names, ROWS, strict=True)
        },
        default=names,
        views={name: row[7].upper() for name, row in zip(names, ROWS, strict=True)},
        patients={name: row[0] for name, row in zip(names, ROWS, strict=True)},
        ages=dict.fromkeys(names, NAN),
        sexes={name: row[2].upper() for name, row in zip(names, ROWS, strict=True)},
        days=dict(zip(names, [0.0, 2.0, -10.0, 21.0, 0.0, NAN], strict=True)),
    )


BUILDERS = {"HannoverCOVID_Dataset": build}
