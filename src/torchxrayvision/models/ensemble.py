"""Several classifiers, or several views of an image, as one classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.models.base import XRayClassifier
from torchxrayvision.models.factory import get_model
from torchxrayvision.models.scaling import calibrate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torchxrayvision.weights import Weights, WeightsEnum

View = Literal["whole", "mirror", "crops"]
VIEWS: Final[tuple[str, ...]] = get_args(View)
_CROP: Final = 15 / 16  # of the side, so that no crop loses more of a lung than its rim


class Ensemble(XRayClassifier):
    """The mean probability of several classifiers, of several views of an image, or of both.

    A finding is averaged over the members that were trained on it, so that members may have been
    trained on different findings. Probabilities are averaged before any operating point, whose
    scale differs between members; set points of the ensemble's own with `set_operating_points`.

    Args:
        members: Classifiers, or names of weights.
        weights: How much each member counts, positive; equal if None.
        views: What each member sees: `"whole"`, the image; `"mirror"`, its mirror image, which
            puts the heart on the other side; `"crops"`, its middle and its four corners of 15/16
            of the side.
        output: What `forward` gives by default; `"probability"` if None.

    Raises:
        ValueError: If there is no member, no view, not one positive weight per member, or a
            member gives no probabilities.
        UnknownNameError: If weights or a view of that name do not exist.

    Example:
        >>> from torchxrayvision.models import ResNet
        >>> one, other = (ResNet(architecture="resnet18-width8", num_classes=18) for _ in range(2))
        >>> both = Ensemble([one, other], views=("whole", "mirror"))
        >>> both.spread(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 18])

    Source:
        Lakshminarayanan et al. Simple and scalable predictive uncertainty estimation using deep
        ensembles. NeurIPS 2017. https://arxiv.org/abs/1612.01474
    """

    architecture = "Ensemble"
    kinds: ClassVar = ("probability", "logit", "operating-point")
    raw_kind: ClassVar = "probability"

    def __init__(
        self,
        members: Sequence[XRayClassifier | str | Weights | WeightsEnum],
        *,
        weights: Sequence[float] | None = None,
        views: Sequence[View] = ("whole",),
        output: str | None = None,
    ) -> None:
        nets = [m if isinstance(m, XRayClassifier) else get_model(m) for m in members]
        shares = [1.0] * len(nets) if weights is None else list(weights)
        if not nets or len(shares) != len(nets) or not all(share > 0 for share in shares):
            msg = f"{len(nets)} members and weights {shares}: give one positive weight per member"
            raise ValueError(msg)
        if lacking := [net for net in nets if "probability" not in net.kinds]:
            msg = f"{type(lacking[0]).__name__} gives no probabilities that could be averaged"
            raise ValueError(msg)
        if not views:
            raise ValueError(f"an ensemble needs one view at least, of {', '.join(VIEWS)}")
        for view in views:
            if view not in VIEWS:
                raise UnknownNameError("view", view, VIEWS)
        sizes = [getattr(net, "input_resolution", None) for net in nets]
        super().__init__(
            targets=_all_targets(nets),
            input_resolution=None if None in sizes else max(cast("list[int]", sizes)),
            apply_sigmoid=True,
            output=output,
        )
        self.members = nn.ModuleList(nets)
        self.views = tuple(views)
        self.register_buffer("shares", _shares(nets, shares, self.targets))
        self.shares: Tensor
        names = [net.weights for net in nets]
        if all(names):
            self.weights = " + ".join(cast("list[str]", names))
            self.eval()

    @property
    def trained(self) -> tuple[bool, ...]:
        """For each output, whether a member was trained on it."""
        return tuple(
            any(known for net in self._nets for name, known in _known(net) if name == target)
            for target in self.targets
        )

    @property
    def _nets(self) -> list[XRayClassifier]:
        return cast("list[XRayClassifier]", list(self.members))

    def _seen(self, x: Tensor) -> Iterator[Tensor]:
        """The views of a batch."""
        for view in self.views:
            if view == "crops":
                yield from _crops(x)
            else:
                yield x.flip(3) if view == "mirror" else x

    def _embed(self, x: Tensor) -> Tensor:
        return self._each(x)[0]

    def _each(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features of all side by side, and probabilities (M, V, B, P); 0 of what one has not."""
        features, rows = [], []
        for net in self._nets:
            columns = [net.targets.index(t) if t in net.targets else -1 for t in self.targets]
            kept = torch.tensor([c >= 0 for c in columns], device=x.device)
            views = []
            for seen in self._seen(x):
                found, raw = net.features_and_raw(seen)
                features.append(found)
                probabilities = net.convert(raw, "probability")[:, columns]
                views.append(torch.where(kept, probabilities, 0.0))
            rows.append(torch.stack(views))
        return torch.cat(features, 1), torch.stack(rows)

    def _features_and_raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features, each = self._each(x)
        return features, self._mean(each)

    def _mean(self, each: Tensor) -> Tensor:
        return (each.mean(1) * self.shares.to(each.dtype)[:, None]).sum(0)

    def convert(self, raw: Tensor, kind: str) -> Tensor:
        """Turn mean probabilities into the kind that was asked for.

        Args:
            raw: Probabilities, shape (B, P).
            kind: One of `kinds`.

        Returns:
            Shape and dtype of `raw`.
        """
        if kind != "operating-point":
            return super().convert(raw, kind)
        logits = torch.logit(raw, eps=torch.finfo(raw.dtype).eps)
        return calibrate(logits, "operating-point", self._points)

    def spread(self, x: Tensor) -> Tensor:
        """How much members and views disagree: the standard deviation of their probabilities.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, P) in [0, 0.5]; weighted as the mean is, 0 where one member alone answers.
        """
        _, each = self._each(self.prepare(x))
        off = each - self._mean(each)
        variance = (off.square().mean(1) * self.shares.to(each.dtype)[:, None]).sum(0)
        return variance.sqrt()


def _known(net: XRayClassifier) -> list[tuple[str, bool]]:
    return list(zip(net.targets, net.trained, strict=True))


def _answers(net: XRayClassifier) -> list[str]:
    """Findings that a member counts for; all of an untrained one."""
    return [name for name, known in _known(net) if name and (known or net.weights is None)]


def _all_targets(nets: Sequence[XRayClassifier]) -> list[str]:
    return list(dict.fromkeys(name for net in nets for name in _answers(net)))


def _shares(
    nets: Sequence[XRayClassifier], weights: Sequence[float], targets: Sequence[str]
) -> Tensor:
    """What each member counts for each finding, shape (M, P); columns add to 1."""
    rows = [
        [weight if name in _answers(net) else 0.0 for name in targets]
        for net, weight in zip(nets, weights, strict=True)
    ]
    shares = torch.tensor(rows)
    return shares / shares.sum(0)


def _crops(x: Tensor) -> Iterator[Tensor]:
    """The middle and the four corners, at the size of the image."""
    side = x.shape[-1]
    part = max(1, round(side * _CROP))
    last = side - part
    for top, left in ((last // 2, last // 2), (0, 0), (0, last), (last, 0), (last, last)):
        crop = x[..., top : top + part, left : left + part]
        yield functional.interpolate(crop, size=(side, side), mode="bilinear", antialias=True)
