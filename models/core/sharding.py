"""Fully sharded training (FSDP2): every rank holds its share of the weights, their gradients and optimiser states.

    accelerate: {devices: 8, nodes: 1, strategy: fsdp}

Nets that do not fit on one device can be trained so; for those that do, `ddp` sends less. A block's weights are
gathered while it works and dropped again (`torch.distributed.fsdp.fully_shard`; Zhao et al. 2023). The optimisers work
on the shares (PyTorch's DTensor); Muon gathers each matrix's update once a step (`models.core.muon`).
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

BESIDE_FORWARD = ("begin_quantising",)  # methods of nets that use their weights and are called from outside


class Sharded(DDPStrategy):
    """Trains sharded copies of a task's nets. The nets themselves stay whole on the CPU and get the weights at the end.

    Checkpoints hold whole tensors, as those of any other training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whole: dict[str, nn.Module] = {}

    def model_to_device(self) -> None:
        """Shares go to the device as they are cut, so that it never holds a whole net."""

    def configure_ddp(self) -> None:
        task: Any = self.model
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        self.whole = dict(task.named_children())
        for name, net in self.whole.items():
            setattr(task, name, shard(net.cpu(), mesh))
        follow(task.configure_optimizers(), self.whole, dict(task.named_children()))
        task.to(self.root_device)  # what belongs to no net

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        super().load_optimizer_state_dict(checkpoint)
        for optimiser in self.optimizers:  # it has brought whole tensors
            for parameter, state in optimiser.state.items():
                optimiser.state[parameter] = {k: cut(v, parameter) for k, v in state.items()}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        super().save_checkpoint(apply_to_collection(checkpoint, DTensor, whole), filepath, storage_options)

    def on_train_end(self) -> None:
        task: Any = self.lightning_module
        for name, net in self.whole.items():
            net.load_state_dict({k: whole(v) for k, v in getattr(task, name).state_dict().items()})
            setattr(task, name, net)


def shard(net: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """A copy of the net of which every rank has its share: its blocks (what lies in lists) each for itself."""
    made = copy.deepcopy(net)
    for parameter in made.parameters():  # channels-last weights cannot be cut as they lie
        parameter.data = parameter.data.contiguous()
    warnings.filterwarnings("ignore", message=".*returned a view tensor.*")  # nobody writes into a block's output
    lists = (nn.ModuleList, nn.Sequential)
    blocks = [one for many in made.modules() if isinstance(many, lists) for one in many]
    for block in reversed(blocks):  # from the inside
        if any(True for _ in block.parameters()) and not isinstance(block, lists):
            fully_shard(block, mesh=mesh)
    fully_shard(made, mesh=mesh)
    for name in BESIDE_FORWARD:
        if hasattr(made, name):
            register_fsdp_forward_method(made, name)
    return made


def follow(optimisers: list[Optimizer], before: dict[str, nn.Module], after: dict[str, nn.Module]) -> None:
    """Let optimisers that were made for some nets work on others of the same shape."""
    new = {
        old: parameter
        for name, net in before.items()
        for old, parameter in zip(net.parameters(), after[name].parameters(), strict=True)
    }
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["params"] = [new[parameter] for parameter in group["params"]]


def whole(tensor: Tensor) -> Tensor:
    """A tensor from all ranks' shares, on the CPU; all of them have to ask."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def cut(tensor: Tensor, other: Any) -> Tensor:
    """A whole tensor shared out as `other` is; all ranks have to ask. One of another shape belongs to all of them."""
    if isinstance(tensor, DTensor) or tensor.shape != other.shape:
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)
