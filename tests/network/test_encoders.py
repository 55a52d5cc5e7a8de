"""The published files of encoders and zero-shot networks: their tensors fit, their terms are said.

Opt-in: `pytest -m network`. What only the real files can tell: that their tensors have the names
that the maps know, and that what this package knows of their preprocessing is what their
configuration says (another one warns, which fails here). MedSigLIP needs a login on the Hub
(`HF_TOKEN`) by somebody who accepted its terms.
"""

from __future__ import annotations

import pytest
import torch

from torchxrayvision.errors import (
    DownloadError,
    LicenseWarning,
    OfflineError,
    UnpinnedDownloadWarning,
)
from torchxrayvision.models import Encoder, Encoder_Weights, ZeroShot, ZeroShot_Weights

pytestmark = [
    pytest.mark.network,
    pytest.mark.filterwarnings(
        f"ignore::{UnpinnedDownloadWarning.__module__}.{UnpinnedDownloadWarning.__name__}"
    ),
    pytest.mark.filterwarnings(f"ignore::{LicenseWarning.__module__}.{LicenseWarning.__name__}"),
]


def or_skip(call):
    try:
        return call()
    except OfflineError as error:
        pytest.skip(f"the network is closed: {error}")


def images(side):
    return torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0)) * 2048 - 1024


@pytest.mark.parametrize("member", Encoder_Weights, ids=str)
def test_an_encoder_loads_strictly(member):
    model = or_skip(lambda: Encoder(weights=member))
    with torch.inference_mode():
        features = model.embed(images(model.input_resolution))
    assert torch.isfinite(features).all()
    assert features.std() > 0


@pytest.mark.parametrize("member", ZeroShot_Weights, ids=str)
def test_a_zero_shot_network_loads_strictly_and_reads_texts(member):
    try:
        model = or_skip(lambda: ZeroShot(member, ["Effusion", "No Finding"]))
    except DownloadError as error:
        if "medsiglip" not in member.value.name:
            raise
        pytest.skip(f"gated: {error}")
    with torch.inference_mode():
        scores = model(images(model.input_resolution))
    assert ((scores > 0) & (scores < 1)).all()
    texts = model.embed_text(["pleural effusion", "no pleural effusion"])
    assert (texts[0] @ texts[1]).item() < 0.9999
