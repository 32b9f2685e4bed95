"""The trained proxy, from the folder its stage wrote."""

import json
from pathlib import Path

from safetensors.torch import load_file

from data.params import UserError
from models.proxy.vqgan import VQGAN


def load(folder: Path) -> VQGAN:
    """The frozen VQGAN of `folder`/model (or of `folder` itself); UserError where there is none."""
    place = folder / "model" if (folder / "model").is_dir() else folder
    if not (place / "config.json").exists():
        raise UserError(f"{place}/config.json does not exist; run the stage that trains it first (dvc repro proxy)")
    net = VQGAN(**json.loads((place / "config.json").read_text()))
    net.load_state_dict(load_file(place / "model.safetensors"))
    return net.eval().requires_grad_(False)
