"""Reading files of weights that may be damaged or hostile.

What a file is, its first bytes say; its name does not matter. Files are read by safetensors, or by PyTorch's
weights-only unpickler (https://docs.pytorch.org/docs/stable/notes/serialization.html#weights-only), which accepts
nothing but tensors in plain containers, so that a file cannot run code.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from suite.errors import InputError, first_line

ZIP = b"PK\x03\x04"
LEGACY = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # the number with which torch.save begins a file that is no zip archive
HEAD = 512  # bytes that tell what a file is

# Files that people take for weights, by their first bytes.
OTHERS = {
    b"\x1f\x8b": "is compressed by gzip: unpack it first",
    b"\x89HDF": "is an HDF5 file, as Keras writes them: convert it to .safetensors",
    b"GGUF": "is a GGUF file: convert it to .safetensors",
    b"\x93NUMPY": "is a NumPy array: save the weights by name, as .safetensors",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself: fetch that with `git lfs pull`",
    b"<": "is a web page or another text: download the file itself",
    b"{": "is a JSON text: pass the file with the weights themselves",
}

OTHER_ZIP = "is a zip archive, but not one of torch.save: unpack it first"

Format = Literal["safetensors", "torch"]


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the named tensors of a file that holds nothing else, on the CPU.

    Raises InputError unless the file is complete and holds nothing but tensors.
    """
    path = Path(path)
    content = decode(read_file(path), path)
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} holds something other than weights. Have the state_dict() alone saved.")
    return content


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


def format_of(head: bytes) -> Format | None:
    """What reads a file with these first `HEAD` bytes; None where it is no file of weights.

    A zip archive counts as one of torch.save's if its first entry is named as one there.
    """
    if head[8:9] == b"{":  # after the length of the header
        return "safetensors"
    if head.startswith(ZIP):
        return "torch" if b"/data" in head[30:] else None  # data.pkl, or data/0 in a program of TorchScript
    return "torch" if head.startswith(b"\x80") and LEGACY in head[:32] else None


def decode(data: bytes, path: Path) -> dict[str, Any]:
    """The content `data` of the file `path`: by name tensors, dictionaries of such, and other things, on the CPU.

    Raises InputError where the file is damaged, is none of weights, or holds objects other than plain containers.
    """
    kind = format_of(data[:HEAD])
    if kind is None:
        raise InputError(f"{path} {_what_else(data)}. Files of weights are those of safetensors and of torch.save.")
    zipped = _zipped(data) if kind == "torch" and data.startswith(ZIP) else []
    if any("/code/" in name for name in zipped):
        raise InputError(f"{path} is a program of TorchScript, which can run code. Have its state_dict() alone saved.")
    if zipped and not any(name.endswith("/data.pkl") for name in zipped):
        raise InputError(f"{path} {OTHER_ZIP}.")
    try:
        if kind == "safetensors":
            return dict(safetensors.torch.load(data))
        content: Any = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(
            f"{path} was not loaded: it is damaged, or holds Python objects{_named(error)} beside tensors, and such "
            "objects can run code. Have the weights alone saved, best as .safetensors."
        ) from error
    except KeyError as error:  # a number format of safetensors that PyTorch lacks
        raise InputError(f"{path} holds tensors that PyTorch cannot read ({first_line(error)}).") from error
    except Exception as error:  # on damaged and hostile files both libraries raise almost anything
        raise InputError(f"{path} is damaged or cut short ({first_line(error)}). Copy or download it again.") from error
    # A tensor with stride 0 can have any size. One with more elements than its file has bytes would fill the memory.
    if not isinstance(content, dict) or any(
        value.is_meta or value.numel() > len(data)
        for _, group in dictionaries(content)
        for value in group.values()
        if isinstance(value, Tensor)
    ):
        raise InputError(f"{path} holds something other than weights. Have the state_dict() alone saved.")
    return {str(key): value for key, value in content.items()}


def dictionaries(content: Mapping[Any, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """`content` and all dictionaries in it, each once, with the keys that lead to it; outer ones come first."""
    waiting: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), content)]
    seen: set[int] = set()  # a pickle can hold a dictionary that contains itself
    for keys, group in waiting:  # which grows meanwhile
        if id(group) not in seen:
            seen.add(id(group))
            yield keys, group
            waiting += [((*keys, str(key)), value) for key, value in group.items() if isinstance(value, dict)]


def _what_else(data: bytes) -> str:
    if not data:
        return "is empty: copy or download it again"
    if data.startswith(ZIP):
        return OTHER_ZIP
    return next((what for start, what in OTHERS.items() if data.startswith(start)), "is no file of weights")


def _zipped(data: bytes) -> list[str]:
    """The names in a zip archive; none where it is damaged."""
    try:
        return zipfile.ZipFile(BytesIO(data)).namelist()
    except Exception:  # on damaged archives it raises almost anything
        return []


def _named(error: Exception) -> str:
    """The class that the unpickler has refused, in brackets; "" where its message has none."""
    found = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
    return f" ({found[1]})" if found else ""
