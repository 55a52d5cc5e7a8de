"""Record what 1.5.7's segmentation networks and autoencoders compute with synthetic weights.

Run in an environment that holds torchxrayvision 1.5.7, never in this project's own:

    python tools/record_golden_dense.py tests/golden/dense.json [--only NAME] [--full]

The weights come from a seed (tests/support/synthetic.py) and go through the files that 1.5.7
downloads: its own classes load them from a folder. Most records are of small inputs, for which
1.5.7's resizing is replaced; `--full` adds those at the resolution of the published weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import torch

import torchxrayvision as xrv
from torchxrayvision import autoencoders
from torchxrayvision.baseline_models import chestx_anatomy, chestx_det, ieee8023

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.dense import (
    VQGANS,
    images,
    lightning,
    record_image,
    record_logits,
    state_of,
    vqgan_state,
)


def autoencoder(folder: Path) -> dict[str, dict]:
    """ResNetAE, from the file of its release."""
    filename = autoencoders.model_urls["101-elastic"]["weights_url"].rpartition("/")[2]
    torch.save(state_of(autoencoders.ResNetAE101()), folder / filename)
    net = autoencoders.ResNetAE(weights="101-elastic", cache_dir=str(folder)).eval()
    records = {}
    for count in (1, 3):
        x = images(count, 224)
        with torch.no_grad():
            result = net(x)
        records[f"224:{count}"] = {
            "z": record_image(result["z"]),
            "out": record_image(result["out"]),
        }
    records["gradient"] = gradient(lambda x: net.double()(x)["out"], images(1, 224))
    return {"resnetae101": records}


def at(net: torch.nn.Module, size: int) -> torch.nn.Module:
    """The network with inputs brought to another size than the published one."""
    net.input_resolution = size
    full = FIX_RESOLUTION
    xrv.utils.fix_resolution = lambda x, _, model: full(x, size, model)
    return net


FIX_RESOLUTION = xrv.utils.fix_resolution


def logits(net: torch.nn.Module, sizes: list[tuple[int, int]]) -> dict[str, dict]:
    """Logits of batches at several resolutions, and the gradient at the smallest."""
    records = {}
    for size, count in sizes:
        with torch.no_grad():
            records[f"{size}:{count}"] = record_logits(at(net, size)(images(count, size)))
    records["gradient"] = gradient(at(net, 96).double(), images(1, 96))
    net.float()
    return records


def pspnet(folder: Path, sizes: list[tuple[int, int]]) -> dict[str, dict]:
    """PSPNet, from a file with the prefix of DataParallel and the head that only training uses."""
    state = state_of(chestx_det.pspnet(14), "module.", residual=".cb3.")
    torch.save(state, folder / "pspnet_chestxray_best_model_4.pth")
    net = chestx_det.PSPNet(cache_dir=str(folder)).eval()
    return {"pspnet": logits(net, sizes)}


def anatomy(folder: Path, sizes: list[tuple[int, int]]) -> dict[str, dict]:
    """UNetResNet50, from a wrapped file whose backbone has the authors' names."""
    bare = state_of(chestx_anatomy.UNetResNet50(weights=False))
    state = {f"module.{k.replace('backbone.backbone.', 'backbone.')}": v for k, v in bare.items()}
    filename = chestx_anatomy.WEIGHTS_URL.rpartition("/")[2]
    torch.save({"model": state, "epoch": 3}, folder / filename)
    net = chestx_anatomy.UNetResNet50(cache_dir=str(folder)).eval()
    records = logits(net, sizes)
    data = net.transform(((images(1, 72) + 1024) / 2048).repeat(1, 3, 1, 1))
    with torch.no_grad():
        result = net({"data": data})
    records["dictionary"] = {
        "feats": record_image(result["feats"]),
        "logits": record_logits(result["logits"]),
        "positive": int(result["segmentation_preds"].sum()),
    }
    targets = "\n".join(chestx_anatomy.TARGETS)
    records["targets_digest"] = hashlib.sha256(targets.encode()).hexdigest()
    return {"unet-resnet50": records}


CONFIGURATION = """model:
  params:
    embed_dim: {embed_dim}
    n_embed: {n_embed}
    ddconfig:
      double_z: false
      z_channels: {z_channels}
      resolution: {resolution}
      in_channels: 3
      out_ch: 3
      ch: 32
      ch_mult:
{ch_mult}
      num_res_blocks: {num_res_blocks}
      attn_resolutions:
      - 16
      dropout: 0.0
    lossconfig:
      target: none
"""


def vqgan(folder: Path) -> dict[str, dict]:
    """VQGAN, from a Lightning file with a discriminator in it; two sizes."""
    golden = {}
    for name, config in VQGANS.items():
        levels = "\n".join(f"      - {m}" for m in config["ch_mult"])
        text = CONFIGURATION.format(**{**config, "ch_mult": levels})
        (folder / "a.yaml").write_text(text)
        ddconfig = dict(config, double_z=False, in_channels=3, out_ch=3, ch=32, dropout=0.0)
        ddconfig["attn_resolutions"] = [16]
        words, word = ddconfig.pop("n_embed"), ddconfig.pop("embed_dim")
        network = ieee8023.VQModel(ddconfig, words, word)
        state = vqgan_state({k: tuple(v.shape) for k, v in network.state_dict().items()})
        torch.save(lightning(state), folder / "a.ckpt")
        paths = {"ckpt_path": str(folder / "a.ckpt"), "yaml_path": str(folder / "a.yaml")}
        net = ieee8023.VQGAN(**paths).eval()
        records: dict = {"shapes": {k: list(v.shape) for k, v in state.items()}}
        size = config["resolution"]
        # Another size goes through 1.5.7's sampling without a filter.
        for side, count in ((size, 1), (size, 3), (size + 36, 1)):
            with torch.no_grad():
                z = net.encode(images(count, side))
                image = net.decode(z)
            records[f"{side}:{count}"] = {"z": record_image(z), "out": record_image(image)}
        records["gradient"] = gradient(net.double().encode, images(1, size))
        golden[name] = records
    return {"vqgan": golden}


SMALL = {"pspnet": [(96, 1), (136, 2)], "unet-resnet50": [(96, 1), (128, 2)]}
FULL = [(512, 1), (512, 2)]


def gradient(call, x: torch.Tensor) -> dict:
    """The gradient to the input of the outputs' mean square, in double precision.

    In single precision, rounding decides whether a rectifier near zero lets a gradient through.
    """
    x = x.double().requires_grad_()
    call(x).square().mean().backward()
    return record_image(x.grad)


RECORDERS = {"resnetae101": autoencoder, "pspnet": pspnet, "unet-resnet50": anatomy, "vqgan": vqgan}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("--only", choices=list(RECORDERS))
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    golden = json.loads(arguments.target.read_text()) if arguments.target.exists() else {}
    for name, recorder in RECORDERS.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                sizes = [SMALL[name] + FULL * arguments.full] if name in SMALL else []
                golden.update(recorder(Path(folder), *sizes))
    arguments.target.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{arguments.target}: {', '.join(golden)}")


if __name__ == "__main__":
    main()
