"""README.md, the card of an exported model for people."""

from __future__ import annotations

import json

from suite.export.card import WEIGHTS, Card
from suite.spec import Preprocess, Trial

SUITE_SNIPPET = """\
from suite.export import Predictor

predictor = Predictor({folder!r})
answer = predictor.file("picture.png")
print(answer["label"], answer["probabilities"])
"""

TIMM_SNIPPET = """\
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

DEEP_TO_8_BIT = """\
image = Image.fromarray((np.clip(np.asarray(image, np.float32) / {white:g}, 0, 1) * 255).round().astype(np.uint8))
"""


def load_line(card: Card, folder: str) -> str:
    """The Python expression that loads the model."""
    if card.timm:
        return f'timm.create_model("local-dir:{folder}", pretrained=True)'
    return f'suite.export.load("{folder}")'


def card_text(card: Card, trial: Trial, folder: str) -> str:
    """README.md in Markdown: the model, its accuracy, its input, its cost, its provenance and how to use it."""
    low, high = (100 * bound for bound in card.interval)
    cost, made = card.cost, card.provenance
    exactly = "" if card.accuracy_fp32 is None else f" In float32, as here, it is {100 * card.accuracy_fp32:.2f} %."
    lines = [
        f"# {card.backbone} on {card.dataset}",
        "",
        f"Strategy `{card.strategy}`, trial `{card.trial}` of mnist-suite {made.version if made else ''}.",
        "",
        f"- Validation accuracy {100 * card.accuracy:.2f} % on {card.images} images (95 % Wilson interval "
        f"{low:.2f} to {high:.2f}).{exactly} The search chose by this figure, so it is optimistic; it is not a test "
        "figure.",
        f"- Classes, in order: {', '.join(card.classes)}.",
    ]
    if cost is not None:
        energy = f"{cost.energy_joules:.0f} J ({cost.energy_source})" if cost.energy_joules else cost.energy_source
        lines += [
            f"- {cost.parameters:,} parameters, {cost.trainable:,} of them trained; {cost.forward_flops:,} FLOPs "
            "an image (a multiply-add is two).",
            f"- Training: {cost.train_seconds:.1f} s, {cost.training_flops:.3g} FLOPs; energy {energy}.",
        ]
    if made is not None:
        lines += [f"- Made on {made.hardware} in {made.precision} by `{made.command}`, torch {made.packages['torch']}."]
        if made.weights:
            lines += [f"- Started from the weights {made.weights} (SHA-256 {made.weights_sha256})."]
    lines += [
        f"- Recipe: `{json.dumps(trial.recipe.model_dump(exclude_defaults=True))}`",
        f"- SHA-256 of {WEIGHTS}: {card.sha256}",
        f"- Before it was published, the model read back was compared with the trained one on {card.checked_on}.",
        "",
        "## Input",
        "",
        *(f"{number}. {step}" for number, step in enumerate(input_steps(card.preprocess), 1)),
        "",
        "## Use",
        "",
        f"`mnist-suite predict {folder} PICTURE...` and these lines answer alike:",
        "",
        *_python(SUITE_SNIPPET.format(folder=folder)),
        *(_timm(card, folder) if card.timm else _alone(card, folder)),
        "",
    ]
    return "\n".join(lines)


def input_steps(expects: Preprocess) -> list[str]:
    """How a picture becomes the input of the model, in words."""
    view = expects.view()
    steps = ["The picture is turned upright by its EXIF orientation."]
    if expects.white is not None:
        steps.append(f"Values of more than 8 bits are scaled so that {expects.white:g} is white (255).")
    if expects.placement is not None:
        steps.append(_placement(expects))
    else:
        colours = "grey" if expects.channels == 1 else "RGB"
        steps.append(
            "Transparent pictures are laid on white, or on black where what is visible is light. The picture is "
            f"converted to {colours}."
        )
        side, scaled, kind = view.side, view.scaled, f"{view.interpolation} interpolation with antialias"
        cut = f" Its central {side} x {side} pixels are kept." if scaled != side else ""
        steps.append(
            {
                "crop": f"It is resized until its shorter side has {scaled} pixels ({kind}). Its central {side} x "
                f"{side} pixels are kept.",
                "pad": f"It is resized until its longer side has {scaled} pixels ({kind}), and laid on the middle of "
                f"{side} x {side} pixels of the colour {list(view.fill)}.",
                "squeeze": f"It is resized to {scaled} x {scaled} pixels, whatever its shape ({kind}).{cut}",
            }[view.fit]
        )
    if expects.size != expects.stored:
        steps.append(f"It is resized to {expects.size} x {expects.size} pixels ({expects.interpolation}).")
    steps.append(
        f"Pixels are scaled to 0..1, then (x - mean) / std, mean {list(expects.mean)}, std {list(expects.std)}."
    )
    return steps


def _placement(expects: Preprocess) -> str:
    side = expects.stored
    where = (
        f"scaled to a box of {round(side * 20 / 28)} pixels, with its centre of mass in the middle"
        if expects.placement == "centred"
        else "filling the square"
    )
    return (
        f"What stands out from the ground, darker or lighter, is found and drawn light on black in {side} x {side} "
        f"pixels, {where}, as in the data set. A picture in that form already is taken as it "
        "is; one on which nothing stands out is refused."
    )


def _alone(card: Card, folder: str) -> list[str]:
    lines = [f"The model alone, from normalised inputs to logits, is `{load_line(card, folder)}`."]
    if (found := card.agreement) is not None:
        lines += [
            "",
            f"It is not offered to timm: on {found.pictures} validation pictures timm's own transform gave the same "
            f"label for {100 * found.equal:.1f} % only.",
        ]
    return lines


def _timm(card: Card, folder: str) -> list[str]:
    expects, found = card.preprocess, card.agreement
    mode = "L" if expects.channels == 1 else "RGB"
    convert = f'image = image.convert("{mode}")'
    imports = ""
    if expects.white is not None:
        convert = DEEP_TO_8_BIT.format(white=expects.white) + convert
        imports = "import numpy as np\n"
    about = ["timm alone loads the model too. The transform of its configuration does the steps from resizing on."]
    if expects.placement is not None:
        about += [f"It takes pictures like those of the data set, of {expects.stored} pixels, and places nothing."]
    else:
        about += ["Lay transparent pictures on their ground first."]
    if mode == "L":
        about += ['It takes grey pictures: mode "L".']
    if found is None:
        about += ["The validation pictures were not there, so its answers were not compared."]
    else:
        about += [
            f"On {found.pictures} validation pictures it gave the same label for {100 * found.equal:.1f} %, and logits "
            f"that differ by at most {found.logits:.2g}."
        ]
    return [
        " ".join(about),
        "",
        *_python(imports + TIMM_SNIPPET.format(load=load_line(card, folder), convert=convert)),
    ]


def _python(code: str) -> list[str]:
    return ["```python", code.rstrip(), "```", ""]
