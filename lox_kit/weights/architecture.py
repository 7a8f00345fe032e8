"""Where a checkpoint's tensors are in the model that transformers makes of it.

Names on disk are not names in memory: transformers renames tensors when it loads them and fuses
some, so that the experts of Mixtral, matrices on disk, are slices of one 3-D parameter. It can undo
that, to save them. Here the undoing runs on tensors that have no values (the meta device) and on no
copies, so that every tensor, as it would be saved, comes out as a view of a parameter: its place.

This module and `library` alone touch the inner parts of transformers.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .library import loading

if TYPE_CHECKING:
    from transformers import PreTrainedModel
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$|^head\.weight$")
_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|embeddings|tok_embeddings)\.weight$"
)
BESIDE = (
    r"(rotary_emb\.inv_freq|position_ids|\.att(n|ention)\.((masked_)?bias|causal_mask))$|^v_head\."
)


class Piece(NamedTuple):
    """Some rows of a tensor as it is saved: a view of one parameter, or of one stored tensor."""

    parameter: str
    rows: tuple[int, int]  # of the saved tensor: from, to
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def of(self, W: Tensor) -> Tensor:
        """Return the view of the parameter's values."""
        return W.as_strided(self.shape, self.stride, W.storage_offset() + self.offset)

    def within(self, shape: tuple[int, ...]) -> tuple[int, slice, bool]:
        """Return which matrix of a parameter of this shape, which rows, and if it is transposed."""
        rows, columns = shape[-2:]
        matrix, start = divmod(self.offset, rows * columns)
        transposed, first = self.stride[-1] != 1, start // columns
        return matrix, slice(first, first + self.shape[transposed]), transposed


Place = tuple[Piece, ...]  # one piece, or several one below the other


def shape_of(place: Place) -> tuple[int, ...]:
    """Return the shape of the saved tensor."""
    return (place[-1].rows[1], *place[0].shape[1:]) if place and place[0].shape else ()


def values_of(place: Place, parameters: Mapping[str, Tensor]) -> Tensor:
    """Return the values of a saved tensor: a view of a parameter, or several joined."""
    parts = [piece.of(parameters[piece.parameter]) for piece in place]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def saved_places(module: torch.nn.Module) -> dict[str, Place]:
    """Return the place of every tensor of a model, by the names published; experts one by one.

    Left out are what is tied to another tensor, and what is saved as a rearrangement of parameters,
    no rows of which are a view.
    """
    state = module.state_dict(keep_vars=True)
    once = set({id(W): name for name, W in reversed(state.items())}.values())
    places = _split_experts(module, _published(module)).items()
    return {n: place for n, place in places if all(piece.parameter in once for piece in place)}


def find_places(module: torch.nn.Module, names: Iterable[str]) -> dict[str, Place]:
    """Return the places of named tensors; a name that the model does not know is left out.

    A tensor may have any name by which transformers loads it: the one it is published by, that of
    a parameter, or one with or without the model's prefix.
    """
    own = _parameters(module)
    known = _split_experts(module, _published(module))
    known |= {name: (_piece(name, W),) for name, W in own.items()}
    prefix = f"{getattr(module, 'base_model_prefix', '')}."
    found = {}
    for name in names:
        aliases = (name, prefix + name, name.removeprefix(prefix))
        alias = next((a for a in aliases if a in known), None) or _renamed(module, name, own)
        if alias in known:
            found[name] = known[alias]
    return found


def same_tensors(
    module: torch.nn.Module, names: Iterable[str], others: Iterable[str]
) -> dict[str, str]:
    """Return for each name of a tensor the one that it has among `others`, or itself."""
    known = {place: name for name, place in find_places(module, others).items()}
    places = find_places(module, names)
    return {name: known.get(places.get(name, ()), name) for name in names}


def stored_places(
    module: torch.nn.Module, tensors: Mapping[str, tuple[int, ...]]
) -> dict[str, Piece]:
    """Return the matrices within the 3-D tensors of a checkpoint, by the names published for them.

    Parameters
    ----------
    module : torch.nn.Module
        The `skeleton` of the checkpoint.
    tensors : mapping of name to shape
        Of stored tensors, which may be experts, as they are published or as they are in memory.

    Returns
    -------
    dict of str to Piece
        The piece's `parameter` is the stored tensor; none for those of convolutions.
    """
    published, own = _published(module), _parameters(module)
    matrices = _split_experts(module, published)
    within: dict[str, Piece] = {}
    for name, shape in tensors.items():
        if name in published:
            W = torch.empty(shape, device="meta")
            if tuple(shape) != shape_of(published[name]) == tuple(W.mT.shape):
                W = W.mT  # transposed when it is loaded
            if not any(is_convolution(module, piece.parameter) for piece in published[name]):
                within |= _experts(name, _piece(name, W))
        else:
            parameter = name if name in own else _renamed(module, name, own)
            for matrix, (piece, *others) in matrices.items():
                if piece.parameter == parameter and not others:
                    within[matrix] = piece._replace(parameter=name)
    return within


def is_convolution(module: torch.nn.Module, parameter: str) -> bool:
    """Whether a parameter is the kernel of a convolution, which is no matrix."""
    owner = module.get_submodule(parameter.rpartition(".")[0])
    return isinstance(owner, torch.nn.modules.conv._ConvNd)


def is_embedding(name: str) -> bool:
    """Whether a tensor's name is that of a token embedding."""
    return bool(_EMBEDDING.search(name))


