import pytest

from support.dicom_results import CASES, write
from torchxrayvision.models import get_model
from torchxrayvision.results import KINDS, Reader, make_objects, save_objects
from torchxrayvision.segmentation import get_segmenter


@pytest.fixture(scope="session")
def reader():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what demonstration weights are
        return Reader(classifier=get_model("demo"), segmenter=get_segmenter("demo-anatomy"))


@pytest.fixture(scope="module")
def made(reader, tmp_path_factory):
    """Case to source file, reading, and the files of its objects by kind."""
    folder = tmp_path_factory.mktemp("results")
    found = {}
    for case in CASES:
        path = write(folder, case)
        reading = reader.read(path)
        out = folder / case
        out.mkdir()
        names = save_objects(make_objects(reading, KINDS, key_threshold=0.0), out)
        found[case] = path, reading, {kind: [out / n for n in ns] for kind, ns in names.items()}
    return found
