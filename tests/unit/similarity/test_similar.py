"""The nearest images: exact, by graphs, from an index that survives a stop, by the command."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from torchxrayvision import similarity
from torchxrayvision.cli import app
from torchxrayvision.errors import ImageReadError, OutputError, ResumeError, UnknownNameError
from torchxrayvision.models import get_model
from torchxrayvision.phantom import simulate
from torchxrayvision.runs import Journal
from torchxrayvision.similarity import Encoder, Index, read_index, similar, write_index

pytestmark = pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Eight simulated images in a folder, and one file that is none."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(8):
        image = simulate(number, seed=3, size=160, views=("PA",)).image[0]
        grey = np.round((image + 1024) * (255 / 2048)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"film-{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return folder


@pytest.fixture(scope="module")
def copies(films, tmp_path_factory):
    """The images encoded again, smaller, and windowed."""
    folder = tmp_path_factory.mktemp("copies")
    for number in range(8):
        grey = Image.open(films / f"film-{number}.png")
        grey.save(folder / f"film-{number}.jpg", quality=50)
        grey.resize((100, 100)).save(folder / f"film-{number}-small.png")
        pixels = np.asarray(grey, float)
        low, high = np.percentile(pixels, (8, 90))
        shown = np.clip((pixels - low) / (high - low), 0, 1) ** 1.2
        Image.fromarray(np.round(shown * 255).astype(np.uint8)).save(
            folder / f"film-{number}-window.png"
        )
    return folder


@pytest.fixture(scope="module")
def encoder():
    return Encoder(get_model("demo"))


def invoke(*words):
    return CliRunner().invoke(app, ["similar", *map(str, words)])


# ---- search -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cloud():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Index([str(i) for i in range(500)], vectors)


def test_blocks_give_what_one_product_gives(cloud, monkeypatch):
    queries = cloud.vectors[::7] + 0.1
    whole = queries @ cloud.vectors.T
    expected = np.argsort(-whole, axis=1, kind="stable")[:, :9]
    monkeypatch.setattr("torchxrayvision.similarity.index._ROWS", 60)
    monkeypatch.setattr("torchxrayvision.similarity.index._QUERIES", 10)
    rows, likeness = cloud.nearest(queries, 9)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(likeness, np.take_along_axis(whole, expected, 1), rtol=1e-5)


def test_ties_go_to_the_earlier_row(monkeypatch):
    monkeypatch.setattr("torchxrayvision.similarity.index._ROWS", 3)
    same = Index([str(i) for i in range(10)], np.ones((10, 4), np.float32) / 2)
    assert same.nearest(same.vectors[:1], 4)[0].tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("method", ["usearch", "faiss"])
def test_graphs_find_what_comparing_all_finds(cloud, method):
    pytest.importorskip(method)
    exact, likeness = cloud.nearest(cloud.vectors[:40], 5)
    found, near = cloud.nearest(cloud.vectors[:40], 5, method=method)
    agreed = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(exact, found, strict=True)])
    assert agreed > 0.97
    np.testing.assert_allclose(near[:, 0], likeness[:, 0], atol=1e-3)


def test_fewer_images_than_neighbours(cloud):
    small = Index(cloud.paths[:3], cloud.vectors[:3])
    assert small.nearest(cloud.vectors[:2], 10)[0].shape == (2, 3)
    with pytest.raises(UnknownNameError, match="method of search"):
        small.nearest(cloud.vectors[:2], 1, method="guess")


# ---- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", similarity.FEATURES)
def test_every_copy_is_nearest_to_its_image(films, copies, encoder, features):
    found = similar(str(films), str(copies), Encoder(encoder.network, features), n=1)
    assert len(found) == 24
    for query, path in zip(found["query"], found["path"], strict=True):
        assert query.rpartition("/")[2].split(".")[0].startswith(path.rpartition("/")[2][:-4])


def test_an_image_is_not_its_own_neighbour(films, encoder):
    table = similar(str(films), str(films / "film-2.png"), encoder, n=20)
    assert table["rank"].tolist() == list(range(1, 8))
    assert str(films / "film-2.png") not in set(table["path"])
    assert table["similarity"].is_monotonic_decreasing


def test_vectors_have_length_one_and_say_what_they_depend_on(films, encoder):
    from torchxrayvision.inputs import expand

    made = [v for _, v in encoder.vectors(expand(str(films))) if not isinstance(v, str)]
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-5)
    assert encoder.facts["network"] == encoder.network.weights == "resnet18-res144-demo"
    assert Encoder(None, "appearance").facts["network_sha256"] is None
    with pytest.raises(UnknownNameError, match="kind of features"):
        Encoder(None, "smell")
    with pytest.raises(ValueError, match="needs a network"):
        Encoder(None, "both")


# ---- the index ----------------------------------------------------------------------------------


def test_an_index_gives_what_the_folder_gives(films, copies, encoder, tmp_path):
    done = write_index(str(films), tmp_path / "films.parquet", encoder)
    assert (done.images, done.failed) == (9, 1)
    index = read_index(tmp_path / "films.parquet")
    assert len(index) == 8
    assert list(index.unreadable) == [str(films / "broken.png")]
    direct = similar(str(films), str(copies), encoder)
    pd.testing.assert_frame_equal(similar(index, str(copies), encoder), direct)
    by_file = similar(str(tmp_path / "films.parquet"), str(copies), encoder)
    pd.testing.assert_frame_equal(by_file, direct)


def test_a_stopped_index_resumes_to_the_same_bytes(films, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("torchxrayvision.similarity.index._BATCH", 2)
    write_index(str(films), tmp_path / "whole.parquet", encoder)
    batches, append = [], Journal.append

    def stop(self, batch):
        append(self, batch)
        batches.append(batch)
        if len(batches) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, "append", stop)
        write_index(str(films), tmp_path / "cut.parquet", encoder)
    assert not (tmp_path / "cut.parquet").exists()
    done = write_index(str(films), tmp_path / "cut.parquet", encoder)
    assert done.resumed == 4
    whole, cut = ((tmp_path / f"{name}.parquet").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_an_index_of_another_network_is_refused(films, encoder, tmp_path):
    place = tmp_path / "films.parquet"
    write_index(str(films), place, Encoder(None, "appearance"))
    with pytest.raises(ResumeError, match="the same network"):
        similar(str(place), str(films / "film-0.png"), encoder)
    with pytest.raises(OutputError, match="no index of images"):
        read_index(films / "film-0.png")
    pd.DataFrame({"path": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(OutputError, match="no index of images"):
        read_index(tmp_path / "other.parquet")
    with pytest.raises(OutputError, match=r"ends in \.parquet"):
        write_index(str(films), tmp_path / "films.csv", encoder)
    with pytest.raises(ImageReadError):
        similar(str(films), str(films / "broken.png"), encoder)


# ---- the command --------------------------------------------------------------------------------


def test_the_command_from_folder_and_from_index(films, copies, tmp_path):
    query = copies / "film-5.jpg"
    direct = invoke(films, "--to", query, "-n", "2", "--json")
    assert direct.exit_code == 0, direct.output
    rows = json.loads(direct.stdout)
    assert [row["rank"] for row in rows] == [1, 2]
    assert rows[0]["path"].endswith("film-5.png")
    index = tmp_path / "films.parquet"
    made = invoke(films, "--index", index, "--features", "appearance")
    assert made.exit_code == 0, made.output
    assert "9 images" in made.stderr
    assert "1 of 9 files could not be read" in made.stderr
    found = invoke("--index", index, "--to", query, "--output", tmp_path / "found.csv")
    assert found.exit_code == 0, found.output
    table = pd.read_csv(tmp_path / "found.csv")
    assert table["path"].iloc[0].endswith("film-5.png")
    shown = invoke("--index", index, "--to", query, "-n", "1", "--sheet", tmp_path / "sheet.png")
    assert shown.exit_code == 0, shown.output
    assert "film-5.png" in shown.stdout
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 2 * 224


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name the collection"),
        (["{films}"], "--to"),
        (["--index", "{tmp}/none.parquet", "--to", "a.png"], "there is no index"),
        (["--index", "{tmp}/none.csv", "--to", "a.png"], "ends in .parquet"),
        (["{films}", "--to", "a.png", "--sheet", "{tmp}/a.jpg"], "ends in .png"),
        (["{films}", "--to", "a.png", "--output", "{tmp}/there.csv"], "exists"),
        (["{films}", "--index", "{tmp}/there.parquet"], "exists"),
    ],
)
def test_what_cannot_be_done_is_refused(films, tmp_path, words, said):
    for name in ("there.csv", "there.parquet"):
        (tmp_path / name).write_text("kept")
    done = invoke(*(word.format(films=films, tmp=tmp_path) for word in words))
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    assert (tmp_path / "there.csv").read_text() == "kept"
