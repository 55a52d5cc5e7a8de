"""How far an image lies from a reference collection, as networks see it.

Two scores are taken. The embedding distance is the Mahalanobis distance of a network's features
from those of the reference; their signed square roots are taken first, and the covariance is
shrunk as Ledoit and Wolf do. The reconstruction error is the share of an image's variance that an
autoencoder, trained on such images, does not draw again. Both are large for what the reference
does not hold; neither says what it is. The limits are those that all but a given share of the
reference images stay below; for the distance by parts of it that had no part in mean and
covariance.

Source:
    Lee et al. A simple unified framework for detecting out-of-distribution samples and adversarial
    attacks. NeurIPS 2018. https://arxiv.org/abs/1807.03888
    Ledoit and Wolf. A well-conditioned estimator for large-dimensional covariance matrices.
    Journal of Multivariate Analysis 2004. https://doi.org/10.1016/S0047-259X(03)00096-4
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import CheckpointError, EmptyDatasetError
from torchxrayvision.inputs import Readers, crop_and_resize, expand

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from torchxrayvision.autoencoders import Autoencoder
    from torchxrayvision.inputs import InputFile, Paths, Read, ReadOptions
    from torchxrayvision.models import XRayModel

    Floats = NDArray[np.float64]

SHARE: Final = 0.005
"""Share of the reference images that may lie beyond a limit."""

_KEY: Final = "torchxrayvision.reference"
_LIMITS: Final = ("distance", "error")
_FOLDS: Final = 5
_FEWEST: Final = 20
_BATCH: Final = 32
_SIDE: Final = 224  # for a network that takes any size
_MARGIN: Final = 0.05  # added to the largest value where there are too few images for a quantile
_FLAT: Final = 1.0  # of 2048 grey values: less deviation than this is none
_MEAN, _DEVIATION = -50.0, 500.0  # of the grey values of a usual radiograph


@dataclass(frozen=True, slots=True)
class Score:
    """How far one image lies from the reference.

    Args:
        distance: Of its features; about 1 for an image of the reference.
        error: Share of its variance that is not drawn again; NaN without an autoencoder.
    """

    distance: float
    error: float = math.nan


@dataclass(frozen=True, eq=False)
class Reference:
    """Two networks, and what images of a collection look like to them.

    Use `fit_reference` or `load_reference`.

    Args:
        network: Any network with `embed`, whose features are compared.
        autoencoder: Draws images again; None for the distance alone.
        mean: Of the features, (D,).
        root: With which differences from it become uncorrelated, (D, D).
        limits: `"distance"` and `"error"` that are too large; infinite where there is none.
        facts: What the reference was made of, for people.
    """

    network: XRayModel
    autoencoder: Autoencoder | None
    mean: Floats
    root: Floats
    limits: Mapping[str, float]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def side(self) -> int:
        """Side in pixels of the images that it takes."""
        return side_of(self.network, self.autoencoder)

    @property
    def digest(self) -> str:
        """SHA-256 over what makes the scores and the limits."""
        from torchxrayvision.runs import fingerprint

        digest = hashlib.sha256(fingerprint(self.network).encode())
        drawn = {} if self.autoencoder is None else self.autoencoder.state_dict()
        for name, value in drawn.items():
            digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
            digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
        digest.update(json.dumps(dict(self.limits), sort_keys=True).encode())
        for values in (self.mean, self.root):
            digest.update(np.ascontiguousarray(values, "<f4").tobytes())
        return digest.hexdigest()

    def scores(self, squares: NDArray[np.float32]) -> list[Score]:
        """How far images lie from the reference.

        Args:
            squares: (N, 1, S, S) in [-1024, 1024], S as `side`.

        Returns:
            One per image.
        """
        features, errors = _seen(self.network, self.autoencoder, squares)
        distances = _distances(features, self.mean, self.root)
        return [Score(*pair) for pair in zip(distances.tolist(), errors.tolist(), strict=True)]

    def reasons(self, score: Score) -> list[str]:
        """Why an image is taken to be of another kind; empty where it is not.

        Args:
            score: Of the image.

        Returns:
            One clause per limit that it exceeds.
        """
        said = []
        for name, value, words in (
            (
                "distance",
                score.distance,
                "its features lie {:.2f} from the reference, limit {:.2f}",
            ),
            ("error", score.error, "{:.0%} of it cannot be drawn again, limit {:.0%}"),
        ):
            limit = self.limits.get(name, math.inf)
            if value > limit:
                said.append(words.format(value, limit))
        return said

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the reference: tensors of autoencoders, names of published weights.

        Args:
            path: By convention it ends in `.safetensors`. Replaced if it exists.

        Raises:
            CheckpointError: If a network is neither an autoencoder nor one of published weights.
        """
        import torch

        from torchxrayvision.checkpoints import described_header, save_safetensors

        tensors = {
            "reference.mean": torch.from_numpy(np.asarray(self.mean, np.float32)),
            "reference.root": torch.from_numpy(np.asarray(self.root, np.float32)),
        }
        stated: dict[str, Any] = {}
        for part, network in (("network", self.network), ("autoencoder", self.autoencoder)):
            if network is not None:
                stated[part], own = _stated_network(network, str(path))
                tensors |= {f"{part}.{name}": value for name, value in own.items()}
        finite = {name: value for name, value in self.limits.items() if math.isfinite(value)}
        header = {**stated, "limits": finite, "facts": dict(self.facts)}
        save_safetensors(Path(path), tensors, described_header(_KEY, header))


