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
import io
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.baselines import (
    CHEXPERT_TASKS,
    SIZES,
    ensemble_zip,
    record,
    shapes_of,
    values,
    weighing,
)

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


class Learner(torch.nn.Sequential):
    """A body and fastai's head on it; positions are the names that fastai gives."""

    def __init__(self) -> None:
        import timm

        net = timm.create_model("legacy_senet154", pretrained=False)
        stages = [net.layer0, torch.nn.Sequential(net.pool0, *net.layer1)]
        body = torch.nn.Sequential(*stages, net.layer2, net.layer3, net.layer4)
        head = torch.nn.Sequential(
            Concat(),
            torch.nn.Flatten(),
            torch.nn.BatchNorm1d(4096),
            torch.nn.Dropout(0.25),
            torch.nn.Linear(4096, 512),
            torch.nn.ReLU(),
            torch.nn.BatchNorm1d(512),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(512, 1),
        )
        super().__init__(body, head)


class Concat(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pool = torch.nn.functional
        return torch.cat([pool.adaptive_max_pool2d(x, 1), pool.adaptive_avg_pool2d(x, 1)], 1)


def own_name(name: str) -> str:
    """The name that this project has for a tensor of `Learner`."""
    part, position, rest = name.split(".", 2)
    if part == "1":
        return f"head.{int(position) - 2}.{rest}"
    if position == "1":  # behind the pooling
        block, rest = rest.split(".", 1)
        rest = f"{int(block) - 1}.{rest}"
    return f"layer{position}.{rest}"


def riken(folder: Path) -> torch.nn.Module:
    import torchxrayvision as xrv

    learner = Learner()
    shapes = {own_name(k): s for k, s in shapes_of(learner).items()}
    tensors = values("riken", shapes)
    learner.load_state_dict({k: tensors[own_name(k)] for k in learner.state_dict()})
    traced = torch.jit.trace(learner.eval(), torch.zeros(1, 3, 320, 320), check_trace=False)
    traced.save(folder / FILES["riken"])
    return xrv.baseline_models.riken.AgeModel()


def member_names() -> list[str]:
    """What 1.5.7 opens in the zip of the ensemble, in its order."""
    import torchxrayvision as xrv

    opened: list[str] = []
    content = io.BytesIO()
    tasks = {name: place for place, name in enumerate(CHEXPERT_TASKS)}
    torch.save({"task_sequence": tasks, "model_state": {}, "ckpt_info": {}}, content)
    real_open, real_load = zipfile.ZipFile.open, torch.nn.Module.load_state_dict

    def spy(_self, name, *_args, **_kwargs):
        opened.append(getattr(name, "filename", name))
        return io.BytesIO(content.getvalue())

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "empty.zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("nothing", b"")
        try:
            zipfile.ZipFile.open = spy
            torch.nn.Module.load_state_dict = lambda *_, **__: None
            xrv.baseline_models.chexpert.DenseNet(weights_zip=str(path), num_models=30)
        finally:
            zipfile.ZipFile.open, torch.nn.Module.load_state_dict = real_open, real_load
    return opened


def chexpert(folder: Path) -> torch.nn.Module:
    import torchxrayvision as xrv

    names = member_names()
    members = {}
    for position, (group, index) in enumerate((g, i) for g in range(3) for i in range(2)):
        outputs = len(CHEXPERT_TASKS) * (3 if group == 1 else 1)
        net = torchvision.models.densenet121(weights=None, num_classes=outputs)
        members[names[30 * group + index]] = values("chexpert", shapes_of(net), seed=position)
    ensemble_zip(folder / "chexpert.zip", members)
    model = xrv.baseline_models.chexpert.DenseNet(str(folder / "chexpert.zip"), num_models=2)
    model.member_names = names
    return model


BUILDERS = {
    "jfhealthcare": jfhealthcare,
    "emory_hiti": emory_hiti,
    "mira": mira,
    "xinario": xinario,
    "riken": riken,
    "chexpert": chexpert,
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
            if name == "chexpert":
                golden[name]["members"] = model.member_names
            print(name, {k: v for k, v in golden[name].items() if "x" in k[:2]})
    arguments.target.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
