"""Simulated radiographs as a dataset like any other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from torchxrayvision.datasets.findings import FindingColumns
from torchxrayvision.datasets.images import ImageSource
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.spec import DatasetSpec, sexes
from torchxrayvision.errors import DatasetError, UnknownNameError
from torchxrayvision.facts import LIBRARY, License
from torchxrayvision.inputs import InputFile
from torchxrayvision.phantom import FINDINGS, SITES

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.release import Row, SourceContext
    from torchxrayvision.phantom import Simulation


@lru_cache(maxsize=2)
def _simulation(index: int, seed: int, size: int, site: str) -> Simulation:
    """One image; kept, because its image and masks are asked for one after another."""
    from torchxrayvision.phantom import simulate

    return simulate(index, seed=seed, size=size, site=site)


def _of_row(row: Row) -> Simulation:
    return _simulation(int(row["index"]), row["film_seed"], row["size"], row["site"])


def _drawn(context: SourceContext) -> pd.DataFrame:
    """What each image shows, without rendering any."""
    import pandas as pd

    from torchxrayvision.phantom import draw_record

    given = context.arguments
    records = [draw_record(i, seed=given["film_seed"]) for i in range(given["n"])]
    columns: dict[str, Any] = {
        "index": np.arange(given["n"]),
        "patientid": [record.patient.id for record in records],
        "age_years": [float(record.patient.age_years) for record in records],
        "sex": [record.patient.sex for record in records],
        "view": [record.view for record in records],
        "site": given["site"],
    }
    columns |= {name: [record.labels[name] for record in records] for name in FINDINGS}
    columns |= {
        f"severity {name}": [record.severity[name] for record in records] for name in FINDINGS
    }
    return pd.DataFrame(columns)


@dataclass(frozen=True)
class _Rendered(ImageSource):
    """Images that are rendered when they are asked for; no file is read."""

    def place(self, context: SourceContext) -> Path:  # noqa: ARG002 - an image source
        """There is none to miss."""
        return Path()

    def exists(self, row: Row, context: SourceContext) -> bool:  # noqa: ARG002 - an image source
        """Always."""
        return True

    def input_file(self, row: Row, context: SourceContext) -> InputFile:
        """The image as a PNG file of 16 bits."""
        from torchxrayvision.phantom import png_bytes

        data = png_bytes(_of_row(row).image, bits=16)
        return InputFile(self.place(context), self.name(row), data=data)

    def read(self, row: Row, context: SourceContext) -> NDArray[np.float32]:  # noqa: ARG002
        """Pixels of the image, float32 (1, size, size) in [-1024, 1024]."""
        return _of_row(row).image.copy()


@dataclass(frozen=True)
class _KnownMasks:
    """Where the findings of an image are, or its organs."""

    kind: Literal["masks", "anatomy"]
    tables: tuple[str, ...] = ()

    def present(self, frame: pd.DataFrame, context: SourceContext) -> NDArray[np.bool_]:  # noqa: ARG002
        """Which images show a finding; all of them show organs."""
        if self.kind == "anatomy":
            return np.ones(len(frame), dtype=bool)
        present: NDArray[np.bool_] = (frame[list(FINDINGS)].to_numpy() == 1).any(axis=1)
        return present

    def masks(
        self,
        row: Row,
        shape: tuple[int, int],  # noqa: ARG002 - of the image itself
        context: SourceContext,  # noqa: ARG002
    ) -> dict[str, NDArray[np.bool_]]:
        """Finding or structure to its mask."""
        return dict(getattr(_of_row(row), self.kind))


class Phantom_Dataset(SpecDataset):
    """Simulated radiographs whose findings, masks and measures are known: as many as you like.

    A physical model of the chest is drawn from (seed, index) and projected as X-rays would be; see
    `torchxrayvision.phantom`. Nothing is downloaded or read: labels are drawn when the dataset is
    made, an image is rendered when it is asked for, and the same arguments give the same images on
    every machine and in any number of DataLoader workers. Use it to try a pipeline, to test one
    against a known truth, or to study shifts between sites. It replaces no real data.

    The csv has the severity of each finding (0 absent, up to 1) and the site; `simulation` gives
    the cardiothoracic ratio and the rest of what is known of an image. Patients have one to three
    images. Another seed is other patients, so a test set needs no split.

    Args:
        n: Number of images before `views` are chosen.
        seed: Of the simulation, and of the transforms' random numbers.
        size: Height and width of the images in pixels.
        site: Look of the images (exposure, processing, markers, borders); what they show is the
            same at every site.
        views: "PA", "AP", "L", several, or "*" for all, which is the default.
        pathology_masks: Add the masks of the findings.
        anatomy_masks: Add the masks of lungs, heart and bones as ``semantic_masks``.

    Raises:
        DatasetError: If `n` or `size` is not positive, or `seed` is negative.
        UnknownNameError: If there is no such site.

    Example:
        >>> from torchxrayvision.datasets import Phantom_Dataset
        >>> dataset = Phantom_Dataset(n=20, size=64, views="PA", anatomy_masks=True)
        >>> dataset[0]["img"].shape, dataset[0]["semantic_masks"]["Heart"].shape
        ((1, 64, 64), (1, 64, 64))

    Source:
        Cohen et al., MIDL 2022, https://arxiv.org/abs/2111.00595, describes the library; the
        sources of anatomy and physics are named in `torchxrayvision.phantom`.
    """

    spec = DatasetSpec(
        title="Simulated radiographs",
        reference=LIBRARY,
        license=License(name="Apache-2.0, as this package"),
        homepage=LIBRARY.url,
        join=_drawn,
        images=_Rendered("{site}/{film_seed}/{index:06d}", argument="", layout=""),
        findings=FindingColumns({name: name for name in FINDINGS}),
        view="view",
        default_views=("*",),
        patient="patientid",
        patient_order="appearance",
        compat_keeps_whole_rows=True,
        columns={
            "patientid": "patientid",
            "age_years": "age_years",
            **sexes("sex", "M", "F"),
        },
        masks=_KnownMasks("masks"),
        semantic=_KnownMasks("anatomy"),
        verified="there is no release",
        parameters="n=1000, seed, size=512, site='A', views, transform, data_aug, "
        "pathology_masks, anatomy_masks=False, *, unique_patients",
    )

    def _prepare(self, given: dict[str, Any]) -> None:
        n, size, seed = (given[name] for name in ("n", "size", "seed"))
        if n < 1 or size < 1 or seed < 0:
            msg = (
                f"Phantom_Dataset needs n and size of at least 1 and a seed of at least 0, got "
                f"n={n!r}, size={size!r}, seed={seed!r}"
            )
            raise DatasetError(msg)
        if given["site"] not in SITES:
            raise UnknownNameError("site", given["site"], list(SITES))
        given.update(semantic_masks=given.pop("anatomy_masks"), film_seed=seed)

    def simulation(self, idx: int) -> Simulation:
        """Everything that is known of an image: severities, ratio, pixel spacing, masks.

        Args:
            idx: Position of the sample.

        Returns:
            The image before any transform; its arrays are shared, so copy before changing them.
        """
        return _of_row(self._row(self._position(idx)))
