"""Stony Brook RALO: a banner with the raters above a header that repeats, images named by row."""

from pathlib import Path

from fakes._fake import NAN, Fake, write_image, write_text

# patient, time of the examination, geographic extent and opacity of both raters
ROWS = [
    ("A486204", "20200408_093015", ("8", "6", "7", "6")),
    ("A102030", "20200401_120000", ("0", "0", "0", "0")),
    ("A486204", "20200412_010203", ("3", "4", "4", "4")),
    ("A777777", "", ("", "", "", "")),  # nobody scored it
    ("A555555", "20200501_000000", ("2", "1", "", "")),  # one rater
]
SCORES = [(7.5, 6.0), (0.0, 0.0), (3.5, 4.0), (NAN, NAN), (2.0, 1.0)]
DAYS = [18360.0, 18353.0, 18364.0, NAN, 18383.0]


def build(folder: Path) -> Fake:
    """Five images of four patients; one without scores, one scored by one rater."""
    lines = [
        ",,Rater 1,,Rater 2,",
        "Subject_ID,Exam_DateTime,Total GEOGRAPHIC,Total OPACITY,Total GEOGRAPHIC,Total OPACITY",
    ]
    for i, (patient, time, scores) in enumerate(ROWS):
        lines.append(f"{patient},{time},{','.join(scores)}")
        write_image(folder / "CXR_images_scored" / f"{i}.jpg", (64 + i, 48), i)
    paths = [f"{i}.jpg" for i in range(len(ROWS))]
    findings = ("Geographic Extent", "Lung Opacity")
    return Fake(
        kwargs={
            "imgpath": folder / "CXR_images_scored",
            "csvpath": write_text(folder / "ralo-dataset-metadata.csv", lines),
        },
        labels={
            path: dict(zip(findings, scores, strict=True))
            for path, scores in zip(paths, SCORES, strict=True)
        },
        default=paths,
        views=dict.fromkeys(paths, "AP"),
        patients={path: row[0] for path, row in zip(paths, ROWS, strict=True)},
        days=dict(zip(paths, DAYS, strict=True)),
        required=("csvpath",),
        scores=True,
    )


BUILDERS = {"StonyBrookCOVID_Dataset": build}
