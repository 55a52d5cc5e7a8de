"""Record what 1.5.7's classifiers of other groups compute with synthetic weights.

Run in an environment that holds torchxrayvision 1.5.7 and timm, never in this project's own:

    python tools/record_golden_baselines.py tests/golden/baselines.json [NAME ...]

The tensors come from a seed (tests/support/baselines.py), in the file and under the names that the
release has, so the record holds outputs only. 1.5.7 keeps its files in the home folder and
downloads ImageNet weights for one model; both are replaced here. The network of `riken` is inside
the release's file; timm's `legacy_senet154` with the head of a fastai learner stands in for it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.baselines import SIZES, record, shapes_of, values, weighing

FILES = {
    "jfhealthcare": "baseline_models_jfhealthcare-DenseNet121_pre_train.pth",
    "emory_hiti": "resnet_race_detection_val-loss_0.157_mimic_public.pt",
    "mira": "mira_sex_resnet-all_epoch_13-step_7125.ckpt",
    "xinario": "xinario_chestViewSplit_resnet-50.pt",
    "riken": "baseline_models_riken_xray_age_every_model_age_senet154_v2_tl_26_ft_7_fp32.pt",
}


def resnet(name: str, depth: int, head: torch.nn.Module, prefix: str = "") -> dict:
    net = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    net.fc = head
    return {prefix + k: v for k, v in values(name, shapes_of(net)).items()}


def plant(folder: Path, name: str, content: dict) -> None:
    torch.save(content, folder / FILES[name])


def jfhealthcare(folder: Path) -> torch.nn.Module:
    import torchxrayvision as xrv

    imagenet = torchvision.models.densenet121(weights=None).state_dict()
    for module in list(sys.modules.values()):
        for loader in ("load_state_dict_from_url", "load_url"):
            if hasattr(module, loader):
                setattr(module, loader, lambda *_, **__: dict(imagenet))
    load = torch.nn.Module.load_state_dict
    plant(folder, "jfhealthcare", {})
    try:  # once without tensors, to learn the names
        torch.nn.Module.load_state_dict = lambda *_, **__: None
        shapes = shapes_of(xrv.baseline_models.jfhealthcare.DenseNet().model.module)
    finally:
        torch.nn.Module.load_state_dict = load
    plant(folder, "jfhealthcare", values("jfhealthcare", shapes))
    return xrv.baseline_models.jfhealthcare.DenseNet()


def emory_hiti(folder: Path) -> torch.nn.Module:
    import torchxrayvision as xrv

    head = torch.nn.Sequential(torch.nn.Linear(512, 3), torch.nn.LogSoftmax(1))
    tensors = resnet("emory_hiti", 34, head)
    plant(folder, "emory_hiti", {f"module.{k}": v for k, v in tensors.items()})
    return xrv.baseline_models.emory_hiti.RaceModel()


def mira(folder: Path) -> torch.nn.Module:
    import torchxrayvision as xrv

    tensors = resnet("mira", 34, torch.nn.Linear(512, 2))
    state = {f"model.{k}": v for k, v in tensors.items()}
    plant(folder, "mira", {"epoch": 13, "state_dict": state})
    return xrv.baseline_models.mira.SexModel()


def xinario(folder: Path) -> torch.nn.Module:
    import torchxrayvision as xrv

    plant(folder, "xinario", resnet("xinario", 50, torch.nn.Linear(2048, 1000)))
    return xrv.baseline_models.xinario.ViewModel()


BUILDERS = {
    "jfhealthcare": jfhealthcare,
    "emory_hiti": emory_hiti,
    "mira": mira,
    "xinario": xinario,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    golden = json.loads(arguments.target.read_text()) if arguments.target.exists() else {}
    with tempfile.TemporaryDirectory() as home:
        os.environ["HOME"] = home
        folder = Path(home) / ".torchxrayvision" / "models_data"
        folder.mkdir(parents=True)
        for name in arguments.names or BUILDERS:
            model = BUILDERS[name](folder).eval()
            golden[name] = record(model, SIZES[name], weighing(len(model.targets)))
            print(name, {k: v for k, v in golden[name].items() if k != "gradient"})
    arguments.target.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
