"""The folder that the demonstration looks at, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

BROKEN: Final = 3
"""Number of the image whose file is cut off."""

_KEPT: Final = 0.4  # of its bytes
_FACTS: Final = ("path", "patientid", "age", "sex", "view", "site")


@dataclass(frozen=True)
class Truth:
    """What the simulation knows of each file.

    Attributes:
        folder: Where `images`, `masks` and `anatomy` lie.
        facts: One row per file, by its path: ``patientid``, ``age``, ``sex``, ``view``, ``site``,
            ``cardiothoracic_ratio``.
        labels: Findings of the same files, 0 or 1.
    """

    folder: Path
    facts: pd.DataFrame
    labels: pd.DataFrame

    def fact(self, path: str, name: str) -> Any:
        """One of the facts of an image."""
        return self.facts.loc[path, name]

    def present(self, path: str) -> list[str]:
        """Findings of an image."""
        row = self.labels.loc[path]
        return [str(name) for name in self.labels.columns if row[name] == 1]

    def mask(self, path: str, finding: str) -> NDArray[np.bool_] | None:
        """Where a finding is, bool (H, W); None if the image does not show it."""
        return _mask(self.folder / "masks" / Path(path).stem, finding)

    def structure(self, path: str, name: str) -> NDArray[np.bool_] | None:
        """Where a structure is, bool (H, W); None if it is not simulated."""
        return _mask(self.folder / "anatomy" / Path(path).stem, name)


def make_folder(folder: Path, n: int, seed: int, size: int) -> Truth:
    """Write a folder of simulated images in mixed formats, one of them cut off.

    Args:
        folder: New or empty.
        n: Images, more than `BROKEN`.
        seed: Of the simulation.
        size: Side of the images in pixels.

    Returns:
        What is known of them.
    """
    import pandas as pd

    from torchxrayvision.phantom import write_release

    write_release(folder, n, seed, layout="folder", size=size)
    labels = pd.read_csv(folder / "labels.csv").set_index("path", drop=False)
    truth = pd.read_csv(folder / "truth.csv").set_index("path")
    victim = folder / str(labels["path"].iloc[BROKEN])
    content = victim.read_bytes()
    victim.write_bytes(content[: int(len(content) * _KEPT)])
    facts = labels[list(_FACTS[1:])].join(truth[["cardiothoracic_ratio"]])
    return Truth(folder, facts, labels.drop(columns=list(_FACTS)))


def _mask(folder: Path, name: str) -> NDArray[np.bool_] | None:
    from PIL import Image

    path = folder / f"{name.replace(' ', '_')}.png"
    if not path.exists():
        return None
    with Image.open(path) as image:
        return np.asarray(image) > 0
