"""The shape of the source: who may import whom, how many files one call runs through.

A package of `src` uses another one only through the names that its `__init__` exports. Tests
follow the same rule, apart from the unit tests of a package (`tests/unit/NAME/` or
`tests/unit/test_NAME.py`), which may look into its modules, and `torchxrayvision.cli`, the door
of the command line. Any other exception stands in a list here with its reason.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import torchxrayvision as xrv
from support.files_entered import files_entered
from support.image_files import dicom, jpeg, png, ramp
from support.imports import Import, Imports, circles

TESTS = Path(__file__).parents[1]
SOURCE = Imports(Path(xrv.__file__).parent)

# Imports across packages that are left from before the rule, each with who removes it. The list
# is exact: an entry that is no longer true fails too.
CROSSINGS = {}

# Import circles that are left, each with its reason. Exact, and to become empty.
CIRCLES: set[tuple[str, ...]] = set()

# Tests outside of a package's own that look into it.
LOOKS_INSIDE = {
    ("contract/test_baseline_models.py", "baseline_models.riken.net"): "the layers of a network",
    ("contract/test_baseline_models.py", "models.base"): "asks every member",
    ("contract/test_baseline_models.py", "models.densenet"): "asks every member",
    ("contract/test_datasets.py", "datasets.images"): "asks every member",
    ("contract/test_datasets.py", "datasets.release"): "asks every member",
    ("contract/test_dense_models.py", "baseline_models.ieee8023.net"): "the layers of a network",
    ("contract/test_dense_models.py", "inference.engines.conversion"): "counts operations",
    ("contract/test_dense_models.py", "models.base"): "asks every member",
    ("contract/test_docs.py", "weights.registry"): "reads every entry",
    ("contract/test_models.py", "models.base"): "asks every member",
    ("e2e/test_damaged_archive.py", "inputs.load"): "counts what is read",
    ("e2e/test_zero_shot_command.py", "weights.registry"): "a release of made tensors",
    ("support/file_server.py", "remote.fetching"): "shortens waits",
    ("support/service_runs.py", "service.gate"): "a worker without networks",
    ("support/service_runs.py", "service.work"): "a worker without networks",
    ("support/service_runs.py", "service.worker"): "a worker without networks",
    ("support/tiny.py", "datasets.findings"): "builds a dataset from parts",
    ("support/tiny.py", "datasets.images"): "builds a dataset from parts",
    ("support/tiny.py", "datasets.spec"): "builds a dataset from parts",
    ("support/training_runs.py", "training.module"): "ends a run between two of its steps",
    ("unit/baseline_models/test_age_names.py", "checkpoints.read"): "writes an old file",
    ("unit/baseline_models/test_age_names.py", "models.base"): "compares with the base",
    ("unit/baseline_models/test_anatomy.py", "checkpoints.read"): "writes an old file",
    ("unit/baseline_models/test_ensemble.py", "models.densenet"): "builds a small network",
    ("unit/baseline_models/test_golden.py", "models.base"): "compares with the base",
    ("unit/explain/test_layers.py", "baseline_models.riken.net"): "the layers of a network",
    ("unit/images/test_geometry.py", "transforms.placement"): "follows corners through both",
    ("unit/inference/test_engines.py", "inputs.load"): "a decoder that hangs",
    ("unit/inference/test_engines.py", "inputs.readers"): "shortens waits",
    ("unit/inference/test_fast_reading.py", "inputs.load"): "counts what is read",
    ("unit/inputs/test_readers.py", "inference.prediction"): "reads to compare engines",
    ("unit/models/test_zero_shot.py", "results.reader"): "whether a score is called present",
    ("unit/segmentation/test_segment.py", "screening.pose"): "plants how a film lies",
    ("unit/models/test_file_arguments.py", "checkpoints.read"): "writes a hostile file",
    ("unit/models/test_from_pretrained.py", "baseline_models.ieee8023.net"): "a small network",
    ("unit/models/test_file_arguments.py", "training.network"): "both readers of one file",
    ("unit/models/test_saved.py", "checkpoints.read"): "reads what was written",
    ("unit/tools/test_build_demo_weights.py", "training.images.prepared"): "counts what is read",
    ("unit/training/test_cache.py", "datasets.images"): "counts what is read",
}


def short(module):
    return module.removeprefix(f"{SOURCE.top}.")


def crossing(found: Import) -> str | None:
    """The module of another package that an import looks into; None if it uses what is exported."""
    module = f"{found.target}.{found.name}"
    target = module if module in SOURCE.files else found.target
    if SOURCE.area(target) == SOURCE.area(found.module):
        return None
    parts = target.split(".")
    for depth in range(2, len(parts)):  # each step down is a name that the package above exports
        if parts[depth] not in SOURCE.exports(".".join(parts[:depth])):
            return target
    if target != module and SOURCE.is_package(target) and found.name:
        exported = found.name in SOURCE.exports(target)
        plain = not found.name.startswith("_") or found.name == "__version__"
        return None if exported and plain else module
    return None if not found.name.startswith("_") else module


def test_packages_import_only_what_others_export():
    found = {(short(i.module), short(c)) for i in SOURCE.all() if (c := crossing(i))}
    assert found == set(CROSSINGS)


def test_the_rule_sees_a_module_and_a_private_name_of_another_package():
    def seen(target, name):
        return crossing(Import(f"{SOURCE.top}.explain.cam", f"{SOURCE.top}{target}", name, 1))

    assert seen(".images.png", "read")
    assert seen(".images", "png")
    assert seen(".images", "_anything")
    assert seen(".images", "not_there")
    assert seen(".datasets.releases.nih", "NIH_Dataset")
    assert not seen(".images", "read_image")
    assert not seen(".explain.layers", "_anything")
    assert not seen(".baseline_models.riken", "AgeModel")
    assert not seen(".errors", "DatasetError")


def imports_of_tests():
    for path in sorted(TESTS.rglob("*.py")):
        folder, *rest = path.relative_to(TESTS).parts
        own = rest[0].removeprefix("test_").removesuffix(".py") if folder == "unit" else ""
        for found in SOURCE.of(path, f"{SOURCE.top}.{own}.tests"):
            yield path.relative_to(TESTS).as_posix(), found


def test_tests_look_only_into_the_package_that_they_test():
    found = {(p, short(c)) for p, i in imports_of_tests() if (c := crossing(i))}
    found = {(path, module) for path, module in found if module.split(".")[0] != "cli"}
    assert found == set(LOOKS_INSIDE)


def test_no_import_circle_even_through_imports_inside_functions():
    found = {tuple(short(m) for m in group) for group in circles(SOURCE.graph())}
    assert found == CIRCLES


def test_circles_are_seen_through_functions_and_lazy_packages(tmp_path):
    package = tmp_path / "house"
    (package / "room").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "room/__init__.py": "",
        "room/__init__.pyi": "from .door import open as open\nfrom .wall import paint as paint",
        "room/door.py": "import typing\nif typing.TYPE_CHECKING:\n    import house.roof",
        "room/wall.py": "def paint():\n    from house.room import open\n    import house.roof",
        "roof.py": "from house.room import open",
    }
    for name, text in files.items():
        (package / name).write_text(text)
    assert circles(Imports(package).graph()) == []
    (package / "roof.py").write_text("def rain():\n    from house.room import paint")
    assert circles(Imports(package).graph()) == [["house.roof", "house.room.wall"]]


# ---- words ------------------------------------------------------------------------------------

# What names do not say, and what they say instead; besides the words in code type in the last
# column of the glossary of CONTRIBUTING.md, which docstrings and help do not say either.
WORDS = {
    "groups": "patient_ids",
    "ending": "extension",
    "lots": "draws",
    "judged": "eval",
}
# Names and text in which such a word means something else.
MEANT = {
    ("training/images/prepared.py", "groups"): "the former name of patient_ids, which warns",
    ("demo/walkthrough.py", "films"): "the name of a folder",
    ("results/groups.py", "groups"): "measurement groups of a report",
    ("results/groups.py", "encoded_groups"): "measurement groups of a report",
    ("phantom/detector.py", "film"): "the material that is blackened",
    ("phantom/site.py", "film"): "the material that is blackened",
    ("phantom/tubes.py", "film"): "the material that is blackened",
}


def glossary_words():
    text = (TESTS.parent / "CONTRIBUTING.md").read_text("utf-8")
    table = re.search(r"^\| term \| meaning \| not \|\n\|[-:| ]+\n((?:\|.*\n)+)", text, re.M)
    rows = [line.strip("| ").split("|") for line in table[1].splitlines()]
    return {word.lower() for row in rows for word in re.findall(r"`(\w+)`", row[-1])}


def public_names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name
            if isinstance(node, ast.ClassDef):
                starts = [n for n in node.body if getattr(n, "name", "") == "__init__"]
            else:
                starts = [node]
            for function in starts:
                arguments = function.args
                yield from (a.arg for a in [*arguments.args, *arguments.kwonlyargs])


def prose(tree):
    """Docstrings, and the help texts of commands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""
        elif isinstance(node, ast.keyword) and node.arg == "help":
            texts = (n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant))
            yield from (text for text in texts if isinstance(text, str))


