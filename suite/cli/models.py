"""Commands for trained models: export, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from suite.cli.options import LARGEST, Device, Json, Results
from suite.errors import InputError


def export(
    trial: Annotated[
        str | None, typer.Argument(help="STUDY or STUDY/TRIAL; by default the best trial of the newest study.")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder to write; it must be new or empty.")] = Path("model"),
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Write the best model (by validation accuracy) as safetensors with a model card, and check that it loads.

    \b
    Example: mnist-suite export mnist --to model
    """
    from suite.cli import console
    from suite.export import publish
    from suite.store.files import dump_json, results_dir

    done = publish.export(results_dir(results), trial, to)
    if as_json:
        print(dump_json(done))
        return
    console.out.print(
        f"{done['trial']} ({100 * done['accuracy']:.2f}% on validation) is in {to}\n"
        f"load it with: {done['load']}\ntry it with: mnist-suite predict {to} IMAGE"
    )


def predict(
    model: Annotated[Path, typer.Argument(help="A folder that `export` wrote.")],
    images: Annotated[list[Path] | None, typer.Argument(help="PNG or JPEG, of any size and colour.")] = None,
    top: Annotated[int, typer.Option(min=1, max=LARGEST, help="Number of classes to show.")] = 3,
    serve: Annotated[
        bool, typer.Option("--serve", help="Read JSON lines on stdin and answer on stdout, for other programs.")
    ] = False,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Classify images with an exported model.

    \b
    Example: mnist-suite predict model digit.png --json
    """
    from suite.cli import console
    from suite.export import predict as prediction
    from suite.store.files import dump_json

    if serve:
        prediction.serve(model, device)
        return
    if not images:
        raise InputError("Name at least one image: mnist-suite predict MODEL_DIR IMAGE...")
    predictor = prediction.Predictor(model, device)
    answers = [predictor.file(path) for path in images]
    if as_json:
        print(dump_json(answers))
        return
    for answer in answers:
        ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])[:top]
        shown = "  ".join(f"{label} {100 * p:.1f}%" for label, p in ranked)
        console.out.print(f"{answer['image']}: {answer['label']}   ({shown})")
