"""The lines in the card of an exported model that run it: by the suite, and without it from each format of the folder.

The latter need only the format's runtime and Pillow. They do what `suite.data.pictures` does, from the file to the
stored picture, but for what the card says about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from suite.export.card import CARD, FILES, Card
from suite.spec import Format, Preprocess, View

SUITE = """\
from suite.export import Predictor

predictor = Predictor({folder!r})
answer = predictor.file("picture.png")
print(answer["label"], answer["probabilities"])
"""

TIMM = """\
import timm
import torch
from PIL import Image, ImageOps

model = {load}.eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = ImageOps.exif_transpose(Image.open("picture.png"))
{convert}
with torch.inference_mode():
    scores = model(transform(image)[None])[0].softmax(0)
print(model.pretrained_cfg["label_names"][int(scores.argmax())], float(scores.max()))
"""

ONNX = """\
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

classes = json.load(open("{folder}/{card}", encoding="utf-8"))["classes"]
session = onnxruntime.InferenceSession("{folder}/{file}")
image = ImageOps.exif_transpose(Image.open("picture.png"))
{convert}
{fit}
images = {array}
(probabilities,) = session.run(["probabilities"], {{"images": images}})
print(classes[probabilities[0].argmax()], probabilities[0].max())
"""

TORCH = """\
import json

import torch
from PIL import Image, ImageOps

classes = json.load(open("{folder}/{card}", encoding="utf-8"))["classes"]
model = torch.export.load("{folder}/{file}").module()
image = ImageOps.exif_transpose(Image.open("picture.png"))
{convert}
{fit}
pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
images = pixels.view(1, {side}, {side}, {channels}).permute(0, 3, 1, 2).contiguous()
with torch.inference_mode():
    probabilities = model(images)[0]
print(classes[int(probabilities.argmax())], float(probabilities.max()))
"""

TITLES: dict[Format, str] = {
    "onnx": "ONNX, with onnxruntime, NumPy and Pillow",
    "int8": "8-bit ONNX, with onnxruntime, NumPy and Pillow",
    "torch-export": "torch.export, with PyTorch and Pillow",
}


class Use(NamedTuple):
    """One way to run the model."""

    title: str
    about: str
    code: str


def suite(folder: str) -> str:
    return SUITE.format(folder=folder)


def load_line(card: Card, folder: str) -> str:
    """The Python expression that loads the model."""
    if card.timm:
        return f'timm.create_model("local-dir:{folder}", pretrained=True)'
    return f'suite.export.load("{folder}")'


def without_the_suite(card: Card, folder: str) -> Iterator[Use]:
    """For each format that other programs can run, `folder` being the one that they find the files in."""
    if card.timm:
        yield Use("safetensors, with timm and Pillow", _about_timm(card), _timm(card, folder))
    for name, title in TITLES.items():
        if name in card.formats:
            yield Use(title, _about_graph(card.preprocess), _graph(name, card.preprocess, folder))


def _timm(card: Card, folder: str) -> str:
    return TIMM.format(load=load_line(card, folder), convert=_convert(card.preprocess))


def _graph(name: Format, expects: Preprocess, folder: str) -> str:
    grey = expects.channels == 1
    return (TORCH if name == "torch-export" else ONNX).format(
        folder=folder,
        file=FILES[name],
        card=CARD,
        convert=_convert(expects),
        fit=_fit(expects.view(), stored_already=expects.placement is not None),
        array="np.asarray(image)[None, None]" if grey else "np.asarray(image).transpose(2, 0, 1)[None]",
        side=expects.stored,
        channels=expects.channels,
    )


def _convert(expects: Preprocess) -> str:
    """Lines that give the image its mode; grey values of more than 8 bits are scaled."""
    mode = "L" if expects.channels == 1 else "RGB"
    lines = f'image = image.convert("{mode}")'
    if expects.white is None:
        return lines
    # From "F" to "L" Pillow cuts off the fraction, and what is outside 0..255.
    deep = f'image = image.convert("F").point(lambda value: value * {255 / expects.white!r} + 0.5).convert("L")'
    return f'if image.mode[0] in "IF":\n    {deep}\n{lines}'


def _fit(view: View, *, stored_already: bool) -> str:
    """Lines that make the image square, by Pillow."""
    side, scaled = view.side, view.scaled
    if stored_already:
        return f"image = image.resize(({side}, {side}))"
    kind = f"Image.Resampling.{view.interpolation.upper()}"
    if view.fit == "squeeze":
        lines = [f"image = image.resize(({scaled}, {scaled}), {kind})"]
    elif view.fit == "pad":
        lines = [
            f"size = [max(1, round({scaled} * n / max(image.size))) for n in image.size]",
            f"image = image.resize(size, {kind})",
            f"canvas = Image.new(image.mode, ({side}, {side}), {view.fill if view.channels > 1 else view.fill[0]})",
            f"canvas.paste(image, [({side} - n) // 2 for n in size])",
            "image = canvas",
        ]
        return "\n".join(lines)
    else:
        lines = [
            f"size = [int({scaled} * n / min(image.size)) for n in image.size]",
            f"image = image.resize(size, {kind})",
        ]
    if view.fit == "crop" or scaled != side:
        lines += [
            f"left, top = (round((n - {side}) / 2) for n in image.size)",
            f"image = image.crop((left, top, left + {side}, top + {side}))",
        ]
    return "\n".join(lines)


def _about_graph(expects: Preprocess) -> str:
    about = "The graph takes whole numbers 0..255, normalises them itself and answers with probabilities. "
    if expects.placement is not None:
        side = expects.stored
        return about + (
            f"These lines take pictures like those of the data set: light on black, placed in {side} x {side} pixels. "
            "`mnist-suite predict` finds and places the glyph on others."
        )
    return about + (
        "Lay transparent pictures on their ground first. Pillow's resizing differs from the suite's by rounding, so "
        "probabilities may differ in the third digit."
    )


def _about_timm(card: Card) -> str:
    expects, found = card.preprocess, card.agreement
    about = ["timm alone loads the model too. The transform of its configuration does the steps from resizing on."]
    if expects.placement is not None:
        about += [f"It takes pictures like those of the data set, of {expects.stored} pixels, and places nothing."]
    else:
        about += ["Lay transparent pictures on their ground first."]
    if expects.channels == 1:
        about += ['It takes grey pictures: mode "L".']
    if found is None:
        about += ["The validation pictures were not there, so its answers were not compared."]
    else:
        about += [
            f"On {found.pictures} validation pictures it gave the same label for {100 * found.equal:.1f} %, and logits "
            f"that differ by at most {found.logits:.2g}."
        ]
    return " ".join(about)
