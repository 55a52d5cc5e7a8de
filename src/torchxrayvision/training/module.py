"""The run as Lightning sees it: what a step computes, what an epoch is judged by."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from torchxrayvision.training.augment import augment, augment_masks, draw, mix
from torchxrayvision.training.images.prepared import from_stored
from torchxrayvision.training.objectives import objective_of
from torchxrayvision.training.order import BatchDataset, Batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torchxrayvision.models import XRayModel
    from torchxrayvision.training.images.prepared import PreparedImages
    from torchxrayvision.training.recipe import Recipe


@contextmanager
def seeded(*numbers: int, device: torch.device | None = None) -> Iterator[None]:
    """Give torch's generators a state that depends on the numbers, and the caller's back after.

    Args:
        *numbers: Anything that tells this draw from others.
        device: The accelerator whose generator is lent too.
    """
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
    used = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=used):
        torch.manual_seed(seed)
        yield


class Training(LightningModule):
    """One network on its way through a recipe.

    Every random number is a function of (seed, epoch, sample) or of (seed, step, process), so the
    state of a run holds no generator.

    Args:
        network: A classifier, an autoencoder or a segmenter, as the recipe says.
        recipe: The recipe.
        train: Images that it learns from.
        validation: Images that it is judged by, or None.
        facts: What a resumed run is compared with.

    Attributes:
        history: One dict of figures per epoch.
    """

    def __init__(
        self,
        network: XRayModel,
        recipe: Recipe,
        train: PreparedImages,
        validation: PreparedImages | None,
        facts: dict[str, Any],
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.train_images, self.validation_images = train, validation
        self.history: list[dict[str, Any]] = []
        self._facts = facts
        self._position = (0, 0)
        self._judged: tuple[Tensor, Tensor]
        self._batches: Batches
        self.objective = objective_of(recipe, train)
        if recipe.trainable == "head":
            network.requires_grad_(requires_grad=False)
            head: Any = network.head
            head.requires_grad_(requires_grad=True)
        self.average: AveragedModel | None = None
        if recipe.ema:
            averaged = AveragedModel(network, multi_avg_fn=_ema(recipe.ema), use_buffers=True)
            self.average = averaged.requires_grad_(requires_grad=False)

    @property
    def eval_network(self) -> XRayModel:
        """The network that is validated and kept: the average, where there is one."""
        if self.average is None:
            return self.network
        inner: Any = self.average.module
        kept: XRayModel = inner
        return kept

    # Data

    def train_dataloader(self) -> Any:
        """Batches of this process, from where the run stands."""
        recipe = self.recipe
        self._batches = Batches(
            len(self.train_images),
            recipe.batch_size,
            recipe.seed,
            self.trainer.global_rank,
            self.trainer.world_size,
        )
        self._batches.set_epoch(*self._position)
        return _loader(self.train_images, self._batches)

    def val_dataloader(self) -> Any:
        """Batches of this process, in order; none if nothing validates."""
        if self.validation_images is None:
            return []
        place = self.trainer.global_rank, self.trainer.world_size
        size = self.recipe.batch_size
        batches = Batches(len(self.validation_images), size, None, *place)
        return _loader(self.validation_images, batches)

    # Steps

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:  # noqa: ARG002
        """The loss of one batch."""
        images, truth = self._augmented(batch)
        total = self._total if self.trainer.world_size > 1 else None
        with seeded(self.recipe.seed, self.global_step, self.global_rank, device=self.device):
            loss = self.objective.loss(self.network, images, truth, total)
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(truth))
        return loss

    def _augmented(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        recipe, indices, epoch = self.recipe, batch["indices"], batch["epoch"]
        draws = draw(indices, seed=recipe.seed, epoch=epoch)
        images = from_stored(batch["pixels"])
        images = augment(images, draws, recipe.augmentation, recipe.resolution)
        truth = batch["labels"]
        if "masks" in batch:
            masks = augment_masks(batch["masks"], draws, recipe.augmentation, recipe.resolution)
            truth = _unless_unknown(masks, truth)
        if recipe.augmentation.mixup:
            images, truth = mix(
                images,
                truth,
                indices,
                alpha=recipe.augmentation.mixup,
                seed=recipe.seed,
                epoch=epoch,
            )
        return self._ordered(images), truth

    def _ordered(self, images: Tensor) -> Tensor:
        last = self.recipe.channels_last
        return images.contiguous(memory_format=torch.channels_last) if last else images

    def _total(self, counts: Tensor) -> Tensor:
        # The counts are integers, so their sum is exact in any order.
        summed: Tensor = self.trainer.strategy.reduce(counts.detach().clone(), reduce_op="sum")
        return summed

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Move the weights, then the average after them."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Keep the statistics of frozen features as they are.

        Not at the start of the epoch, which a run that goes on within one does not pass.
        """
        if self.recipe.trainable == "head" and self.network.training:
            self.network.eval()

    # Validation

    def on_validation_epoch_start(self) -> None:
        """Make room for the numbers of every image."""
        images = self.validation_images
        count = 0 if images is None else len(images)
        self._judged = (
            torch.zeros(count, self.objective.numbers, device=self.device),
            torch.zeros(count, 1, device=self.device),
        )

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # noqa: ARG002
        """Judge one batch."""
        images = self._ordered(from_stored(batch["pixels"]))
        judged, seen = self._judged
        truth = batch["labels"]
        if "masks" in batch:
            truth = _unless_unknown(batch["masks"].float(), truth)
        judged[batch["indices"]] = self.objective.judge(self.eval_network, images, truth)
        seen[batch["indices"]] = 1

    def on_validation_epoch_end(self) -> None:
        """Figures of the epoch."""
        images = self.validation_images
        if images is None:
            return
        judged, seen = self._judged
        if self.trainer.world_size > 1:
            judged = self.trainer.strategy.reduce(judged, reduce_op="sum")
            seen = self.trainer.strategy.reduce(seen, reduce_op="sum")
        judged = (judged / seen).cpu()
        labels = torch.from_numpy(images.labels)
        figures, details = self.objective.figures(judged, labels)
        self.history.append({"epoch": self.current_epoch, **figures, **details})
        self.log_dict(figures, prog_bar=True)
        for kind, values in details.items():
            self.log_dict({f"val_{kind}/{name}": value for name, value in values.items()})

    # Optimiser

    def configure_optimizers(self) -> Any:
        """The optimiser, and the schedule step by step."""
        named = [p for p in self.network.parameters() if p.requires_grad]
        how = self.recipe.optimiser
        groups = [
            {"params": [p for p in named if p.dim() > 1], "weight_decay": how.weight_decay},
            {"params": [p for p in named if p.dim() <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimiser: torch.optim.Optimizer
        if how.name == "sgd":
            optimiser = torch.optim.SGD(
                groups, lr=how.lr, momentum=how.momentum, nesterov=how.momentum > 0
            )
        else:
            kind = torch.optim.AdamW if how.name == "adamw" else torch.optim.Adam
            optimiser = kind(groups, lr=how.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._lr_factor)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _lr_factor(self, step: int) -> float:
        per_epoch = len(Batches(len(self.train_images), self.recipe.batch_size, seed=0))
        total = per_epoch * self.recipe.epochs
        how = self.recipe.schedule
        warm = round(how.warmup * total)
        if step < warm:
            return (step + 1) / warm
        done = min((step - warm) / max(total - warm, 1), 1.0)
        falls = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
        return how.floor + (1 - how.floor) * falls[how.kind]

    # State

    def set_position(self, epoch: int, batch: int) -> None:
        """Say where in the run, epoch and batch, the next state stands."""
        self._position = (epoch, batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know."""
        checkpoint["position"] = self._position
        checkpoint["history"] = self.history
        checkpoint["facts"] = self._facts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        self._position = checkpoint["position"]
        self.history = checkpoint["history"]


def _unless_unknown(masks: Tensor, labels: Tensor) -> Tensor:
    """Masks (B, P, S, S), NaN throughout where the label (B, P) is."""
    return masks.masked_fill(labels.isnan()[:, :, None, None], math.nan)


def _loader(images: PreparedImages, batches: Batches) -> Any:
    # Rows of a memory map are there at once: worker processes would only copy them once more.
    # A loader draws a seed when it starts; a generator of its own leaves torch's alone.
    own = torch.Generator()
    return torch.utils.data.DataLoader(
        BatchDataset(images), sampler=batches, batch_size=None, num_workers=0, generator=own
    )


def _ema(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    @torch.no_grad()
    def move(averages: list[Tensor], currents: list[Tensor], updates: Tensor | int) -> None:
        done = int(updates)
        # A short memory at first, or the random weights of the start would linger.
        now = min(decay, (1 + done) / (10 + done))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, 1 - now)
        else:  # counts of batches
            torch._foreach_copy_(averages, currents)

    return move