def is_head(name: str) -> bool:
    """Whether a tensor's name is that of the output head."""
    return bool(_HEAD.search(name))


def is_beside(module: torch.nn.Module | None, name: str) -> bool:
    """Whether a stored tensor that a model lacks is none of its weights.

    Such are the frequencies and masks that older versions of transformers stored, the value head of
    TRL, and what the architecture passes over: layers that predict further tokens.
    """
    unread = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    return any(re.search(pattern, name) for pattern in (BESIDE, *unread))


def tied_parameters(module: torch.nn.Module) -> dict[str, str]:
    """Return the parameters that the architecture ties, each with the one that it is."""
    return dict(getattr(module, "all_tied_weights_keys", None) or {})


def unfilled_parameters(module: torch.nn.Module, names: Iterable[str]) -> list[str]:
    """Return the parameters of which a checkpoint with these tensors does not hold all values."""
    tied = {name for pair in tied_parameters(module).items() for name in pair}
    optional = getattr(module, "_keys_to_ignore_on_load_missing", None) or ()
    held: Counter[str] = Counter()
    for place in find_places(module, names).values():
        held.update({piece.parameter: math.prod(piece.shape) for piece in place})
    return [
        name
        for name, W in module.state_dict().items()
        if held[name] < W.numel() and name not in tied
        if not any(re.search(pattern, name) for pattern in optional)
    ]


def _parameters(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return what a model's state dict holds, without its values; tied parameters too."""
    state = module.state_dict(keep_vars=True)
    return {n: torch.empty_like(W, device="meta") for n, W in state.items()}


def _piece(parameter: str, V: Tensor, row: int = 0) -> Piece:
    """Return a view of a parameter as the rows of a saved tensor from this one on."""
    rows = (row, row + (len(V) if V.ndim else 1))
    return Piece(parameter, rows, tuple(V.shape), tuple(V.stride()), int(V.storage_offset()))


def _split_experts(module: torch.nn.Module, places: Mapping[str, Place]) -> dict[str, Place]:
    """Return the places, those of 3-D tensors that are stacks of matrices one by one."""
    split: dict[str, Place] = {}
    for name, place in places.items():
        stack = len(place) == 1 and len(place[0].shape) == 3 and min(place[0].shape) > 1
        if stack and not is_convolution(module, place[0].parameter):
            split |= {expert: (piece,) for expert, piece in _experts(name, place[0]).items()}
        else:
            split[name] = place
    return split


def _experts(name: str, stack: Piece) -> dict[str, Piece]:
    """Return the matrices of a stack by names of their own: `experts.w` as `experts.0.w`, ..."""
    path, weight = (name[:-7], ".weight") if name.endswith(".weight") else (name, "")
    parent, _, leaf = path.rpartition(".")
    count, *shape = stack.shape
    first = stack._replace(rows=(0, shape[0]), shape=tuple(shape), stride=stack.stride[1:])
    return {
        f"{parent}.{i}.{leaf}{weight}": first._replace(offset=stack.offset + i * stack.stride[0])
        for i in range(count)
    }


class _AsViews(TorchFunctionMode):
    """While active nothing is copied to be contiguous, and what is joined is remembered."""

    def __init__(self):
        self.joined: dict[int, list[Tensor]] = {}  # by the storage of the result
        self.kept: list[Tensor] = []  # so that no storage is used twice

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.contiguous:
            return args[0]
        made = func(*args, **(kwargs or {}))
        if func is torch.cat and (kwargs or {}).get("dim", args[1] if len(args) > 1 else 0) == 0:
            self.joined[_storage(made)] = list(args[0])
            self.kept.append(made)
        return made


def _storage(W: Tensor) -> int:
    return W.untyped_storage()._cdata


def _published(module: torch.nn.Module) -> dict[str, Place]:
    """Return where every tensor comes from that a model is saved as when it is published."""
    own = _parameters(module)
    if not hasattr(module, "base_model_prefix"):
        return {name: (_piece(name, W),) for name, W in own.items()}
    from transformers.core_model_loading import revert_weight_conversion

    names = {_storage(W): name for name, W in own.items()}
    made, views = copy.copy(module), _AsViews()
    vars(made)["_weight_conversions"] = None  # not those that loaded it: all of its architecture
    with loading, views:
        saved = revert_weight_conversion(cast("PreTrainedModel", made), own)
    places = {}
    for name, V in saved.items():
        parts = views.joined.get(_storage(V), [V])
        if all(_storage(part) in names for part in parts):
            starts = itertools.accumulate(map(len, parts[:-1]), initial=0)
            places[name] = tuple(
                _piece(names[_storage(part)], part, row)
                for part, row in zip(parts, starts, strict=True)
            )
    return places


def _renamed(module: torch.nn.Module, name: str, own: Mapping[str, Tensor]) -> str | None:
    """Return the parameter that a stored tensor is the whole of, as transformers renames it."""
    if not hasattr(module, "base_model_prefix"):
        return name
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    known = get_model_conversion_mapping(cast("PreTrainedModel", module))
    renamings = [c for c in known if isinstance(c, WeightRenaming)]
    others = [c for c in known if isinstance(c, WeightConverter)]
    prefix = str(module.base_model_prefix)
    renamed, part = rename_source_key(name, renamings, others, prefix, dict(own))
    if renamed not in own:
        renamed, part = rename_source_key(name, [], [], prefix, dict(own))
    return renamed if part is None else None
