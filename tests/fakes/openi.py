"""Open-i: reports in XML inside an archive, a table of DICOM headers, a table of t-SNE views."""

import io
import tarfile
from pathlib import Path

from fakes._fake import NAN, Fake, write_image, write_text

FINDINGS = (
    *("Atelectasis", "Calcified Granuloma", "Cardiomegaly", "Edema", "Effusion", "Emphysema"),
    *("Fibrosis", "Fracture", "Granuloma", "Hernia", "Infiltration", "Lung Lesion", "Mass"),
    *("Nodule", "Lung Opacity", "Pleural_Thickening", "Pneumonia", "Pneumothorax"),
)
UNKNOWN = dict.fromkeys(FINDINGS, NAN)


def present(*findings: str) -> dict[str, float]:
    return dict.fromkeys(findings, 1.0)


# Report, images, terms of people, terms of the program, labels.
REPORTS = [
    ("CXR1", ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"), ["normal"], [], {}),
    (
        "CXR10",
        ("CXR10_IM-0002-1001", "CXR10_IM-0002-2001"),
        ["Nodule/lung/base/left", "Nodule/pleura", "Pericardial Effusion/small"],
        ["Calcified Granuloma", "pericardial effusion", "granulomatous disease"],
        present("Nodule", "Lung Lesion", "Calcified Granuloma", "Granuloma"),
    ),
    (
        "CXR100",
        ("CXR100_IM-0003-1001",),
        ["Mass/breast/left", "Fractures, Bone/ribs/healed", "Cardiac Shadow/enlarged/mild"],
        ["subcutaneous emphysema", "thyroid mass", "pleural effusions"],
        present("Fracture", "Cardiomegaly", "Effusion"),
    ),
    (
        "CXR1000",
        ("CXR1000_IM-0004-1001", "CXR1000_IM-0004-2001"),
        ["no indexing"],
        [],
        UNKNOWN,
    ),
    (
        "CXR2",
        ("CXR2_IM-0005-1001",),
        ["technical quality of image unsatisfactory ", "Thickening/pleura/apex"],
        ["opacity", "cystic fibrosis"],
        present("Pleural_Thickening", "Lung Opacity"),
    ),
    ("CXR3", (), ["normal"], [], {}),
]
# Image in the table of headers, patient, birth, study day, position.
HEADERS = [
    ("CXR10_IM-0002-1001", 10, 19801231, 20110328, "PA"),
    ("CXR10_IM-0002-2001", 10, 19801231, 20110328, "LATERAL"),
    ("CXR1_IM-0001-3001", 1, 19660308, 20120312, "PA"),
    ("CXR1_IM-0001-4001", 1, 19660308, 20120312, ""),
    ("CXR1000_IM-0004-1001", 1000, 19500101, 20120401, "AP"),
    ("CXR1000_IM-0004-2001", 1000, 19500101, 20120401, "LL"),
    ("CXR2_IM-0005-1001", 2, 19500101, 20120401, "PA"),
]
VIEWS = {
    "CXR1_1_IM-0001-3001": "PA",
    "CXR1_1_IM-0001-4001": "UNKNOWN",
    "CXR10_IM-0002-1001": "PA",
    "CXR10_IM-0002-2001": "L",
    "CXR100_IM-0003-1001": "UNKNOWN",
    "CXR1000_IM-0004-1001": "AP",
    "CXR1000_IM-0004-2001": "LL",
    "CXR2_IM-0005-1001": "PA",
}
AGES = {"CXR1": 46.0, "CXR10": 30.0, "CXR100": NAN, "CXR1000": 62.0, "CXR2": 62.0}
DAYS = {"CXR1": 15411.0, "CXR10": 15061.0, "CXR100": NAN, "CXR1000": 15431.0, "CXR2": 15431.0}


def report(uid: str, images: tuple[str, ...], major: list[str], automatic: list[str]) -> str:
    """The parts of a report that matter, nested as in the release."""
    terms = "".join(f"<major>{term}</major>" for term in major)
    terms += "".join(f"<automatic>{term}</automatic>" for term in automatic)
    parents = "".join(
        f'<parentImage id="{image}"><figureId>F1</figureId>'
        f"<caption>PA and lateral</caption></parentImage>"
        for image in images
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?><eCitation><meta type="rr"/>'
        f'<uId id="{uid}"/><MedlineCitation><Article><Abstract>'
        '<AbstractText Label="FINDINGS">no effusion</AbstractText>'
        f"</Abstract></Article></MedlineCitation><MeSH>{terms}</MeSH>{parents}</eCitation>"
    )


def build(folder: Path) -> Fake:
    """Six reports, eight images; one image has no header, two have other names there."""
    archive = folder / "NLMCXR_reports.tgz"
    with tarfile.open(archive, "w:gz") as opened:
        for uid, images, major, automatic, _ in REPORTS:
            data = report(uid, images, major, automatic).encode()
            member = tarfile.TarInfo(f"ecgen-radiology/{uid[3:]}.xml")
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
    headers = ["imageid,Patient ID,Patient's Birth Date,Study Date,View Position,Rows,Columns"]
    headers += [",".join(map(str, (*row, 2828, 2320))) for row in HEADERS]
    clusters = ["imageid,tsne-view", "CXR10_IM-0002-1001,L", "CXR1_1_IM-0001-3001,PA"]
    names = {image: uid for uid, images, *_ in REPORTS for image in images}
    for seed, name in enumerate(names):
        write_image(folder / "NLMCXR_png" / f"{name}.png", (64, 48), seed)
    files = {image: f"{image}.png" for image in names}
    return Fake(
        kwargs={
            "imgpath": folder / "NLMCXR_png",
            "xmlpath": archive,
            "dicomcsv_path": write_text(folder / "nlmcxr_dicom_metadata.csv", headers),
            "tsnepacsv_path": write_text(folder / "nlmcxr_tsne_pa.csv", clusters),
        },
        labels={files[image]: labels for _, images, _, _, labels in REPORTS for image in images},
        views={files[image]: view for image, view in VIEWS.items()},
        default=[
            files[image]
            for image in ("CXR1_1_IM-0001-3001", "CXR10_IM-0002-1001", "CXR2_IM-0005-1001")
        ],
        patients={files[image]: uid for image, uid in names.items()},
        ages={files[image]: AGES[uid] for image, uid in names.items()},
        days={files[image]: DAYS[uid] for image, uid in names.items()},
    )


BUILDERS = {"Openi_Dataset": build}
