"""A pretend GPU: tensors on device `pretend` compute on the CPU, and refuse to meet tensors that are not there.

    pretend.install()                  # for good: in a process of its own
    net = net.to("pretend")
    net(torch.zeros(2, 3))             # RuntimeError: ... at least two devices

What a GPU would refuse, it refuses too: operations over two devices (but for a single number, and an index), a random
generator of another device, `.numpy()`. Values are the CPU's, so what comes out can be compared digit by digit.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from models.core import device, training

NAME = "pretend"
LIBRARIES = [torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL")]
operations: Counter[Any] = Counter()  # on the device, up to now
aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
COPYING = {aten.copy_.default, aten._to_copy.default}


class OnDevice(Tensor):
    """A tensor of the pretend GPU; `held` is the one on the CPU that it stands for."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnDevice({self.held})"

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert a {NAME} tensor to numpy; use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Tensors that are made on the device: no other tensor says so."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Module(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class Generator(torch.Generator):
    """Draws what a generator of the CPU draws, on either device."""

    device = torch.device("cpu")  # type: ignore[assignment]

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        made = super().__new__(cls)
        made.device = torch.device(device)
        return made

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()


class Accelerator(CPUAccelerator):
    """One pretend GPU, for Lightning."""

    def setup_device(self, device: torch.device) -> None:
        """Nothing to set up."""


class _Generators(TorchFunctionMode):
    """Numbers are drawn by a generator of the device that they are for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (generator := kwargs.get("generator")) is not None:
            place = torch.device(kwargs.get("device") or next((x.device for x in args if isinstance(x, Tensor)), "cpu"))
            if generator.device.type != place.type:
                raise RuntimeError(f"expected a '{place.type}' generator but found '{generator.device.type}'")
        return func(*args, **kwargs)


def install() -> None:
    """Let this process have the device, and Remint find it."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    ours, everything = LIBRARIES
    for name in ("empty_strided", "empty.memory_format"):  # torch.tensor makes its tensor without asking a mode
        ours.impl(name, partial(_made, getattr(aten, name.split(".")[0])), "PrivateUse1")
    ours.impl("_copy_from", _copy_from, "PrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    torch.__future__.set_swap_module_params_on_conversion(True)  # a moved parameter stays the object that it was
    torch.Generator = Generator  # type: ignore[misc]
    device.best = lambda: torch.device(NAME, 0)
    training.Trainer = _trainer  # type: ignore[assignment, misc]
    _Factories().__enter__()
    _Generators().__enter__()


def _made(func: Any, *args: Any, **kwargs: Any) -> OnDevice:
    return OnDevice(func(*args, **kwargs | {"device": "cpu"}))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    held = target.held if isinstance(target, OnDevice) else target
    held.copy_(source.held if isinstance(source, OnDevice) else source)
    return target


def _trainer(**arguments: Any) -> Trainer:
    strategy = SingleDeviceStrategy(torch.device(NAME, 0), Accelerator())
    return Trainer(**arguments | {"accelerator": "auto", "strategy": strategy})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    there = [one for one in tensors if isinstance(one, OnDevice)]
    _refuse_two_devices(func, tensors, there)
    asked = kwargs.get("device")
    asked_here = asked is not None and torch.device(asked).type == NAME
    if func is aten.copy_.default:
        result_there = isinstance(args[0], OnDevice)
    else:
        result_there = asked_here if asked is not None else bool(there)
    if asked_here:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*tree_map_only(OnDevice, _held, args), **tree_map_only(OnDevice, _held, kwargs))
    if not result_there:
        return out
    operations[func] += 1
    known = {id(one.held): one for one in there}  # what was changed in place stays the tensor that it was
    return tree_map_only(Tensor, lambda one: known.get(id(one)) if id(one) in known else OnDevice(one), out)


def _held(one: OnDevice) -> Tensor:
    return one.held


def _refuse_two_devices(func: Any, tensors: list[Tensor], there: list[OnDevice]) -> None:
    others = [one for one in tensors if not isinstance(one, OnDevice) and one.ndim > 0]
    by_index = func in INDEXING and isinstance(tensors[0], OnDevice)
    if there and others and func not in COPYING and not by_index:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found at least two devices")
