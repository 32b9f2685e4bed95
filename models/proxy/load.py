"""The trained proxy, from the folder its stage wrote."""

from pathlib import Path

from data.core import params
from models.core import saved
from models.proxy.vqgan import VQGAN


def load(folder: Path) -> VQGAN:
    """The frozen VQGAN of `folder`; UserError where there is none."""
    config, state = saved.read(folder)
    arguments = params.arguments(VQGAN, config, f"{saved.find(folder) / 'config.json'}:")
    net: VQGAN = saved.restore(lambda: VQGAN(**arguments), state, folder)
    return net.requires_grad_(False)
