"""A device beside the CPU where there is none: its tensors have values and mix with no others.

Within `Elsewhere()`, what is put on "meta" keeps its values and is `There`. Work on tensors of two
devices raises, as CUDA does.
"""

from typing import ClassVar
from weakref import WeakSet

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

PLACE = "meta"
ACROSS = ("copy_", "_to_copy")  # what may take tensors of two devices


class There(torch.Tensor):
    """A tensor that says it is on the device `PLACE`."""

    alive: ClassVar = WeakSet()

    @staticmethod
    def __new__(cls, values):
        how = {"dtype": values.dtype, "device": PLACE, "strides": values.stride()}
        made = cls._make_wrapper_subclass(cls, values.shape, **how)
        made.values_here = values
        cls.alive.add(made)
        return made

    @property
    def data(self):
        return There(self.values_here)

    @data.setter
    def data(self, other):
        self.values_here = other.values_here

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """While active, there is the device `PLACE`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def put(model):
    """Put a model on the device and return it."""
    model.module.to(PLACE)
    return model


def bytes_there():
    """Return how many bytes are on the device, each storage once."""
    with _disable_current_modes():
        held = (W.values_here.untyped_storage() for W in There.alive)
        return sum({s.data_ptr(): s.nbytes() for s in held}.values())


def _run(func, args, kwargs):
    """Do on the CPU what is asked, and wrap what is made on the other device."""
    name, device = func.overloadpacket.__name__, kwargs.get("device")
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = {id(x.values_here): x for x in given if isinstance(x, There)}
    if there and name not in ACROSS and any(x.dim() and not isinstance(x, There) for x in given):
        raise RuntimeError(f"{name}: tensors on two devices")
    wraps = bool(there) if device is None else torch.device(device).type == PLACE
    if device is not None:
        kwargs = {**kwargs, "device": "cpu"}

    def wrapped(x):
        made = There(x) if wraps and isinstance(x, torch.Tensor) else x
        return there.get(id(x), made)

    plain = tree_map(lambda x: x.values_here if isinstance(x, There) else x, (args, kwargs))
    made = func(*plain[0], **plain[1])
    if name == "copy_":
        return args[0]
    if name == "_to_copy" and any(made is x for x in given):
        made = made.clone()
    return tree_map(wrapped, made)