def side_of(network: XRayModel, autoencoder: Autoencoder | None) -> int:
    """Side in pixels of images that both networks can make theirs of.

    Args:
        network: Whose features are compared.
        autoencoder: Draws images again; None for none.
    """
    networks = [one for one in (network, autoencoder) if one is not None]
    return max(int(getattr(one, "input_resolution", _SIDE)) for one in networks)


def fit_reference(
    paths: Paths,
    network: XRayModel | None = None,
    autoencoder: Autoencoder | None = None,
    *,
    share: float = SHARE,
    reading: ReadOptions | None = None,
) -> Reference:
    """What the images of a collection look like, so that others can be told from them.

    Every image that can be read counts: leave out what the collection should not hold.

    Args:
        paths: A file or folder, or several; see `torchxrayvision.inputs.expand`.
        network: Any network with `embed`; None for that of the package's reference.
        autoencoder: None for that of the package's reference, unless there is a network.
        share: Share of the images that may lie beyond each limit. With fewer images than one in
            this share, the limit is the largest value of any, and five percent.
        reading: How files are read.

    Returns:
        The reference.

    Raises:
        EmptyDatasetError: If fewer than 20 images can be read.
    """
    if network is None:
        packaged = load_reference()
        network, autoencoder = packaged.network, autoencoder or packaged.autoencoder
    side = side_of(network, autoencoder)

    def one(file: InputFile, read: Read) -> NDArray[np.float32]:
        return crop_and_resize(file, read(file), side)

    squares, failed = [], 0
    with Readers(one, reading) as readers:
        for _, made in readers.map(expand(paths)):
            failed += isinstance(made, str)
            if not isinstance(made, str):
                squares.append(made)
    facts = {"images": len(squares), "unreadable": failed, "share": share}
    return reference_of(squares, network, autoencoder, share=share, facts=facts)


