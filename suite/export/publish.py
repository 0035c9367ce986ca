"""Publishing a trained model, and using one that was published.

An export is a folder: model.safetensors, mnist-suite.json (what the model is and expects), README.md (its card)
and, where timm can build it, timm's config.json. It is read back and compared before it appears.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from suite import backbones, data, heads, models, weights
from suite.augment import image_preparer
from suite.checkpoint import save_tensors
from suite.device import pick
from suite.errors import InputError, WorkError, printable
from suite.leaderboard import wilson
from suite.spec import (
    Augment,
    Cost,
    Count,
    HeadOnly,
    HeadSpec,
    Knn,
    Linear,
    Logreg,
    Mlp,
    Positive,
    Provenance,
    Ridge,
    Spec,
    Trial,
    Unit,
)
from suite.store import file_sha256, find_trial, open_study, split_reference, sync_directory, write_atomic

CARD = "mnist-suite.json"
WEIGHTS = "model.safetensors"
SAMPLE = 64  # validation images on which the export must answer as the trial's model does


class Card(Spec):
    """mnist-suite.json."""

    schema_version: Literal[1] = 1
    backbone: str
    head: HeadSpec | None = None  # where the classifier is not the backbone's own
    dataset: str
    classes: tuple[str, ...] = Field(min_length=1, max_length=100_000)
    channels: int = Field(ge=1, le=16)
    native_size: int = Field(ge=1, le=1024)  # of the data set's images
    size: int = Field(ge=1, le=1024)  # that the model takes
    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Positive, ...] = Field(min_length=1)
    interpolation: Literal["none", "bilinear", "bicubic"]
    trial: str
    strategy: str
    accuracy: Unit
    interval: tuple[Unit, Unit]
    images: Count
    sha256: str
    timm: bool
    cost: Cost | None
    provenance: Provenance | None

    @model_validator(mode="after")
    def _one_figure_a_channel(self) -> Card:
        if not {len(self.mean), len(self.std)} <= {1, self.channels}:
            raise ValueError(f"mean and std need {self.channels} figures each")
        return self


# --- publishing ----------------------------------------------------------------------------------------------------


def export(results: Path, reference: str | None, to: Path) -> dict[str, Any]:
    """Write the referenced trial's best model to `to`; returns what to tell the user. Raises InputError, WorkError."""
    study_name, trial_id = split_reference(reference) if reference else (None, None)
    study = open_study(results, study_name)
    state = find_trial(study, trial_id)
    directory = study.trial(state.id)
    trial = state.trial
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to} already holds something; name a new or empty folder with --to DIR.")
    if os.path.realpath(to) == os.getcwd():  # `resolve` breaks on a loop of links
        raise InputError("The folder you are in cannot be replaced; name a new one with --to DIR.")
    splits = data.search_splits(trial.dataset, fraction=trial.fraction, limit=trial.limit)
    assembled = models.load_trained(directory, trial, splits.info, results)
    model, expects = assembled.model, assembled.expects
    record = directory.record()
    assert record is not None and record.accuracy is not None

    to.parent.mkdir(parents=True, exist_ok=True)
    building = to.parent / f".{to.name}.{secrets.token_hex(4)}.tmp"
    building.mkdir()
    try:
        tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
        digest = save_tensors(building / WEIGHTS, tensors, {"format": "pt"})
        plain = not isinstance(trial.strategy, HeadOnly) or isinstance(trial.strategy.head, Linear | Ridge | Logreg)
        timm_loads = trial.backbone.startswith(backbones.TIMM) and plain
        card = Card(
            backbone=trial.backbone,
            head=None if plain or not isinstance(trial.strategy, HeadOnly) else trial.strategy.head,
            dataset=trial.dataset,
            classes=splits.info.classes,
            channels=expects.channels,
            native_size=splits.info.size,
            size=expects.size,
            mean=expects.mean,
            std=expects.std,
            interpolation=expects.interpolation,
            trial=f"{study.name}/{state.id}",
            strategy=trial.strategy.kind,
            accuracy=record.accuracy,
            interval=wilson(record.accuracy, record.images),
            images=record.images,
            sha256=digest,
            timm=timm_loads,
            cost=record.cost,
            provenance=record.provenance,
        )
        write_atomic(building / CARD, card.model_dump_json(indent=1) + "\n")
        if timm_loads:
            _timm_config(model, building, card)
        _check(building, model, expects, torch.from_numpy(splits.validation.images[:SAMPLE]), timm_loads)
        write_atomic(building / "README.md", _card_text(card, trial, printable(to.name)))
        for path in building.iterdir():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        sync_directory(building)
        if to.exists():
            to.rmdir()
        os.rename(building, to)
        sync_directory(to.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return {
        "trial": card.trial,
        "folder": str(to),
        "accuracy": card.accuracy,
        "sha256": digest,
        "timm": timm_loads,
        "load": _load_line(card, str(to)),
    }


def _load_line(card: Card, folder: str) -> str:
    if card.timm:
        return f'timm.create_model("local-dir:{folder}", pretrained=True)'
    return f'suite.export.load("{folder}")'


def _timm_config(model: nn.Module, folder: Path, card: Card) -> None:
    from timm.models._hub import save_config_for_hf

    input_config = {
        "input_size": (card.channels, card.size, card.size),
        "mean": card.mean,
        "std": card.std,
        "interpolation": "bilinear" if card.interpolation == "none" else card.interpolation,
        "crop_pct": 1.0,
    }
    path = folder / "config.json"
    save_config_for_hf(
        model,
        str(path),
        model_config={"num_classes": len(card.classes), "label_names": list(card.classes)},
        data_config=input_config,
    )


@torch.inference_mode()
def _check(folder: Path, model: nn.Module, expects: backbones.Preprocess, images: Tensor, timm_loads: bool) -> None:
    """Read the folder back every promised way; the logits must be those of the trained model."""
    inputs = image_preparer(expects, Augment(), torch.device("cpu"))(images, None)
    wanted = model.eval()(inputs)
    readers = {"suite.export.load": lambda: load(folder)}
    if timm_loads:
        import timm

        readers["timm.create_model"] = lambda: timm.create_model(f"local-dir:{folder}", pretrained=True)
    for name, reader in readers.items():
        got = reader().eval()(inputs)
        if not torch.allclose(got, wanted, rtol=1e-4, atol=1e-4):
            worst = (got - wanted).abs().max().item()
            raise WorkError(f"The export was not published: read back by {name}, logits differ by up to {worst:.2g}.")


def _card_text(card: Card, trial: Trial, folder: str) -> str:
    """The model card: what it is, how good, what it cost, where it comes from."""
    low, high = (100 * bound for bound in card.interval)
    cost, made = card.cost, card.provenance
    lines = [
        f"# {card.backbone} on {card.dataset}",
        "",
        f"Strategy `{card.strategy}`, trial `{card.trial}` of mnist-suite {made.version if made else ''}.",
        "",
        f"- Validation accuracy {100 * card.accuracy:.2f} % on {card.images} images (95 % Wilson interval "
        f"{low:.2f} to {high:.2f}). The search chose by this figure, so it is optimistic; it is not a test figure.",
        f"- Input: {card.channels} x {card.size} x {card.size}, pixels scaled to 0..1, then (x - {list(card.mean)}) / "
        f"{list(card.std)}.",
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
            lines += [f"- Stands on the weights {made.weights} (SHA-256 {made.weights_sha256})."]
    recipe = json.dumps(trial.recipe.model_dump(exclude_defaults=True))
    lines += [
        f"- Recipe: `{recipe}`",
        f"- SHA-256 of {WEIGHTS}: {card.sha256}",
        "",
        "```python",
        "import timm" if card.timm else "import suite.export",
        f"model = {_load_line(card, folder)}",
        "```",
        "",
    ]
    return "\n".join(lines)


# --- using -----------------------------------------------------------------------------------------------------------


def read_card(folder: Path) -> Card:
    """What an exported folder says of itself. Raises InputError."""
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{folder} is no exported model: it has no {CARD}. `mnist-suite export` writes such folders.")
    try:
        return Card.model_validate_json(path.read_bytes())
    except (ValidationError, ValueError, RecursionError):
        raise InputError(f"{path} is damaged or was written by a newer version; export the model again.") from None


def load(folder: str | Path) -> nn.Module:
    """The exported model in evaluation mode: (B, C, size, size) -> (B, classes). Raises InputError."""
    folder = Path(folder)
    card = read_card(folder)
    path = folder / WEIGHTS
    tensors = weights.read_tensors(path)
    if file_sha256(path) != card.sha256:
        raise InputError(f"{path} is not the file its card describes (SHA-256 differs); export the model again.")
    model = backbones.build(card.backbone, classes=len(card.classes), channels=card.channels, size=card.size, seed=0)
    try:
        if card.head is not None:
            name = models.classifier_name(model)
            model.set_submodule(name, _empty_head(card, {k: v for k, v in tensors.items() if k.startswith(f"{name}.")}))
        model.load_state_dict(tensors)
    except (RuntimeError, LookupError, ValueError, StopIteration) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} does not fit the backbone {card.backbone}: {reason}") from None
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise InputError(f"The weights in {path} are no use: they hold NaN or infinity.")
    return model.eval()


def _empty_head(card: Card, tensors: dict[str, Tensor]) -> nn.Module:
    """A head of the right shape for `load` to fill."""
    shapes = {k.rpartition(".")[2]: v.shape for k, v in tensors.items()}
    if isinstance(card.head, Knn):
        bank = torch.zeros(shapes["bank"])
        labels = next(v for k, v in tensors.items() if k.endswith("labels"))
        if not len(labels) or labels.min() < 0 or labels.max() >= len(card.classes):
            raise ValueError("its neighbours' labels are not among the classes")
        return heads.Neighbours(bank, torch.zeros(len(bank), dtype=torch.long), card.head.k, len(card.classes))
    assert isinstance(card.head, Mlp)
    first = next(v for k, v in tensors.items() if k.endswith("0.weight"))
    return nn.Sequential(
        nn.Linear(first.shape[1], card.head.hidden), nn.ReLU(), nn.Linear(card.head.hidden, len(card.classes))
    )


class Predictor:
    """An exported model with everything from a picture file to named probabilities."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.card = read_card(folder)
        self.device = pick(device)
        self.model = load(folder).to(self.device)
        card = self.card
        self.prepare = image_preparer(
            backbones.Preprocess(card.channels, card.size, card.mean, card.std, card.interpolation),
            Augment(),
            self.device,
        )

    def file(self, path: Path) -> dict[str, Any]:
        """Label and probabilities of one image file. Raises InputError."""
        return {"image": str(path), **self.pixels(picture(path, self.card))}

    @torch.inference_mode()
    def pixels(self, image: Tensor) -> dict[str, Any]:
        """Label and probabilities of one (C, H, W) uint8 image in the data set's own form."""
        scores = self.model(self.prepare(image[None].to(self.device), None))[0].float().softmax(0)
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

    Image.MAX_IMAGE_PIXELS = data.MAX_PIXELS
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path} is no plain file, so it is no image.")
    try:
        with Image.open(path, formats=data.PICTURES) as opened:
            if opened.width * opened.height > data.MAX_PIXELS:
                raise InputError(
                    f"{path} has {opened.width} x {opened.height} pixels; {data.MAX_PIXELS:,} is the most."
                )
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
    return _placed(image, size, centred=card.dataset in data.GLYPHS)


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
