"""Reading state dicts from files that may be damaged or hostile.

Files are read by safetensors, or by PyTorch's weights-only unpickler
(https://docs.pytorch.org/docs/stable/notes/serialization.html#weights-only), which accepts nothing but tensors in
plain containers, so that a file cannot run code.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from suite.errors import InputError

PICKLES = (".pth", ".pt", ".bin")  # suffixes of files in PyTorch's own format

WRAPPERS = ("state_dict", "model")  # keys under which training scripts save the weights beside other things

NAME_PREFIXES = ("module.", "_orig_mod.")  # of parameters in DistributedDataParallel and in torch.compile


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors from a .safetensors, .pth, .pt or .bin file, on the CPU.

    Dictionaries that training scripts put around the weights and name prefixes of wrapped models are removed. Raises
    InputError unless the file is complete and holds nothing but tensors.
    """
    path = Path(path)
    return decode(read_file(path), path)


def read_file(path: Path) -> bytes:
    """The content of a file of weights. Raises InputError where it cannot be read.

    It is read into memory at once, so that what is hashed and what is decoded are the same bytes.
    """
    if path.exists() and not path.is_file():  # reading a device or a pipe may never end
        raise InputError(f"The weights in {path} cannot be read: it is no plain file.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"The weights in {path} cannot be read: {error.strerror}. Check the path.") from error


def decode(data: bytes, path: Path) -> dict[str, Tensor]:
    """`read_tensors` for the content `data` of the file `path`."""
    if path.suffix not in (".safetensors", *PICKLES):
        raise InputError(f"{path} is no file of weights: pass a .safetensors, .pth, .pt or .bin file.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(data)
        content: Any = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(
            f"{path} was not loaded: it is damaged, or holds Python objects beside tensors, and such objects "
            "can run code. Have the weights alone saved, best as .safetensors."
        ) from error
    except Exception as error:  # on damaged and hostile files both libraries raise almost anything
        raise InputError(f"{path} is damaged or cut short ({first_line(error)}). Copy or download it again.") from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    # A tensor with stride 0 can have any size. One with more elements than its file has bytes would fill the memory.
    if not isinstance(content, dict) or not all(
        isinstance(value, Tensor) and value.numel() <= len(data) for value in content.values()
    ):
        raise InputError(f"{path} holds something other than weights. Have the state_dict() alone saved.")
    return {_plain_name(str(key)): value for key, value in content.items()}


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its class name if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _plain_name(name: str) -> str:
    for prefix in NAME_PREFIXES:
        name = name.removeprefix(prefix)
    return name
