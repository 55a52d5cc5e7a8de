"""What happens beside the steps: weights are kept, states to resume from, an early end."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping

from torchxrayvision.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from lightning.pytorch import LightningModule, Trainer


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is whole or as it was; NaN becomes null."""
    with write_atomically(path) as part, part.open("x", encoding="utf-8") as file:
        json.dump(_nullable(content), file, indent=1, allow_nan=False)


def _nullable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nullable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_nullable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class KeepWeights(Callback):
    """Writes `best` when the monitored figure grows, and `last` at the end of each epoch.

    Args:
        folder: Where to.
        facts: What the header and the JSON file beside say besides figures.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self._folder, self._facts = folder, facts
        self._best = -math.inf

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if they are the best so far."""
        history: Any = pl_module.history
        objective: Any = pl_module.objective
        score = history[-1][objective.monitored]
        # Without any figure (no positive case) the first weights stand until one is known.
        if score > self._best or len(history) == 1:
            self._best = -math.inf if math.isnan(score) else score
            self._keep(trainer, pl_module, "best")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights as the latest."""
        self._keep(trainer, pl_module, "last")

    def _keep(self, trainer: Trainer, pl_module: LightningModule, name: str) -> None:
        if not trainer.is_global_zero:
            return
        history: Any = pl_module.history
        network: Any = pl_module.eval_network
        figures = _nullable(history[-1]) if history else {}
        facts = {"epoch": trainer.current_epoch, "metrics": figures, **self._facts}
        objective: Any = pl_module.objective
        described = objective.save(network, self._folder / f"{name}.safetensors", facts)
        write_json(self._folder / f"{name}.json", described)

    def state_dict(self) -> dict[str, Any]:
        """The best figure so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self._best = state_dict["best"]


class ResumePoints(Checkpoint):
    """Writes the state of the run every so many steps, and at the end of each epoch.

    Args:
        path: The one file, replaced each time.
        every: Steps; 0 for ends of epochs only.
    """

    def __init__(self, path: Path, every: int) -> None:
        self._path, self._every = path, every

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ARG002 - of Lightning
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Write one if it is time; the end of an epoch has its own."""
        due = self._every and trainer.global_step % self._every == 0
        if due and batch_idx + 1 < trainer.num_training_batches:
            self._write(trainer, pl_module, trainer.current_epoch, batch_idx + 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write one after validation."""
        self._write(trainer, pl_module, trainer.current_epoch + 1, 0)

    def _write(self, trainer: Trainer, pl_module: LightningModule, epoch: int, batch: int) -> None:
        module: Any = pl_module
        module.set_position(epoch, batch)
        trainer.save_checkpoint(self._path)


class EpochFigures(Callback):
    """Hands the figures of each epoch to a function.

    Args:
        function: Takes `epoch`, `train_loss` and what the history says of the epoch.
    """

    def __init__(self, function: Callable[[Mapping[str, Any]], None]) -> None:
        self._function = function

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand them on, after validation."""
        if trainer.is_global_zero:
            history: Any = pl_module.history
            loss = float(trainer.callback_metrics["train_loss"])
            epoch = {"epoch": trainer.current_epoch, "train_loss": loss}
            self._function({**(history[-1] if history else {}), **epoch})


class StopEarly(EarlyStopping):
    """Lightning's, which forgets across a resume that it had already said stop."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Say it again."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