def forbidden_in(texts_of, words):
    """Each place of the sources in which one of the words stands, with the text and the word."""
    for path in SOURCE.files.values():
        place = path.relative_to(SOURCE.root).as_posix()
        for text in texts_of(ast.parse(path.read_text("utf-8"))):
            for word in words & set(re.split(r"[\W_]+", text.lower())):
                yield place, text, word


def test_the_glossary_names_words():
    assert {"film", "films", "cutoff"} <= glossary_words()


def test_public_names_use_the_words_of_the_glossary():
    said = forbidden_in(public_names, glossary_words() | set(WORDS))
    found = {(place, name) for place, name, _ in said}
    found -= set(MEANT)
    assert not found, f"use other words: {sorted(found)}"


def test_docstrings_and_help_use_the_words_of_the_glossary():
    found = {(place, word) for place, _, word in forbidden_in(prose, glossary_words())}
    found -= set(MEANT)
    assert not found, f"use other words: {sorted(found)}"


def test_the_rule_of_words_sees_docstrings_and_help():
    tree = ast.parse('def f(x: A[int, Option(help="Some " "films.")]):\n    """A film."""\n')
    assert set(prose(tree)) == {"", "A film.", "Some films."}


# ---- files to open ------------------------------------------------------------------------------

IMAGE = ramp(64, 64, 255).astype(np.uint8)
DICOM = dicom(ramp(64, 64, 4095).astype(np.uint16), stored=12)


