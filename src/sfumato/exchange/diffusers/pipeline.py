# mypy: ignore-errors
"""Sampling in diffusers from a model of Sfumato that has what DDPMPipeline lacks: attributes and guidance, patches,
images of any size, and other predictions than eps, x_0 and v. This file is complete; it needs torch and diffusers only.

    pipe = DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True)
    images = pipe(batch_size=4, label="sneaker", guidance=2.0).images
    images = pipe(batch_size=4, label=["glasses=dark,hat=none", "glasses=clear"]).images
"""

from __future__ import annotations

import math
from contextlib import suppress
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor

WIDTH = 0.1  # of the prediction "refined": output = x_0 - WIDTH^2 (alpha / sigma) eps
WAVES = 6  # sines, and cosines, of a number


def _weighted(table: Any, amounts: Any) -> Any:
    """The sum of a table's rows times their amounts (B, rows), in place of a look-up."""
    return amounts.to(table.weight.dtype) @ table.weight


class SfumatoPipeline(DiffusionPipeline):
    """A U-Net and a DDPMScheduler, with the settings of model_index.json.

    Args:
        unet: a UNet2DModel.
        scheduler: a DDPMScheduler.
        size: (height, width) of an image.
        patch: side of the squares of pixels that are one pixel to the network.
        multiple: the network's images are extended to a multiple of this.
        predicts: eps, x0, v, mu, velocity or refined.
        time_scale: factor of the network's time.
        attributes: what images are asked for by, {"name", "values"} or, of a number, {"name", "mean", "std"}. The
            network's table of classes has, for one after the other, with values a row for "not given" and one for each
            value; of a number a row for each wave, one that is always added, and one for "not given".
        needs_label: the model was trained with all attributes of every image.
    """

    model_cpu_offload_seq = "unet"

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        size: Any = None,
        patch: int = 1,
        multiple: int = 1,
        predicts: str = "eps",
        time_scale: float = 1.0,
        attributes: Any = (),
        needs_label: bool = False,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(
            size=size, patch=patch, multiple=multiple, predicts=predicts, time_scale=time_scale, attributes=attributes,
            needs_label=needs_label,
        )  # fmt: skip
        if attributes:
            unet.class_embedding.forward = MethodType(_weighted, unet.class_embedding)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: Any = None,
        num_inference_steps: int | None = None,
        label: Any = None,
        guidance: float = 1.0,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Sample images.

        Args:
            batch_size: how many.
            generator: of the noise.
            num_inference_steps: steps of the chain; None takes all.
            label: a value, such as "dark", or values by their attributes, "glasses=dark,age=53"; of a single attribute
                its number too; or a list of such, through which the images cycle.
            guidance: scale w of unconditional + w (conditional - unconditional).
            output_type: pil, np or pt.
            return_dict: whether the images come in an ImagePipelineOutput.
        """
        asked = self._asked(label, batch_size, guidance)
        absent = self._asked(None, batch_size, 1.0) if guidance != 1 else None
        channels, device = self.unet.config.in_channels // self.config.patch**2, self._execution_device
        image = randn_tensor(
            (batch_size, channels, *self.config.size), generator=generator, device=device, dtype=self.unet.dtype
        )
        self.scheduler.set_timesteps(num_inference_steps or self.scheduler.config.num_train_timesteps)
        for t in self.progress_bar(self.scheduler.timesteps):
            output = self.network(image, t, asked)
            if guidance != 1:
                other = self.network(image, t, absent)
                first, rest = other[:, :channels], output[:, channels:]
                output = torch.cat([first + guidance * (output[:, :channels] - first), rest], dim=1)
            output = torch.cat([self._converted(output[:, :channels], image, t), output[:, channels:]], dim=1)
            image = self.scheduler.step(output, t, image, generator=generator).prev_sample
        image = (image / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            image = image.cpu().permute(0, 2, 3, 1).float().numpy()
            image = self.numpy_to_pil(image) if output_type == "pil" else image
        return ImagePipelineOutput(images=image) if return_dict else (image,)

    def amounts(self, numbers: Any) -> Any:
        """The amounts of the table's rows, (B, rows), of a table of numbers (B, attributes): the index of a value, or a
        number less its mean by its deviation; NaN where it is not given."""
        parts = []
        for one, number in zip(self.config.attributes, numbers.unbind(1), strict=True):
            if "values" in one:
                index = torch.where(number.isnan(), 0.0, number + 1).long()
                parts.append(F.one_hot(index, len(one["values"]) + 1).float())
                continue
            angle = number.nan_to_num(0.0)[:, None] * (math.pi / 8 * 2.0 ** torch.arange(WAVES, device=number.device))
            given = torch.cat([angle.sin(), angle.cos(), torch.ones_like(angle[:, :1])], 1)
            absent = number.isnan()[:, None].float()
            parts.append(torch.cat([given * (1 - absent), absent], 1))
        return torch.cat(parts, 1)

    def _asked(self, label: Any, batch_size: int, guidance: float) -> Any:
        """The amounts that labels ask for; None where the model has no attributes."""
        attributes = self.config.attributes
        if not attributes:
            if label is not None or guidance != 1:
                raise ValueError("this model was trained without labels: leave out label and guidance")
            return None
        if label is None and guidance != 1:
            raise ValueError(f"give a label to guide towards, such as one of: {self._ways()}")
        if self.config.needs_label and guidance != 1:
            raise ValueError("this model has no unconditional prediction to guide from: leave out guidance")
        labels = label if isinstance(label, (list, tuple)) else [label]
        rows = [self._numbers(one) for one in labels]
        numbers = torch.tensor([rows[i % len(rows)] for i in range(batch_size)], device=self._execution_device)
        return self.amounts(numbers)

    def _numbers(self, label: Any) -> list[float]:
        """A number for each attribute, NaN where a label does not give it."""
        attributes, found = self.config.attributes, {}
        words = [] if label is None else [label]
        if isinstance(label, str) and not self._readings(label):
            words = [word.strip() for word in label.split(",")]
        for word in words:
            readings = self._readings(word)
            if len(readings) != 1:
                problem = f"there is no label {word!r}" if not readings else f"{word!r} has several meanings"
                raise ValueError(f"{problem}: choose from {self._ways()}")
            found |= readings
        if self.config.needs_label and len(found) < len(attributes):
            each = "" if len(attributes) == 1 else "for each attribute "
            raise ValueError(f"give a label, {each}one of: {self._ways()}")
        return [found.get(one["name"], math.nan) for one in attributes]

    def _ways(self) -> str:
        """Every label in words."""
        alone = len(self.config.attributes) == 1
        values = [(one["name"], value) for one in self.config.attributes for value in one.get("values", ["NUMBER"])]
        return ", ".join(value if alone else f"{name}={value}" for name, value in values)

    def _readings(self, word: Any) -> dict[str, float]:
        """What a word can mean: numbers by the names of attributes."""
        attributes, found = self.config.attributes, {}
        name, equals, value = (part.strip() for part in str(word).partition("="))
        for one in attributes:
            text = value if equals and name == one["name"] else word
            if text in one.get("values", ()):
                found[one["name"]] = float(one["values"].index(text))
            elif "values" in one and isinstance(word, int) and len(attributes) == 1 and 0 <= word < len(one["values"]):
                found[one["name"]] = float(word)
            elif "values" not in one and (text is not word or len(attributes) == 1):
                with suppress(ValueError):
                    found[one["name"]] = (float(text) - one["mean"]) / one["std"]
        return found

    def network(self, image: Any, t: Any, amounts: Any) -> Any:
        """The network's output for images of any size, with the amounts of its table's rows."""
        height, width = image.shape[2:]
        multiple, patch = self.config.multiple, self.config.patch
        image = F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        output = self.unet(F.pixel_unshuffle(image, patch), t * self.config.time_scale, class_labels=amounts).sample
        return F.pixel_shuffle(output, patch)[..., :height, :width]

    def _converted(self, output: Any, image: Any, t: Any) -> Any:
        """The scheduler's kind of prediction: x_0, from output = p x_0 + q eps and image = alpha x_0 + sigma eps."""
        predicts = self.config.predicts
        if predicts in ("eps", "x0", "v"):
            return output
        levels = self.scheduler.alphas_cumprod.double()
        abar = levels[int(t)]
        before = levels[int(t) - 1] if int(t) > 0 else torch.ones_like(abar)
        alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
        p, q = {
            "velocity": lambda: (-1.0, 1.0),
            "refined": lambda: (1.0, -(WIDTH**2) * alpha / sigma),
            "mu": lambda: (before.sqrt(), (abar / before).sqrt() * (1 - before) / sigma),
        }[predicts]()
        d = alpha * q - sigma * p
        return float(q / d) * image - float(sigma / d) * output