def reference_of(
    squares: Sequence[NDArray[np.float32]],
    network: XRayModel,
    autoencoder: Autoencoder | None = None,
    *,
    share: float = SHARE,
    facts: Mapping[str, Any] | None = None,
) -> Reference:
    """As `fit_reference`, of images that are squares already.

    Args:
        squares: Each (1, S, S) in [-1024, 1024].
        network: Any network with `embed`.
        autoencoder: Draws images again; None for the distance alone.
        share: See `fit_reference`.
        facts: See `Reference`.

    Returns:
        The reference.

    Raises:
        EmptyDatasetError: If there are fewer than 20.
    """
    if len(squares) < _FEWEST:
        msg = f"a reference needs {_FEWEST} images or more that can be read, got {len(squares)}"
        raise EmptyDatasetError(msg)
    features, errors = _seen(network, autoencoder, squares)
    fold = np.arange(len(features)) % _FOLDS
    held_out = np.empty(len(features))
    for part in range(_FOLDS):
        inside = fold == part
        held_out[inside] = _distances(features[inside], *_gaussian(features[~inside]))
    limits = {"distance": _limit(held_out, share), "error": _limit(errors, share)}
    return Reference(network, autoencoder, *_gaussian(features), limits, dict(facts or {}))


def _limit(values: Floats, share: float) -> float:
    """What all but a share of further images stay below; infinite where nothing was measured."""
    if np.isnan(values).any():
        return math.inf
    ordered = np.sort(values)
    rank = math.ceil((len(ordered) + 1) * (1 - share))
    return float(ordered[rank - 1] if rank <= len(ordered) else ordered[-1] * (1 + _MARGIN))


def _gaussian(features: Floats) -> tuple[Floats, Floats]:
    """Mean and whitening root of features (N, D), the covariance shrunk towards a sphere."""
    mean = features.mean(axis=0)
    away = features - mean
    count, width = away.shape
    covariance = away.T @ away / count
    scale = np.trace(covariance) / width
    # How far the covariance is from the sphere, and how much of that is chance.
    off = float(((covariance - scale * np.eye(width)) ** 2).sum())
    norms = (away**2).sum(axis=1)
    chance = float((norms**2).sum() / count - (covariance**2).sum()) / count
    shrunk = min(1.0, max(chance / off, 1e-3)) if off > 0 else 1.0
    covariance = (1 - shrunk) * covariance + (shrunk * scale + 1e-12) * np.eye(width)
    values, vectors = np.linalg.eigh(covariance)
    return mean, vectors / np.sqrt(values)


def _distances(features: Floats, mean: Floats, root: Floats) -> Floats:
    """Mahalanobis distance per feature, (N,): about 1 for what the mean and root were fitted on."""
    away = (np.asarray(features, np.float64) - mean) @ root
    distances: Floats = np.sqrt((away**2).mean(axis=1))
    return distances


def _seen(
    network: XRayModel,
    autoencoder: Autoencoder | None,
    squares: Sequence[NDArray[np.float32]] | NDArray[np.float32],
) -> tuple[Floats, Floats]:
    """Features (N, D) and reconstruction errors (N,), NaN without an autoencoder."""
    import torch

    from torchxrayvision.models import temporarily_eval

    features, errors = [], []
    with torch.inference_mode(), temporarily_eval(network):
        for start in range(0, len(squares), _BATCH):
            batch = torch.from_numpy(np.stack(list(squares[start : start + _BATCH]))).float()
            found = network.embed(batch.to(next(network.parameters()).device)).double().cpu()
            features.append((found.sign() * found.abs().sqrt()).numpy())
            if autoencoder is None:
                errors.append(np.full(len(batch), np.nan))
            else:
                errors.append(unexplained(autoencoder, batch))
    return np.concatenate(features), np.concatenate(errors)


def unexplained(autoencoder: Autoencoder, images: torch.Tensor) -> Floats:
    """Share of the variance of images that an autoencoder does not draw again.

    Mean and deviation of each image are made those of a usual radiograph first, since exposure is
    no reason to be of another kind.

    Args:
        autoencoder: In evaluation mode.
        images: (N, 1, S, S) in [-1024, 1024].

    Returns:
        float64 (N,); large for an image without any difference of grey.
    """
    from torchxrayvision.models import resize

    device = next(autoencoder.parameters()).device
    small = resize(images.to(device), autoencoder.input_resolution)
    mean = small.mean((1, 2, 3), keepdim=True)
    spread = small.std((1, 2, 3), keepdim=True, correction=0).clamp(min=_FLAT)
    usual = ((small - mean) * (_DEVIATION / spread) + _MEAN).clamp(-1024, 1024)
    away = autoencoder(usual)["out"] - usual
    shares = away.square().mean((1, 2, 3)) / usual.var((1, 2, 3), correction=0).clamp(min=_FLAT)
    return np.asarray(shares.double().cpu().numpy(), np.float64)


