"""A made-to-measure covariate shift between two datasets: `CovariateDataset`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from torchxrayvision.datasets.containers import MergeDataset, Sliceable, stacked
from torchxrayvision.datasets.split import patients
from torchxrayvision.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.datasets.base import Sample

_MODES = ("train", "valid", "test")


class CovariateDataset(Sliceable):
    """Two sources whose mixture depends on the label, so that the source predicts the label.

    Half of the samples are positive. Of the positives the share `ratio` comes from `d2` and the
    rest from `d1`; of the negatives the share `ratio` comes from `d1`. ``mode="valid"`` and
    ``"test"`` use 1 - `ratio`, so that a model which learned the source fails there. The number
    of samples does not depend on `ratio`.

    Args:
        d1: First dataset.
        d1_target: Its target, (len(d1),): 1, 0, or NaN for rows to leave out.
        d2: Second dataset.
        d2_target: Its target, (len(d2),).
        ratio: Share in [0, 1].
        mode: Which part.
        seed: Of a generator of its own.
        nsamples: Samples in this part, even. None: as many as every ratio allows, twice the
            smallest pool of (source, label) in this part.
        splits: Shares of the rows that go to train, valid and test; they sum to 1.
        verbose: Log the sizes of the pools.
        by_patient: Let no patient be in two parts. Needs ``patientid`` in both.

    Attributes:
        labels: float32 (N, 1), the target.
        site: int64 (N,), 0 for `d1`, 1 for `d2`.
        imageids: int64 (N,), row in that dataset.

    Raises:
        DatasetError: If an argument is out of range, or a pool is too small.

    Source:
        Viviano et al., Saliency is a possible red herring when diagnosing poor generalization,
        ICLR 2020, https://arxiv.org/abs/1910.00199.
    """

    def __init__(
        self,
        d1: Any,
        d1_target: ArrayLike,
        d2: Any,
        d2_target: ArrayLike,
        ratio: float = 0.5,
        mode: Literal["train", "valid", "test"] = "train",
        seed: int = 0,
        nsamples: int | None = None,
        splits: Sequence[float] = (0.5, 0.25, 0.25),
        verbose: bool = False,
        *,
        by_patient: bool = False,
    ) -> None:
        self.d1, self.d2 = d1, d2
        self.ratio, self.mode, self.seed, self.splits = ratio, mode, seed, tuple(splits)
        self.d1_target = _target(d1_target, d1, "d1_target")
        self.d2_target = _target(d2_target, d2, "d2_target")
        self._check()
        pools = self._pools(by_patient)
        if verbose:
            import logging

            sizes = {pool: len(rows) for pool, rows in pools.items()}
            logging.getLogger(__name__).info("pools (site, label) of %s: %s", mode, sizes)
        chosen = self._choose(pools, nsamples)
        self.site = np.concatenate([np.full(len(rows), site) for (site, _), rows in chosen])
        self.imageids = np.concatenate([rows for _, rows in chosen])
        target = np.concatenate([np.full(len(rows), label) for (_, label), rows in chosen])
        self.labels = target.astype(np.float32)[:, None]
        self.pathologies = ["Custom"]

    def _check(self) -> None:
        shares = np.asarray(self.splits, dtype=np.float64)
        for ok, text in (
            (self.mode in _MODES, f"mode must be one of {_MODES}, got {self.mode!r}"),
            (0 <= self.ratio <= 1, f"ratio must lie in [0, 1], got {self.ratio}"),
            (
                shares.shape == (3,) and (shares > 0).all() and abs(shares.sum() - 1) < 1e-6,
                f"splits must be three positive shares that sum to 1, got {list(self.splits)}",
            ),
        ):
            if not ok:
                msg = f"CovariateDataset: {text}"
                raise DatasetError(msg)

    def _part(self, n: int) -> slice:
        ends = np.round(np.cumsum([0.0, *self.splits]) * n).astype(int)
        part = _MODES.index(self.mode)
        return slice(int(ends[part]), int(ends[part + 1]))

    def _pools(self, by_patient: bool) -> dict[tuple[int, int], NDArray[np.int64]]:
        """Rows of this part by (site, label), shuffled.

        Each shuffle has a generator of its own, so that the three parts cut the same order.
        """
        pools = {}
        targets = (self.d1_target, self.d2_target)
        chosen = self._patients() if by_patient else [np.ones(len(t), dtype=bool) for t in targets]
        for site, (target, members) in enumerate(zip(targets, chosen, strict=True)):
            for label in (0, 1):
                generator = np.random.default_rng([self.seed, site, label])
                rows = generator.permutation(np.flatnonzero((target == label) & members))
                pools[site, label] = rows if by_patient else rows[self._part(len(rows))]
        return pools

    def _patients(self) -> list[NDArray[np.bool_]]:
        """Which rows of each source are of patients of this part."""
        merged = MergeDataset([self.d1, self.d2], label_concat=True)  # whatever they label
        sources = np.split(patients(merged), [len(self.d1)])
        members = []
        for site, codes in enumerate(sources):
            names, numbers = np.unique(codes, return_inverse=True)
            order = np.random.default_rng([self.seed, site]).permutation(len(names))
            members.append(np.isin(numbers, order[self._part(len(names))]))
        both = np.isin(sources[1], sources[0])  # they stay where the first source has them
        members[1][both] = np.isin(sources[1][both], sources[0][members[0]])
        return members

    def _choose(
        self, pools: dict[tuple[int, int], NDArray[np.int64]], nsamples: int | None
    ) -> list[tuple[tuple[int, int], NDArray[np.int64]]]:
        half = min(map(len, pools.values())) if nsamples is None else nsamples // 2
        ratio = self.ratio if self.mode == "train" else 1 - self.ratio
        confounded = round(ratio * half)  # positives of d2, and negatives of d1
        counts = {
            (0, 0): confounded,
            (0, 1): half - confounded,
            (1, 0): half - confounded,
            (1, 1): confounded,
        }
        for pool, count in counts.items():
            if half == 0 or count > len(pools[pool]):
                msg = (
                    f"CovariateDataset: {count} samples are wanted of site {pool[0]} with label "
                    f"{pool[1]} and the {self.mode} part has {len(pools[pool])}; lower nsamples"
                )
                raise DatasetError(msg)
        return [(pool, pools[pool][:count]) for pool, count in counts.items()]

    def _make_csv(self) -> pd.DataFrame:
        frame = stacked(  # rows are ordered by site, so this aligns
            dataset.csv.iloc[self.imageids[self.site == site]]
            for site, dataset in enumerate((self.d1, self.d2))
        )
        return frame.assign(site=self.site, label=self.labels[:, 0].astype(np.int64))

    def _take(self, rows: NDArray[np.intp]) -> None:
        super()._take(rows)
        self.site, self.imageids = self.site[rows], self.imageids[rows]

    def _sample(self, position: int) -> Sample:
        """With ``site`` and, as ``lab-old``, the labels in its own dataset."""
        dataset = (self.d1, self.d2)[self.site[position]]
        sample: Sample = dataset[int(self.imageids[position])]
        sample["lab-old"] = sample["lab"]
        sample["lab"] = self._lab(position)
        sample["site"] = int(self.site[position])
        return sample

    def string(self) -> str:
        """This dataset and the two inside."""
        inner = [f"{i} {dataset.string()}" for i, dataset in enumerate((self.d1, self.d2))]
        head = f"CovariateDataset num_samples={len(self)} mode={self.mode} ratio={self.ratio}"
        return "\n".join([head, f"├{inner[0]}", f"└{inner[1]}"])

    def check_paths_exist(self) -> None:
        """Raise if an image of either dataset is missing."""
        self.d1.check_paths_exist()
        self.d2.check_paths_exist()


def _target(target: ArrayLike, dataset: Any, name: str) -> NDArray[np.float64]:
    values = np.asarray(target, dtype=np.float64).reshape(-1)
    known = values[~np.isnan(values)]
    if len(values) != len(dataset) or not np.isin(known, (0, 1)).all():
        msg = (
            f"CovariateDataset: {name} must hold 0, 1 or NaN for each of {len(dataset)} samples, "
            f"got {len(values)} values {np.unique(known)[:5].tolist()}"
        )
        raise DatasetError(msg)
    return values