def read(kind):
    def scenario(folder):
        data = {"png": png(IMAGE, 8, 0), "jpeg": jpeg(IMAGE), "dicom": DICOM}
        path = folder / f"image.{kind}"
        path.write_bytes(data[kind])
        return lambda: xrv.images.read_image(path)

    return scenario


def dataset(folder):
    (folder / "00000001_000.png").write_bytes(png(IMAGE, 8, 0))
    return lambda: xrv.datasets.NIH_Dataset(folder, views="*", unique_patients=False)[0]


def model(_):
    import torch

    images = torch.full((1, 1, 224, 224), -512.0)
    return lambda: xrv.models.get_model("demo")(images)


def command(*arguments):
    from typer.testing import CliRunner

    from torchxrayvision.cli import app

    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output


def predict(folder):
    images = folder / "images"
    images.mkdir()
    (images / "1.png").write_bytes(png(IMAGE, 8, 0))
    (images / "2.jpg").write_bytes(jpeg(IMAGE))
    (images / "3.dcm").write_bytes(DICOM)
    turn = iter("ab")
    options = ["--weights", "demo", "--workers", "1", "--output"]
    return lambda: command("predict", images, *options, folder / f"{next(turn)}.csv")


def evaluate(folder):
    files = [f"{i}.png" for i in range(40)]
    table = pd.DataFrame({"path": files, "Effusion": np.arange(40) / 40})
    table.to_csv(folder / "predictions.csv", index=False)
    table.assign(Effusion=[i % 2 for i in range(40)]).to_csv(folder / "labels.csv", index=False)
    tables = (folder / "predictions.csv", folder / "labels.csv")
    return lambda: command("evaluate", *tables, "--replicates", 100)


# Calls that still run through more files than they may: strict, so the mark goes with the cure.
ABOVE = {}


def ceilings():
    scenarios = [("png", 5, read("png")), ("jpeg", 5, read("jpeg")), ("dicom", 8, read("dicom"))]
    scenarios += [("dataset", 15, dataset), ("model", 14, model), ("predict", 40, predict)]
    for name, ceiling, scenario in [*scenarios, ("evaluate", 9, evaluate)]:
        marks = [pytest.mark.xfail(reason=ABOVE[name], strict=True)] if name in ABOVE else []
        yield pytest.param(ceiling, scenario, id=name, marks=marks)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("ceiling", "scenario"), list(ceilings()))
def test_one_call_runs_through_few_files(ceiling, scenario, tmp_path):
    names = files_entered(scenario(tmp_path))
    assert len(names) <= ceiling, f"{len(names)} files: {', '.join(names)}"
    assert len(names) > 2, "the call was seen"
