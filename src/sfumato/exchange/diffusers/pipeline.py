# mypy: ignore-errors
"""Sampling in diffusers from a model of Sfumato that has what DDPMPipeline lacks: labels and guidance, patches, images
of any size, and other predictions than eps, x_0 and v. This file is complete; it needs torch and diffusers only.

    pipe = DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True)
    images = pipe(batch_size=4, label="sneaker", guidance=2.0).images
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor

WIDTH = 0.1  # of the prediction "refined": output = x_0 - WIDTH^2 (alpha / sigma) eps


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
        labels: names of the classes; class k is row k + 1 of the network's table, row 0 is "not given".
        needs_label: the model was trained without a row for "not given".
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
        labels: Any = None,
        needs_label: bool = False,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(
            size=size, patch=patch, multiple=multiple, predicts=predicts, time_scale=time_scale, labels=labels,
            needs_label=needs_label,
        )  # fmt: skip

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
            label: a class by name or number, or a list of them through which the images cycle.
            guidance: scale w of unconditional + w (conditional - unconditional).
            output_type: pil, np or pt.
            return_dict: whether the images come in an ImagePipelineOutput.
        """
        rows = self._rows(label, batch_size, guidance)
        channels, device = self.unet.config.in_channels // self.config.patch**2, self._execution_device
        image = randn_tensor(
            (batch_size, channels, *self.config.size), generator=generator, device=device, dtype=self.unet.dtype
        )
        self.scheduler.set_timesteps(num_inference_steps or self.scheduler.config.num_train_timesteps)
        for t in self.progress_bar(self.scheduler.timesteps):
            output = self._network(image, t, rows)
            if guidance != 1:
                other = self._network(image, t, torch.zeros_like(rows))
                first, rest = other[:, :channels], output[:, channels:]
                output = torch.cat([first + guidance * (output[:, :channels] - first), rest], dim=1)
            output = torch.cat([self._converted(output[:, :channels], image, t), output[:, channels:]], dim=1)
            image = self.scheduler.step(output, t, image, generator=generator).prev_sample
        image = (image / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            image = image.cpu().permute(0, 2, 3, 1).float().numpy()
            image = self.numpy_to_pil(image) if output_type == "pil" else image
        return ImagePipelineOutput(images=image) if return_dict else (image,)

    def _rows(self, label: Any, batch_size: int, guidance: float) -> Any:
        """The rows of the network's table of classes; None where it has none."""
        names = self.config.labels
        if names is None:
            if label is not None or guidance != 1:
                raise ValueError("this model was trained without labels: leave out label and guidance")
            return None
        if label is None and (self.config.needs_label or guidance != 1):
            raise ValueError(f"give a label, one of: {', '.join(names)}")
        if self.config.needs_label and guidance != 1:
            raise ValueError("this model has no unconditional prediction to guide from: leave out guidance")
        given = [] if label is None else label if isinstance(label, list | tuple) else [label]
        for one in given:
            if one not in names and not (isinstance(one, int) and 0 <= one < len(names)):
                raise ValueError(f"there is no label {one!r}: choose from {', '.join(names)}")
        index = [1 + (names.index(one) if one in names else one) for one in given] or [0]
        return torch.tensor([index[i % len(index)] for i in range(batch_size)], device=self._execution_device)

    def _network(self, image: Any, t: Any, rows: Any) -> Any:
        """The network's output for images of any size."""
        height, width = image.shape[2:]
        multiple, patch = self.config.multiple, self.config.patch
        image = F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        output = self.unet(F.pixel_unshuffle(image, patch), t * self.config.time_scale, class_labels=rows).sample
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
