"""Zero-shot networks against the reference classes of transformers, and what their numbers mean."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from support.releases import (
    FINDINGS,
    ZERO_SHOT_RELEASES,
    Released,
    clip_vocabulary,
    grey,
    put,
    siglip_tokenizer,
)
from support.tiny import write_pictures
from torchxrayvision.errors import (
    CheckpointError,
    LicenseWarning,
    PromptError,
    StateMismatchError,
    UnknownNameError,
    XRVWarning,
)
from torchxrayvision.inference import export, predict_to_file
from torchxrayvision.models import (
    DenseNet,
    Ensemble,
    Prompts,
    ZeroShot,
    ZeroShot_Weights,
    known_prompts,
    prompts_of,
    read_prompts,
)
from torchxrayvision.models.text import Tokens
from torchxrayvision.runs import fingerprint

pytest.importorskip("timm", reason="image encoders are timm's: extra zero-shot")
pytest.importorskip("tokenizers", reason="texts become numbers by it: extra zero-shot")
pytest.importorskip("transformers", reason="the reference classes: extra dev")
pytestmark = pytest.mark.filterwarnings(
    f"ignore::{LicenseWarning.__module__}.{LicenseWarning.__name__}"
)


@pytest.fixture(scope="module", params=ZERO_SHOT_RELEASES)
def released(request, tmp_path_factory):
    return Released(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory):
    return Released("xrayclip", tmp_path_factory.mktemp("clip"))


def test_images_and_texts_have_the_vectors_of_the_reference_class(released):
    model, entry = released.model, released.entry
    texts = ["pleural effusion", "no pulmonary edema", "mass"]
    values = grey(entry.input_resolution)
    images, words = released.expected(values, texts)
    assert torch.pdist(images).min() > 1e-3
    assert torch.pdist(words).min() > 1e-3
    with torch.inference_mode():
        found = model.embed(values * 2048 - 1024)
    torch.testing.assert_close(found, images, atol=1e-4, rtol=0)
    torch.testing.assert_close(model.embed_text(texts), words, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO_SHOT_RELEASES)
def test_full_sizes(name, tmp_path):
    released = Released(name, tmp_path, full=True)
    with torch.inference_mode():
        found = released.model.embed(released.values * 2048 - 1024)
    words = released.model.embed_text(released.texts)
    pairs = ((found, released.expected_images), (words, released.expected_texts))
    print([(a - b).abs().max().item() for a, b in pairs])  # noqa: T201 - for `pytest -s`
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_score_is_the_softmax_over_a_text_and_its_negation(released):
    model = released.model
    values = grey(released.entry.input_resolution)
    images, words = released.expected(values, ["pleural effusion", "no pleural effusion"])
    scale = model.logit_scale.exp().item()
    expected = (images @ words.T * scale).softmax(1)[:, 0]
    with torch.inference_mode():
        scores = model(values * 2048 - 1024)
        raw = model(values * 2048 - 1024, output="similarity")
    torch.testing.assert_close(scores[:, 0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(raw[:, 0], images @ (words[0] - words[1]), atol=1e-4, rtol=0)
    assert model.predict(values * 2048 - 1024).kind == "zero-shot"


def test_a_learned_scale_is_taken(released):
    expected = released.reference.logit_scale.detach().reshape(())
    torch.testing.assert_close(released.model.logit_scale.detach(), expected)


def test_against_other_findings_shares_add_to_one_and_normal_is_missed(clip_model):
    model = ZeroShot(
        clip_model.entry, FINDINGS, contrast="findings",
        cache_dir=str(clip_model.folder / "cache"),
    )  # fmt: skip
    values = grey(512) * 2048 - 1024
    with torch.inference_mode():
        whole = model(values)
    torch.testing.assert_close(whole.sum(1), torch.ones(2))
    with pytest.warns(XRVWarning, match="No Finding") as caught:
        model.set_findings(FINDINGS[:2])
    assert len(caught) == 1
    with torch.inference_mode():
        shifted = model(values)
    assert (shifted > whole[:, :2]).all()


def test_several_texts_of_a_finding_are_averaged(clip_model):
    model = clip_model.model
    own = {"Edema": Prompts(("edema", "pulmonary edema"), ("no edema",))}
    other = ZeroShot(
        clip_model.entry, ["edema"], prompts=own, cache_dir=str(clip_model.folder / "cache")
    )
    vectors = model.embed_text(["edema", "pulmonary edema"]).mean(0)
    torch.testing.assert_close(other.positive[0], vectors / vectors.norm())
    assert other.prompts["edema"] == own["Edema"]
    assert fingerprint(other) != fingerprint(model)


def test_without_findings_there_is_no_column(clip_model):
    model = ZeroShot(clip_model.entry, cache_dir=str(clip_model.folder / "cache"))
    with torch.inference_mode():
        assert model(grey(512, 1) * 2048 - 1024).shape == (1, 0)
    assert model.trained == ()


def test_missing_and_unexpected_tensors_are_named(clip_model, tmp_path):
    from safetensors.torch import load_file

    tensors = load_file(clip_model.folder / "cache" / clip_model.entry.file.filename)
    del tensors["text_model.encoder.layers.0.self_attn.q_proj.weight"]
    del tensors["visual_projection.weight"]
    tensors["vision_model.stranger"] = torch.zeros(2)
    entry = put("xrayclip", tensors, tmp_path)
    with pytest.raises(StateMismatchError) as caught:
        ZeroShot(entry, cache_dir=str(tmp_path))
    assert set(caught.value.missing) == {
        "text.blocks.0.attn.qkv.weight", "image_projection.weight",
    }  # fmt: skip
    assert "body.stranger" in caught.value.unexpected


def test_prompts_are_data():
    assert prompts_of("pleural_effusion").positive == ("pleural_effusion",)
    assert prompts_of("EFFUSION") == Prompts(("pleural effusion",), ("no pleural effusion",))
    assert prompts_of("Pleural thickening") == prompts_of("Pleural_Thickening")
    assert len(prompts_of("No Finding").positive) == len(prompts_of("No Finding").negative) == 2
    from torchxrayvision.labels import DEFAULT_PATHOLOGIES

    known = known_prompts()
    assert set(DEFAULT_PATHOLOGIES) <= set(known)
    assert all(texts.positive and texts.negative for texts in known.values())


@pytest.mark.parametrize(
    "said",
    [
        "[]",
        "{}",
        "{",
        '{"Mass": ["mass"]}',
        '{"Mass": {"positive": []}}',
        '{"Mass": {"positive": [3]}}',
        '{"Mass": {"positive": ["mass"], "code": "x"}}',
        json.dumps({"Mass": {"positive": ["x" * 2000]}}),
    ],
)
def test_prompts_that_are_none_are_refused(said, tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(said, "utf-8")
    with pytest.raises(PromptError):
        read_prompts(path)


def test_findings_are_checked(clip_model):
    model = clip_model.model
    with pytest.raises(PromptError, match="at least one"):
        model.set_findings([])
    with pytest.raises(UnknownNameError, match="twice"):
        model.set_findings(["Mass", "Mass"])
    with pytest.raises(PromptError, match="letters"):
        model.set_findings([" "])
    with pytest.raises(PromptError, match="negative"):
        model.set_findings(["Cavity"], {"Cavity": Prompts(("mass",))})
    with pytest.raises(UnknownNameError, match="contrast"):
        model.set_findings(["Mass"], contrast="others")
    assert model.targets == FINDINGS


def test_the_tokeniser_must_be_that_of_the_release(clip_model, tmp_path):
    tensors = clip_model.reference.state_dict()
    entry = put("xrayclip", tensors, tmp_path)
    with pytest.raises(CheckpointError, match=r"vocab\.json"):
        ZeroShot(entry, ["Mass"], cache_dir=str(tmp_path))
    entry = put("xrayclip", tensors, tmp_path, tokenizer=siglip_tokenizer())
    with pytest.raises(CheckpointError, match="another one"):
        ZeroShot(entry, ["Mass"], cache_dir=str(tmp_path))


def test_clip_s_tokeniser_cuts_words_as_that_of_transformers(clip_model):
    from transformers import CLIPTokenizer

    cache = clip_model.folder / "cache"
    vocabulary, merges = clip_vocabulary()
    (cache / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (cache / "merges.txt").write_text(merges, "utf-8")
    theirs = CLIPTokenizer(str(cache / "vocab.json"), str(cache / "merges.txt"))
    texts = ["Pleural  effusion", "no lung mass"]
    ids, known = Tokens(clip_model.model.text.shape, clip_model.model._beside)(texts)
    for text, row, mask in zip(texts, ids, known, strict=True):
        assert row[mask].tolist() == theirs(text)["input_ids"]


def test_long_texts_are_cut_to_what_the_network_takes(released):
    model = released.model
    ids, known = Tokens(model.text.shape, model._beside)(["mass " * 400, "mass"])
    assert ids.shape[1] <= min(model.text.shape.positions, 256)
    assert known[0].all()
    assert ids[0, -1] == ids[1][known[1]][-1]  # the mark at the end is kept
    assert torch.isfinite(model.embed_text(["mass " * 400])).all()


def test_scores_are_never_calls(clip_model, tmp_path):
    """Neither results nor an ensemble take a score for a probability."""
    from torchxrayvision.results.reader import _present

    assert _present(0.99, "zero-shot", 0.5) is None
    with pytest.raises(UnknownNameError):
        clip_model.model.convert(torch.zeros(1, 3), "probability")
    with pytest.raises(ValueError, match="no probabilities"):
        Ensemble([DenseNet(), clip_model.model])
    assert clip_model.model.op_threshs is None
    with pytest.raises(UnknownNameError):
        clip_model.model.set_operating_points([0.5, 0.5, 0.5])


@pytest.fixture(scope="module")
def table(clip_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    write_pictures(folder / "films")
    out = folder / "scores.csv"
    predict_to_file(str(folder / "films"), clip_model.model, out, engine="torch", batch_size=2)
    return out


def test_a_table_says_what_its_numbers_are(table, clip_model):
    from torchxrayvision.provenance import read

    found = pd.read_csv(table)
    assert list(found)[2:5] == FINDINGS
    assert found[FINDINGS].to_numpy().min() > 0
    made = read(table)
    assert made["output"] == "zero-shot"
    assert made["options"]["prompts"]["Effusion"]["positive"] == ["pleural effusion"]


def test_onnx_gives_the_same(clip_model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = clip_model.model
    made = export(model, "onnx", tmp_path / "clip.onnx")
    session = onnxruntime.InferenceSession(made.path)
    x = grey(512, 3) * 2048 - 1024
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"image": x.numpy()}), strict=True))
    with torch.inference_mode():
        np.testing.assert_allclose(found["outputs"], model(x), atol=1e-4)
    assert made.metadata["outputs"]["outputs"] == "zero-shot"


def test_a_map_of_patches_is_a_hint(clip_model):
    model = clip_model.model
    with torch.inference_mode():
        found = model.similarity_map(grey(512, 1) * 2048 - 1024, "Effusion")
    assert found.shape == (1, 32, 32)
    assert found.std() > 0
    with pytest.raises(UnknownNameError):
        model.similarity_map(grey(512, 1), "Mass")


def test_what_nobody_published_is_left_empty():
    entries = [member.value for member in ZeroShot_Weights]
    assert tuple(entry.name for entry in entries) == ZERO_SHOT_RELEASES
    assert all(entry.file.sha256 is None and not entry.targets for entry in entries)
    assert {entry.output for entry in entries} == {"similarity"}


def test_other_weights_do_not_fit():
    with pytest.raises(UnknownNameError, match="zero-shot weights"):
        ZeroShot("rad-dino")
    with pytest.raises(UnknownNameError):
        ZeroShot(architecture="clip-large14")
    with pytest.raises(UnknownNameError):
        ZeroShot(architecture="clip-base16", contrast="nothing")
