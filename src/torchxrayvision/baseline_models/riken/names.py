"""From the tensors of a scripted network to the names of `_net.Network`.

The release is a TorchScript archive: tensors under the attribute names of a class that only the
archive holds. Three namings are known, tried in this order:

======================  ==========================================  ====================
naming                  stages                                      head
======================  ==========================================  ====================
this package            ``layer0.`` to ``layer4.``                  ``head.0.`` ...
ports of the release    ``layer0.`` to ``layer4.``                  ``last_linear.``
fastai 1                ``0.0.`` to ``0.4.``, in the order above    ``1.2.`` to ``1.8.``
======================  ==========================================  ====================

Any of them may stand below a common prefix. Other names are matched by position: the file must
list the same kinds (weight, bias, mean, variance) of the same shapes in the same order, over more
than 1500 tensors in the whole network, which no other network does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from torchxrayvision.baseline_models.riken.net import FEATURES, concat_head, plain_head

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

_COUNTER: Final = "num_batches_tracked"
# fastai's head counts its pooling and flattening, which hold no tensors, as layers 0 and 1.
_FASTAI_HEAD: Final = 2
_DEFAULT_HIDDEN: Final = 512


def head_for(tensors: Mapping[str, Tensor]) -> nn.Sequential:
    """The head that a file holds, told by the shapes of its tensors.

    Args:
        tensors: As the file names them.

    Returns:
        The untrained head; fastai's usual one if the shapes fit neither.
    """
    shapes = [tuple(value.shape) for value in tensors.values()]
    wide = [shape[0] for shape in shapes if len(shape) == 2 and shape[1] == 2 * FEATURES]
    if not wide and (1, FEATURES) in shapes:
        return plain_head()
    return concat_head(wide[0] if wide else _DEFAULT_HIDDEN)


def own_names(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The tensors under the names of the network, as far as they can be told.

    Where nothing fits, those of the file, so that loading them says what is missing and unexpected.
    """
    expected = network.state_dict()
    named = dict(tensors)
    wanted = {name for name in expected if not name.endswith(_COUNTER)}
    prefix = _common_prefix(named)
    for rename in (_keep, _from_port, _from_fastai):
        candidate = {rename(name.removeprefix(prefix)): value for name, value in named.items()}
        if {name for name in candidate if not name.endswith(_COUNTER)} == wanted:
            return _with_counters(candidate, expected)
    by_position = _in_order(named, expected)
    return _with_counters(by_position, expected) if by_position else named


def _common_prefix(names: Iterable[str]) -> str:
    """Whole words before the stage that every name shares: ``model.`` of ``model.layer0.bn1``."""
    first = next(iter(names), "")
    found = re.match(r"(?:[A-Za-z_]\w*\.)*?(?=layer0\.|0\.0\.)", first)
    prefix = found.group() if found else ""
    return prefix if all(name.startswith(prefix) for name in names) else ""


def _keep(name: str) -> str:
    return name


def _from_port(name: str) -> str:
    return re.sub(r"^last_linear\.", "head.1.", name)


def _from_fastai(name: str) -> str:
    body = re.match(r"0\.([0-4])\.", name)
    if body:
        return f"layer{body.group(1)}.{name[body.end() :]}"
    head = re.match(r"1\.(\d+)\.", name)
    return f"head.{int(head.group(1)) - _FASTAI_HEAD}.{name[head.end() :]}" if head else name


def _in_order(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the file in the order of the network; empty where kinds or shapes differ."""
    found = [(name, value) for name, value in tensors.items() if not name.endswith(_COUNTER)]
    own = [(name, value) for name, value in expected.items() if not name.endswith(_COUNTER)]
    alike = len(found) == len(own) and all(
        theirs.shape == ours.shape and name.rpartition(".")[2] == wanted.rpartition(".")[2]
        for (name, theirs), (wanted, ours) in zip(found, own, strict=True)
    )
    pairs = zip(own, found, strict=True) if alike else ()
    return {wanted: value for (wanted, _), (_, value) in pairs}


def _with_counters(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the counters of batches, which archives may leave out and evaluation does not use."""
    import torch

    missing = {name for name in expected if name.endswith(_COUNTER)} - tensors.keys()
    return tensors | {name: torch.zeros((), dtype=torch.int64) for name in missing}
