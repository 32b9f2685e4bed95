"""The trained proxy, from the folder its stage wrote."""

from pathlib import Path

from models import saved
from models.proxy.vqgan import VQGAN


def load(folder: Path) -> VQGAN:
    """The frozen VQGAN of `folder`; UserError where there is none."""
    config, state = saved.read(folder)
    net = VQGAN(**config)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)