def _stated_network(network: XRayModel, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file says of a network, and the tensors that it holds of it."""
    from torchxrayvision.autoencoders import Autoencoder
    from torchxrayvision.weights import list_weights

    if isinstance(network, Autoencoder):
        stated = {
            "architecture": network.architecture,
            "arguments": network.arguments,
            "input_resolution": network.input_resolution,
        }
        return stated, dict(network.state_dict())
    if network.weights in {entry.name for entry in list_weights()}:
        from torchxrayvision.runs import fingerprint

        return {"weights": network.weights, "sha256": fingerprint(network)}, {}
    msg = f"{path}: the network of the reference is a {type(network).__name__}, whose tensors the"
    raise CheckpointError(f"{msg} file would not hold; take an autoencoder or published weights")


@lru_cache(maxsize=4)
def load_reference(path: str | os.PathLike[str] | None = None) -> Reference:
    """Read what `Reference.save` wrote; nothing in the file is executed.

    Args:
        path: The file; None for the reference of the package: frontal radiographs of the NIH
            Clinical Center, seen by the demonstration network and by an autoencoder that was
            trained on simulated ones.

    Returns:
        The reference.

    Raises:
        CheckpointError: If the file is no reference, or its network is another now.
    """
    if path is not None:
        return _load(Path(path))
    inside = resources.files("torchxrayvision.screening").joinpath("data/reference.safetensors")
    with resources.as_file(inside) as place:
        return _load(place)


def _load(path: Path) -> Reference:
    from torchxrayvision.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(path)
    try:
        header = json.loads(checkpoint.values[_KEY])
        limits = {name: float(header["limits"].get(name, math.inf)) for name in _LIMITS}
        facts = dict(header["facts"])
        mean, root = (
            checkpoint.tensors[f"reference.{name}"].double().numpy() for name in ("mean", "root")
        )
        if mean.ndim != 1 or root.shape != (len(mean), len(mean)):
            raise ValueError("shapes")
        network, autoencoder = (
            _network_of(header.get(part), part, checkpoint.tensors, str(path))
            for part in ("network", "autoencoder")
        )
    except CheckpointError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        msg = f"{path}: no reference; xrv check --reference FOLDER --write-reference FILE writes"
        raise CheckpointError(f"{msg} one") from error
    if network is None:
        raise CheckpointError(f"{path}: no reference; it names no network")
    return Reference(network, autoencoder, mean, root, limits, facts)


def _network_of(
    stated: Mapping[str, Any] | None, part: str, tensors: Mapping[str, Any], path: str
) -> Any:
    if stated is None:
        return None
    if "weights" in stated:
        return _published(str(stated["weights"]), str(stated["sha256"]), path)
    from torchxrayvision.autoencoders import autoencoder_of_header

    begin = f"{part}."
    own = {k.removeprefix(begin): v for k, v in tensors.items() if k.startswith(begin)}
    floats = {k: v.float() if v.is_floating_point() else v for k, v in own.items()}
    return autoencoder_of_header(stated, floats, path)


def _published(name: str, sha256: str, path: str) -> XRayModel:
    import warnings

    from torchxrayvision.errors import DemonstrationWarning
    from torchxrayvision.models import get_model
    from torchxrayvision.runs import fingerprint

    with warnings.catch_warnings():  # its outputs, of which that warns, are not looked at
        warnings.simplefilter("ignore", DemonstrationWarning)
        network = get_model(name)
    if fingerprint(network) != sha256:
        raise CheckpointError(f"{path}: its network {name} has other tensors now")
    return network
