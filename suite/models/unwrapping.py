"""Finding a network's state dict in what a training script has saved.

Scripts put it into dictionaries (`state_dict`, `model`, `model_ema`, ...) beside other things, and wrappers of the
network (DistributedDataParallel, torch.compile, Lightning modules, ...) put their names before those of its tensors.
Both are recognised by the names of the network's own tensors, so no list of wrappers is needed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suite.errors import InputError
from suite.models.state_dicts import dictionaries

# Modules that stand between others, wherever they are: of torch.compile, FSDP and activation checkpointing.
BETWEEN = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}

# Wrappers before names that timm converts and that are therefore not the network's own.
BEFORE = {"module", "model", "net", "network", "backbone", "encoder"}

NUMBERS = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
)


@dataclass(frozen=True)
class StateDict:
    """The tensors of one network in a file, by names without those of its wrappers."""

    keys: tuple[str, ...]  # of the dictionaries around it
    prefix: str  # what was before its names, "" or with a dot at its end
    tensors: dict[str, Tensor]

    @property
    def place(self) -> str:
        """Where it was in the file, for messages; "" for the whole file."""
        return " in ".join([*([f"{self.prefix}*"] if self.prefix else []), *reversed(self.keys)])[:200]

    @property
    def averaged(self) -> bool:
        """Whether its names say that it is a moving average of the weights."""
        return "ema" in re.split(r"[._\W]+", ".".join((*self.keys, self.prefix)).lower())


def find_state_dict(content: Mapping[str, Any], own: Mapping[str, Tensor], path: Path) -> StateDict:
    """The state dict in `content` for a network whose own is `own`; `path` is named in messages.

    That is the one with the most tensors named as the network's, under any keys and prefix; of several, the moving
    average (timm prefers it as well). Where none has half of the names, it is the largest, which timm may know
    to convert.

    Raises InputError where `content` holds no tensors, or several networks that fit equally.
    """
    groups = _groups(content, path)
    if not groups:
        raise InputError(f"{path} holds something other than weights. Have the state_dict() alone saved.")
    fitting = [found for keys, tensors in groups for found in _under_prefixes(keys, tensors, own)]
    if not fitting:
        largest = [_without_wrappers(keys, tensors) for keys, tensors in groups]
        return max(largest, key=lambda found: (sum(t.numel() for t in found.tensors.values()), found.averaged))

    def rank(found: StateDict) -> tuple[int, int, bool]:
        names = own.keys() & found.tensors.keys()
        return len(names), sum(own[n].shape == found.tensors[n].shape for n in names), found.averaged

    best = max(fitting, key=rank)
    rivals = [f for f in fitting if f is not best and rank(f) == rank(best) and not _equal(f, best, own)]
    if rivals:
        places = " and ".join(found.place or "the top level" for found in (best, *rivals))
        raise InputError(
            f"{path} holds {len(rivals) + 1} networks that fit ({places}), and nothing says which is meant. "
            "Have the state_dict() of that one alone saved."
        )
    return best


def check_numbers(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str) -> None:
    """Raises InputError where a weight has values that would be lost: integers, complex or sparse ones."""

    def wrong(name: str, value: Tensor) -> bool:
        if value.layout != torch.strided or value.is_quantized:
            return True
        if value.dtype in NUMBERS:
            return name in own and not own[name].is_floating_point() and not name.endswith("num_batches_tracked")
        if name in own:
            return own[name].is_floating_point() or value.dtype.is_complex
        return value.dtype.is_complex or value.dtype.is_floating_point or name.endswith(("weight", "bias"))

    found = [f"{name} is {_kind(value)}" for name, value in tensors.items() if wrong(name, value)]
    if found:
        raise InputError(
            f"The weights in {where} are no plain floating-point numbers: {some(found)}. Quantised and converted "
            "weights cannot be trained further; pass the file that they were made from, with float32, float16 or "
            "bfloat16 weights."
        )


def some(items: list[str], most: int = 3) -> str:
    """The first few of `items`, and how many more there are."""
    return "; ".join(items[:most]) + (f"; and {len(items) - most} more" if items[most:] else "")


def _kind(value: Tensor) -> str:
    dtype = str(value.dtype).removeprefix("torch.")
    return dtype if value.layout == torch.strided else f"sparse {dtype}"


def _groups(content: Mapping[str, Any], path: Path) -> list[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """The tensors of each dictionary in `content`, with the keys under which it is. Outer ones come first."""
    groups: list[tuple[tuple[str, ...], dict[str, Tensor]]] = []
    for keys, group in dictionaries(content):
        tensors: dict[str, Tensor] = {}
        for key, value in group.items():
            name = ".".join(part for part in str(key).split(".") if part not in BETWEEN)
            if not isinstance(value, Tensor):
                continue
            if name in tensors:
                raise InputError(f"{path} holds {name} twice. Have the state_dict() of one network alone saved.")
            tensors[name] = value
        if tensors:
            groups.append((keys, tensors))
    return groups


def _under_prefixes(keys: tuple[str, ...], tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[StateDict]:
    """The parts of a dictionary that hold at least half of the network's names, each under a prefix of its own."""
    hits: Counter[str] = Counter()
    for name in tensors:
        start = 0
        while start >= 0:
            if name[start:] in own:
                hits[name[:start]] += 1
            start = name.find(".", start) + 1 or -1
    return [
        StateDict(keys, prefix, {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        for prefix, count in hits.items()
        if 2 * count >= len(own)
    ]


def _without_wrappers(keys: tuple[str, ...], tensors: dict[str, Tensor]) -> StateDict:
    """The dictionary without the wrappers that all of its names begin with."""
    prefix = ""
    while len(firsts := {name.removeprefix(prefix).partition(".")[0] for name in tensors}) == 1 and firsts <= BEFORE:
        prefix += f"{firsts.pop()}."
    return StateDict(keys, prefix, {name.removeprefix(prefix): value for name, value in tensors.items()})


def _equal(a: StateDict, b: StateDict, own: Mapping[str, Tensor]) -> bool:
    """Whether both give the network the same values, as a state dict does that is saved twice."""
    names = own.keys() & a.tensors.keys()
    return names == own.keys() & b.tensors.keys() and all(
        a.tensors[n].dtype == b.tensors[n].dtype and torch.equal(a.tensors[n], b.tensors[n]) for n in names
    )
