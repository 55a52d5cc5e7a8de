"""What every autoencoder gives: a code, the image that it stands for, and both by name."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.models import Prediction, XRayModel, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Autoencoder(XRayModel):
    """Base of the networks that draw the image that they were given from a small code.

    Input is a float tensor (B, 1, S, S) in [-1024, 1024]. A network of your own derives from this
    class and gives `_code`, `_image` and `_embed`; `training` and `screening` then take it.

    Attributes:
        architecture: Name by which `get_autoencoder` builds it.
    """

    output_names = ("z", "out")
    output_kind: ClassVar[str] = "image"
    output_kinds: ClassVar[tuple[str, ...]] = ("code", "image")  # of each output
    architecture: str

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments that `get_autoencoder` needs besides the name, to build the same network."""
        return {}

    @abc.abstractmethod
    def _code(self, x: Tensor) -> Tensor:
        """The code of prepared images."""

    @abc.abstractmethod
    def _image(self, z: Tensor) -> Tensor:
        """The images of codes."""

    def encode(self, x: Tensor, check_resolution: bool = True) -> Tensor:
        """The code of each image.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].
            check_resolution: False takes the images as they are, whatever their size.

        Returns:
            Shape (B, C, H, W).

        Raises:
            ImageShapeError: If there are weights that take another resolution, and the network
                does not resize.
        """
        return self._code(self.prepare(x) if check_resolution else checked(x, self))

    def features(self, x: Tensor) -> Tensor:
        """The code of each image, under the name of 1.5.7; the same as `encode`.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, C, H, W).
        """
        return self.encode(x)

    def decode(self, z: Tensor, image_size: Sequence[int] | None = None) -> Tensor:
        """The image of each code.

        Args:
            z: Codes, shape (B, C, H, W), as `encode` gives them.
            image_size: Shape that the images must have; its last two numbers are compared. None
                takes what comes.

        Returns:
            Shape (B, 1, S, S), nominally in [-1024, 1024]; not clipped.

        Raises:
            ImageShapeError: If the codes give images of another size.
        """
        image = self._image(z)
        if image_size is not None and tuple(image.shape[-2:]) != tuple(image_size)[-2:]:
            side = getattr(self, "input_resolution", 224)
            msg = (
                f"these codes give images of {tuple(image.shape[-2:])}, not of "
                f"{tuple(image_size)[-2:]}; encode images of {side} x {side} pixels, or leave "
                "image_size out"
            )
            raise ImageShapeError(msg)
        return image

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Encode and decode.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            `"z"`, the codes (B, C, H, W), and `"out"`, the images (B, 1, R, R) at the resolution R
            of the network.
        """
        z = self.encode(x)
        return {"z": z, "out": self.decode(z)}

    def predict(self, x: Tensor) -> Prediction:
        """The reconstruction, by name.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            `"Reconstruction"`, shape (B, R, R), of kind `"image"`; nothing if untrained.
        """
        named = {"Reconstruction": self(x)["out"][:, 0]} if any(self.trained) else {}
        return Prediction("image", named)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> dict[str, Tensor]: ...  # type: ignore[override] # noqa: D102
