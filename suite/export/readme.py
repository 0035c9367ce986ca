"""README.md, the card of an exported model for people."""

from __future__ import annotations

import json
from collections.abc import Sequence

from suite.export import snippets
from suite.export.card import WEIGHTS, Card
from suite.export.front_matter import front_matter, model_name
from suite.export.snippets import load_line
from suite.spec import Cost, Preprocess, Trial


def card_text(card: Card, trials: Sequence[Trial], folder: str) -> str:
    """README.md in Markdown: the model, its accuracy, its input, its cost, its provenance and how to use it.

    Args:
        card: the card for programs.
        trials: whose models it holds, in the order of `card.members`.
        folder: the name of the folder, as the lines to run the model find it.
    """
    made = card.provenance
    lines = [
        front_matter(card),
        "",
        f"# {model_name(card)}",
        "",
        *(_members(card, trials) if card.members else _one(card, trials[0])),
        f"- Classes, in order: {', '.join(card.classes)}.",
        *_cost(card),
    ]
    if made is not None:
        lines += [f"- Made on {made.hardware} in {made.precision} by `{made.command}`, torch {made.packages['torch']}."]
        if made.weights:
            lines += [f"- Started from the weights {made.weights} (SHA-256 {made.weights_sha256})."]
    lines += [
        *(f"- Recipe: `{_recipe(trial)}`" for trial in trials[:1] if len(card.members) < 2),
        f"- SHA-256 of {WEIGHTS}: {card.sha256}",
        f"- Before it was published, the model read back was compared with the trained one on {card.checked_on}.",
        "",
        "## Input",
        "",
        *(f"{number}. {step}" for number, step in enumerate(input_steps(card.preprocess), 1)),
        *_views(card),
        "",
        *_formats(card),
        "## Use",
        "",
        f"`{folder}` is the folder with these files. `mnist-suite predict {folder} PICTURE...` and these lines answer "
        "alike:",
        "",
        *_python(snippets.suite(folder)),
        *([] if card.timm else _alone(card, folder)),
    ]
    for use in snippets.without_the_suite(card, folder):
        lines += [f"### {use.title}", "", use.about, "", *_python(use.code)]
    return "\n".join(lines).rstrip() + "\n"


def _one(card: Card, trial: Trial) -> list[str]:
    made = card.provenance
    return [
        f"Strategy `{card.strategy}`, trial `{card.trial}` of mnist-suite {made.version if made else ''}.",
        "",
        f"{_accuracy(card)} {CHOSEN}",
    ]


def _members(card: Card, trials: Sequence[Trial]) -> list[str]:
    """What the ensemble is, and its members in a table."""
    count = len(card.members)
    whose = f"{count} trained models" if count > 1 else f"the model of trial `{card.members[0].trial}`"
    rows = [
        f"| {one.trial} | {one.backbone} | {one.strategy} | {one.preprocess.size} px | {100 * one.accuracy:.2f} % | "
        f"`{_recipe(trial)}` |"
        for one, trial in zip(card.members, trials, strict=True)
    ]
    best = max(one.accuracy for one in card.members)
    alone = f" Its best member alone has {100 * best:.2f} %." if count > 1 else ""
    plain = ""
    if card.accuracy_one_view is not None:
        plain = f" On the pictures alone, without the other views, it has {100 * card.accuracy_one_view:.2f} %."
    return [
        f"It answers with the mean of the probabilities of {whose}{VIEWS[card.views]}.",
        "",
        "| trial | backbone | strategy | input | validation accuracy | recipe |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"{_accuracy(card)}{alone}{plain} {CHOSEN}",
    ]


VIEWS = {  # what an ensemble averages over beside its members
    (): "",
    ("shift",): " for the picture and its four shifts by one pixel",
    ("flip",): " for the picture and its mirror image",
    ("shift", "flip"): " for the picture, its four shifts by one pixel and the mirror images of all five",
}

CHOSEN = "The search chose by figures on these images, so it is optimistic; it is not a test figure."


def _accuracy(card: Card) -> str:
    low, high = (100 * bound for bound in card.interval)
    exactly = ""
    if card.accuracy_fp32 is not None and not card.members:
        exactly = f" In float32, as here, it is {100 * card.accuracy_fp32:.2f} %."
    return (
        f"- Validation accuracy {100 * card.accuracy:.2f} % on {card.images} images (95 % Wilson interval {low:.2f} to "
        f"{high:.2f}).{exactly}"
    )


def _cost(card: Card) -> list[str]:
    cost = card.cost
    if cost is None:
        return []
    energy = f"{cost.energy_joules:.0f} J ({cost.energy_source})" if cost.energy_joules else cost.energy_source
    whole = " for all views" if card.views else ""
    return [
        f"- {cost.parameters:,} parameters, {cost.trainable:,} of them trained; {cost.forward_flops:,} FLOPs an image"
        f"{whole} (a multiply-add is two).",
        *(f"- {line}" for line in _latency(cost)),
        f"- Training: {cost.train_seconds:.1f} s, {cost.training_flops:.3g} FLOPs; energy {energy}.",
    ]


def _latency(cost: Cost) -> list[str]:
    one, many = cost.latency_seconds, cost.latency_256_seconds
    if one is None:
        return []
    also = "" if many is None else f", {_milliseconds(many)} for 256"
    return [f"Forward pass of PyTorch in float32: {_milliseconds(one)} for one image{also}."]


def _formats(card: Card) -> list[str]:
    """What was measured of each file when it was read back, in a table."""
    if not card.formats:
        return []
    rows = [
        f"| {name} | {found.file} | {found.bytes / 1e6:.2f} MB | {found.runtime} | {100 * found.equal:.2f} % of "
        f"{found.images} | {found.difference:.2g} ({found.difference_of}) | {_percent(found.accuracy)} | "
        f"{_milliseconds(found.latency_seconds)} | {_milliseconds(found.latency_256_seconds)} |"
        for name, found in card.formats.items()
    ]
    return [
        "## Formats",
        "",
        "Each file was read back in its runtime and compared with the trained model in PyTorch. Accuracy is that on "
        "the compared pictures of validation. Times are of one machine, from stored pictures to probabilities, for one "
        "picture and for 256.",
        "",
        "| format | file | size | runtime | same answers | largest difference | accuracy | one | 256 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.3g} ms"


def _recipe(trial: Trial) -> str:
    return json.dumps(trial.recipe.model_dump(exclude_defaults=True))


def _views(card: Card) -> list[str]:
    """How an ensemble brings its input to its members."""
    other = {one.preprocess.size for one in card.members} - {card.preprocess.size}
    if not other:
        return []
    sizes = ", ".join(f"{size} x {size}" for size in sorted(other))
    return ["", f"The model itself resizes this to {sizes} pixels for the members that take that size."]


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


def _python(code: str) -> list[str]:
    return ["```python", code.rstrip(), "```", ""]
