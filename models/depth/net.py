"""The depth network: `transformers`' Depth Anything, built from plain values and started so that it learns in minutes.

What is saved is an ordinary Depth Anything checkpoint: `DepthAnythingForDepthEstimation.from_pretrained(folder)`
and `pipeline("depth-estimation", model=folder)` load it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.core import params
from data.core.params import UserError
from models.core import device, saved
from models.core.layers import sincos_2d
from models.depth.params import BackboneConfig, CheckpointConfig

T = TypeVar("T")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as Depth Anything
BLOCKS = "encoder.layer."  # the part of a parameter's name that marks the transformer blocks


def build(
    *,
    image_size: int,
    patch_size: int,
    dim: int,
    layers: int,
    heads: int,
    taps: Sequence[int],
    factors: Sequence[float],
    neck: Sequence[int],
    fusion: int,
    head: int,
) -> nn.Module:
    """A `DepthAnythingForDepthEstimation`: normalised pictures (B, 3, H, W) -> disparity (B, H, W), >= 0 in evaluation.

    H and W are multiples of `patch_size`; positions are interpolated for sizes other than `image_size`.
    """
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        image_size=image_size,
        patch_size=patch_size,
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        out_indices=list(taps),  # type: ignore[call-arg]
        reshape_hidden_states=False,
        use_mask_token=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=patch_size,
        reassemble_hidden_size=dim,
        reassemble_factors=[int(f) if f == int(f) else f for f in factors],
        neck_hidden_sizes=list(neck),
        fusion_hidden_size=fusion,
        head_hidden_size=head,
    )
    net = DepthAnythingForDepthEstimation(config)
    _initialise(net, image_size // patch_size)
    net.head.activation2 = FinalReLU()
    return for_cpu(net)


class FinalReLU(nn.ReLU):
    """ReLU, but the identity while training; it has no weights, so what is saved is unchanged.

    The losses do not care about a shift, so nothing keeps the outputs above zero, and where all of a picture is below
    it a ReLU lets no gradient back: trainings ended there at learning rates of 1.5e-3 and 2e-3.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else super().forward(x)


def for_cpu(net: Any) -> nn.Module:
    """The same net with the attention and the memory layout that are fast on CPUs in bfloat16.

    The backbone ignores `attn_implementation` of its config. On an EPYC 9004 plain attention costs
    115 ms a step instead of 140-157, channels-last convolutions 83 instead of 115.
    """
    net.backbone.set_attn_implementation("eager")
    return net.to(memory_format=torch.channels_last)


def disparity(net: nn.Module, images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) or normalised float (B, 3, H, W) pictures -> float32 disparity (B, H, W)."""
    pixels = normalise(images) if images.dtype == torch.uint8 else images
    return net(pixel_values=pixels.contiguous(memory_format=torch.channels_last)).predicted_depth.float()


def normalise(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) with ImageNet's mean and deviation taken out."""
    mean, std = torch.tensor(MEAN, device=images.device), torch.tensor(STD, device=images.device)
    return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def config_of(net: Any) -> dict[str, Any]:
    """What `config.json` has to hold for `from_pretrained`."""
    return {**net.config.to_dict(), "architectures": [type(net).__name__]}


def save_processor(folder: Path, image_size: int, patch_size: int) -> None:
    """Write the `preprocessor_config.json` that the `depth-estimation` pipeline reads beside the weights."""
    values = {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": True,
        "size": {"height": image_size, "width": image_size},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": patch_size,
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "do_pad": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def load(folder: str | Path) -> nn.Module:
    """The net saved in `folder`, ready for `predict`; UserError when no whole Depth Anything checkpoint is there."""
    from transformers import DepthAnythingForDepthEstimation
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would show a tenth of a second
    place = saved.find(folder)
    path, config = place / "config.json", saved.config(place)
    known(BackboneConfig, known(CheckpointConfig, config, f"{path}:").backbone_config, f"{path}: backbone_config")
    try:
        loaded: Any = DepthAnythingForDepthEstimation.from_pretrained(
            str(place), use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # whatever transformers says of values that do not fit together
        raise UserError(
            f"{path} describes no Depth Anything net: {' '.join(str(error).split())[:200]}; {saved.AGAIN}"
        ) from None
    net, about = loaded
    wrong = {*about["missing_keys"], *about["unexpected_keys"], *(name for name, *_ in about["mismatched_keys"])}
    if wrong:  # transformers would have drawn them at random
        raise UserError(
            f"{path} describes another net than model.safetensors: {min(wrong)} and {len(wrong) - 1} more; "
            f"{saved.AGAIN}"
        )
    return for_cpu(net).eval()


def known(cls: type[T], values: dict[str, Any], where: str) -> T:
    """What of the values has a field in the dataclass, checked."""
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    return params.build(cls, {name: value for name, value in values.items() if name in names}, where)


def predict(net: nn.Module, images: np.ndarray, batch: int = 32) -> np.ndarray:
    """Disparity, float32 (N, H, W), larger = nearer, known up to scale and shift, of pictures uint8 (N, H, W, 3).

    The net works in whole patches: where H or W is no multiple of them, the picture is brought to the nearest multiple,
    and the disparity back to the picture's size (bilinear both times).
    """
    net.eval()
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(f"pictures must be uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
    patch, size = net.config.patch_size, images.shape[1:3]  # type: ignore[union-attr]
    fitted = tuple(max(1, round(side / patch)) * patch for side in size)

    def whole(part: Tensor) -> Tensor:
        if fitted == size:
            return disparity(net, part)
        found = disparity(net, F.interpolate(normalise(part), fitted, mode="bilinear", antialias=True))
        return F.interpolate(found[:, None], size, mode="bilinear")[:, 0]

    return device.in_batches(net, whole, torch.tensor(images), batch).numpy()


def _initialise(net: Any, grid: int) -> None:
    """Weights of std 1/sqrt(fan in) (He's sqrt(2/fan in) after ReLU), small residual outputs, sine-cosine positions.

    transformers' own 0.02 everywhere leaves a net of this size without signal for its first hundreds of steps.
    """
    config = net.backbone.config
    for name, module in net.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            fan_in = module.weight[0].numel() if not isinstance(module, nn.ConvTranspose2d) else module.in_channels
            gain = 2.0 if "residual_layer" in name or name in ("head.conv2", "head.conv3") else 1.0
            if name.endswith(("o_proj", "fc2", "convolution2")):  # outputs of residual branches
                gain = 1 / (2 * config.num_hidden_layers)
            nn.init.normal_(module.weight, std=(gain / fan_in) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    embeddings = net.backbone.embeddings
    with torch.no_grad():
        embeddings.position_embeddings[:, 1:] = sincos_2d(grid, grid, config.hidden_size)
        net.head.conv3.weight.mul_(0.3)
        net.head.conv3.bias.fill_(0.3)  # off the last ReLU's dead side
