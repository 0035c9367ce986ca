"""Loading an exported model and predicting with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.data.pictures import MAX_PIXELS, PICTURES
from suite.data.registry import GLYPHS
from suite.errors import InputError
from suite.export.card import WEIGHTS, Card, read_card
from suite.hardware.device import pick
from suite.models import backbones, heads
from suite.models.assembly import classifier_name
from suite.models.preprocessing import Preprocess, evaluation_preparer
from suite.models.state_dicts import read_tensors
from suite.store.files import file_sha256


def load(folder: str | Path) -> nn.Module:
    """The exported model in evaluation mode: (B, C, size, size) -> (B, classes). Raises InputError."""
    folder = Path(folder)
    card = read_card(folder)
    path = folder / WEIGHTS
    tensors = read_tensors(path)
    if file_sha256(path) != card.sha256:
        raise InputError(f"{path} is not the file its card describes (SHA-256 differs); export the model again.")
    model = backbones.build(card.backbone, classes=len(card.classes), channels=card.channels, size=card.size, seed=0)
    try:
        if card.head is not None:
            name = classifier_name(model)
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            model.set_submodule(name, heads.restore_folded(card.head, own, len(card.classes)))
        model.load_state_dict(tensors)
    except (RuntimeError, LookupError, ValueError, StopIteration) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} does not fit the backbone {card.backbone}: {reason}") from None
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise InputError(f"The weights in {path} are no use: they hold NaN or infinity.")
    return model.eval()


class Predictor:
    """An exported model with everything from a picture file to named probabilities."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.card = read_card(folder)
        self.device = pick(device)
        self.model = load(folder).to(self.device)
        card = self.card
        self.prepare = evaluation_preparer(
            Preprocess(card.channels, card.size, card.mean, card.std, card.interpolation), self.device
        )

    def file(self, path: Path) -> dict[str, Any]:
        """Label and probabilities of one image file. Raises InputError."""
        return {"image": str(path), **self.pixels(picture(path, self.card))}

    @torch.inference_mode()
    def pixels(self, image: Tensor) -> dict[str, Any]:
        """Label and probabilities of one (C, H, W) uint8 image in the data set's own form."""
        scores = self.model(self.prepare(image[None].to(self.device)))[0].float().softmax(0)
        if not scores.isfinite().all():
            raise InputError("The model gives no finite scores for this picture.")
        named = {label: round(float(p), 6) for label, p in zip(self.card.classes, scores, strict=True)}
        return {"label": self.card.classes[int(scores.argmax())], "probabilities": named}


def picture(path: Path, card: Card) -> Tensor:
    """Any PNG or JPEG as the model's data set would hold it: (C, native, native) uint8. Raises InputError.

    Grey data sets show light on dark. A picture with a light border is inverted; then what stands out is cut
    out and placed as the data set places it: digits and letters in a box of 20/28 of the side around their
    centre of mass (as MNIST was made, LeCun et al., 1998), other things filling the square.
    """
    import numpy as np
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path} is no plain file, so it is no image.")
    try:
        with Image.open(path, formats=PICTURES) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise InputError(f"{path} has {opened.width} x {opened.height} pixels; {MAX_PIXELS:,} is the most.")
            upright: Image.Image = ImageOps.exif_transpose(opened)
            if upright.mode in ("I", "I;16", "F"):  # 16-bit grey
                values = np.asarray(upright, dtype=np.float32)
                upright = Image.fromarray((values / max(1.0, float(values.max())) * 255).astype(np.uint8))
            if "A" in upright.mode or "transparency" in upright.info:
                rgba = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            image = upright.convert("L" if card.channels == 1 else "RGB")
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"There is no image {path}.") from None
    except Exception as error:  # decoders meet a stranger's bytes with whatever fails first
        raise InputError(f"{path} cannot be read as an image: {error or type(error).__name__}.") from None
    if min(image.size) < 1:
        raise InputError(f"{path} is an empty image.")
    size = card.native_size
    if card.channels != 1:
        return _tensor(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) > 127:
        image = ImageOps.invert(image)
    elif image.size == (size, size):
        return _tensor(image)  # already in the data set's form
    return _placed(image, size, centred=card.dataset in GLYPHS)


def _placed(image: Any, size: int, *, centred: bool) -> Tensor:
    import numpy as np
    from PIL import Image, ImageOps

    image = ImageOps.autocontrast(image)
    pixels = np.asarray(image).astype(np.float32)
    rows, columns = np.nonzero(pixels > 64)
    if len(rows) == 0:
        return torch.zeros(1, size, size, dtype=torch.uint8)
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    cut = image.crop(box)
    room = round(size * 20 / 28) if centred else size
    scale = room / max(cut.size)
    cut = cut.resize((max(1, round(cut.width * scale)), max(1, round(cut.height * scale))), Image.Resampling.LANCZOS)
    made = Image.new("L", (size, size))
    x, y = (size - cut.width) / 2, (size - cut.height) / 2
    if centred:
        mass = np.asarray(cut).astype(np.float32)
        total = float(mass.sum()) or 1.0
        x = size / 2 - float((mass.sum(0) * (np.arange(cut.width) + 0.5)).sum()) / total
        y = size / 2 - float((mass.sum(1) * (np.arange(cut.height) + 0.5)).sum()) / total
    made.paste(cut, (round(min(max(x, 0), size - cut.width)), round(min(max(y, 0), size - cut.height))))
    return _tensor(made)


def _tensor(image: Any) -> Tensor:
    import numpy as np

    pixels = np.array(image, dtype=np.uint8)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def serve(folder: Path, device: str) -> None:
    """Answer one JSON line {"pixels": [[0..255]...]} after another on stdin, until it ends."""
    predictor = Predictor(folder, device)
    card = predictor.card

    def say(answer: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    say({"ready": True, "classes": list(card.classes), "size": card.native_size})
    for line in sys.stdin:
        try:
            pixels = torch.tensor(json.loads(line)["pixels"]).clamp(0, 255).to(torch.uint8)
            if pixels.shape != (card.native_size, card.native_size):
                raise ValueError(f"pixels must be {card.native_size} rows of {card.native_size} numbers")
            say(predictor.pixels(pixels[None].expand(card.channels, -1, -1)))
        except (ValueError, KeyError, TypeError, RuntimeError, InputError) as error:
            say({"error": str(error).splitlines()[0]})
