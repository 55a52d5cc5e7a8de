"""Public chest X-ray datasets behind one interface.

Every dataset yields dicts with ``idx``, ``lab``, ``img`` (float32 (1, H, W) in [-1024, 1024]) and
has ``.pathologies``, ``.labels`` and ``.csv``, aligned by row. Constructing one, its labels and
its totals need neither images nor torch.

Example:
    >>> import torchxrayvision as xrv
    >>> dataset = xrv.datasets.NIH_Dataset(views=["PA", "AP"], unique_patients=False)
    >>> len(dataset)
    112120
"""

from __future__ import annotations

from torchxrayvision.datasets.base import Dataset, Sample
from torchxrayvision.datasets.batches import collate
from torchxrayvision.datasets.catalogue import (
    Card,
    card,
    describe,
    find_dataset_class,
    get_dataset_class,
    list_datasets,
    publish,
)
from torchxrayvision.datasets.containers import (
    Filter_Dataset,
    FilterDataset,
    Merge_Dataset,
    MergeDataset,
    Subset_Dataset,
    SubsetDataset,
    relabel_dataset,
)
from torchxrayvision.datasets.covariate import CovariateDataset
from torchxrayvision.datasets.export import export_folder, export_parquet, label_table
from torchxrayvision.datasets.images import Files as Files
from torchxrayvision.datasets.images import ImageSource as ImageSource
from torchxrayvision.datasets.images import IndexedFiles as IndexedFiles
from torchxrayvision.datasets.pipeline import COMPAT, SpecDataset
from torchxrayvision.datasets.release import USE_INCLUDED_FILE
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.datasets.split import (
    OFFICIAL_SPLITS,
    OfficialSplit,
    Split,
    describe_split,
    find_official_split,
    in_official_test,
    official_split,
    official_splits,
    split_by_patient,
)
from torchxrayvision.datasets.split import patients as patients
from torchxrayvision.datasets.verification import Report, verify
from torchxrayvision.deprecation import carried_names, count_replacements
from torchxrayvision.images import normalize
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.transforms import ToPILImage, XRayCenterCrop, XRayResizer, apply_transforms

# One line per module; the contract tests find the classes here.
from torchxrayvision.datasets.releases.brax import BRAX_Dataset  # isort: skip
from torchxrayvision.datasets.releases.candidptx import CANDIDPTX_Dataset  # isort: skip
from torchxrayvision.datasets.releases.chestxdet import ChestXDet_Dataset  # isort: skip
from torchxrayvision.datasets.releases.chexlocalize import CheXlocalize_Dataset  # isort: skip
from torchxrayvision.datasets.releases.chexmask import CheXmask, with_chexmask  # isort: skip
from torchxrayvision.datasets.releases.chexpert import CheX_Dataset  # isort: skip
from torchxrayvision.datasets.releases.chexpertplus import CheXpertPlus_Dataset  # isort: skip
from torchxrayvision.datasets.releases.covid19 import COVID19_Dataset  # isort: skip
from torchxrayvision.datasets.releases.custom import CSV_Dataset, Folder_Dataset  # isort: skip
from torchxrayvision.datasets.releases.hannover import HannoverCOVID_Dataset  # isort: skip
from torchxrayvision.datasets.releases.medmnist import ChestMNIST_Dataset, PneumoniaMNIST_Dataset

from torchxrayvision.datasets.releases.mimic import MIMIC_Dataset  # isort: skip
from torchxrayvision.datasets.releases.mscxr import MSCXR_Dataset  # isort: skip
from torchxrayvision.datasets.releases.nih import NIH_Dataset, NIH_Google_Dataset  # isort: skip
from torchxrayvision.datasets.releases.nlmtb import NLMTB_Dataset  # isort: skip
from torchxrayvision.datasets.releases.objectcxr import ObjectCXR_Dataset  # isort: skip
from torchxrayvision.datasets.releases.openi import Openi_Dataset  # isort: skip
from torchxrayvision.datasets.releases.padchest import PC_Dataset  # isort: skip
from torchxrayvision.datasets.releases.padchestgr import PadChestGR_Dataset  # isort: skip
from torchxrayvision.datasets.releases.phantom import Phantom_Dataset  # isort: skip
from torchxrayvision.datasets.releases.reflacx import REFLACX_Dataset  # isort: skip
from torchxrayvision.datasets.releases.rsna import RSNA_Pneumonia_Dataset  # isort: skip
from torchxrayvision.datasets.releases.siim import SIIM_Pneumothorax_Dataset  # isort: skip
from torchxrayvision.datasets.releases.stonybrook import StonyBrookCOVID_Dataset  # isort: skip
from torchxrayvision.datasets.releases.tbx11k import TBX11K_Dataset  # isort: skip
from torchxrayvision.datasets.releases.vindr import VinBrain_Dataset, VinDr_Dataset  # isort: skip
from torchxrayvision.datasets.releases.vindrpcxr import VinDrPCXR_Dataset  # isort: skip

default_pathologies: list[str] = list(DEFAULT_PATHOLOGIES)
"""A copy of `torchxrayvision.labels.DEFAULT_PATHOLOGIES`, a list as in 1.5.7."""

__all__ = [
    "COMPAT",
    "OFFICIAL_SPLITS",
    "USE_INCLUDED_FILE",
    "BRAX_Dataset",
    "CANDIDPTX_Dataset",
    "COVID19_Dataset",
    "CSV_Dataset",
    "Card",
    "CheX_Dataset",
    "CheXlocalize_Dataset",
    "CheXmask",
    "CheXpertPlus_Dataset",
    "ChestMNIST_Dataset",
    "ChestXDet_Dataset",
    "CovariateDataset",
    "Dataset",
    "DatasetSpec",
    "FilterDataset",
    "Filter_Dataset",
    "Folder_Dataset",
    "HannoverCOVID_Dataset",
    "MIMIC_Dataset",
    "MSCXR_Dataset",
    "MergeDataset",
    "Merge_Dataset",
    "NIH_Dataset",
    "NIH_Google_Dataset",
    "NLMTB_Dataset",
    "ObjectCXR_Dataset",
    "OfficialSplit",
    "Openi_Dataset",
    "PC_Dataset",
    "PadChestGR_Dataset",
    "Phantom_Dataset",
    "PneumoniaMNIST_Dataset",
    "REFLACX_Dataset",
    "RSNA_Pneumonia_Dataset",
    "Report",
    "SIIM_Pneumothorax_Dataset",
    "Sample",
    "SpecDataset",
    "Split",
    "StonyBrookCOVID_Dataset",
    "SubsetDataset",
    "Subset_Dataset",
    "TBX11K_Dataset",
    "Table",
    "ToPILImage",
    "VinBrain_Dataset",
    "VinDrPCXR_Dataset",
    "VinDr_Dataset",
    "XRayCenterCrop",
    "XRayResizer",
    "apply_transforms",
    "card",
    "collate",
    "default_pathologies",
    "describe",
    "describe_split",
    "export_folder",
    "export_parquet",
    "find_dataset_class",
    "find_official_split",
    "get_dataset_class",
    "in_official_test",
    "label_table",
    "list_datasets",
    "normalize",
    "official_split",
    "official_splits",
    "relabel_dataset",
    "split_by_patient",
    "verify",
    "with_chexmask",
]

__getattr__ = carried_names(
    __name__,
    "collections imageio imread json np os pd pprint random skimage sys tarfile torch transforms "
    "warnings xrv zipfile",
)
count_replacements(__name__)

publish(vars())
