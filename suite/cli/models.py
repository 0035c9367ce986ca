"""Commands for trained models: export, predict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from suite.cli.options import LARGEST, Device, Format, Json, Quiet, Results, path_argument, path_option
from suite.errors import InputError


def export(
    trials: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TRIAL",
            help="STUDY or STUDY/TRIAL; by default the best trial of the newest study. Several become one ensemble.",
        ),
    ] = None,
    to: Annotated[
        Path,
        path_option("--to", help="Folder to write; it must be new or empty."),
    ] = Path("model"),
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="safetensors (always written), onnx, int8 or torch-export; may be repeated. onnx and int8 need the "
            "extra 'onnx', and int8 the training pictures.",
        ),
    ] = None,
    ensemble: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=100,
            help="Average the probabilities of the best N trials of STUDY, or of N trainings of STUDY/TRIAL with "
            "different seeds.",
        ),
    ] = None,
    tta: Annotated[
        list[str] | None,
        typer.Option(
            help="Answer by several views of each picture: shift (four shifts by one pixel), flip (mirror images). "
            "May be repeated."
        ),
    ] = None,
    results: Results = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the best model (by validation accuracy) as safetensors with a model card, and check that it loads.

    Neither the data set nor the starting weights are needed, but for heads on frozen features, whose backbone's
    weights are. Other formats take stored pictures (uint8) and return probabilities. Each is read back in its own
    runtime and compared with the trained model on validation pictures; the card and the leaderboard have the figures.

    Ensembles and views are measured on the validation pictures.

    \b
    Examples: mnist-suite export mnist --to model
              mnist-suite export mnist/0009 --to model --format onnx --format int8
              mnist-suite export mnist --ensemble 5 --to ensemble
              mnist-suite export mnist/0007 mnist/0012 --tta shift --to ensemble
    """
    from suite.cli import console, exports
    from suite.export import publish
    from suite.export.ensemble import Wanted
    from suite.models.ensembles import known_views
    from suite.store.files import dump_json, results_dir

    root, names, wanted = results_dir(results), tuple(trials or ()), tuple(formats or ())
    with exports.steps(quiet) as say:
        if ensemble or tta or len(names) > 1:
            whole = Wanted(names, ensemble, known_views(tta or ()))
            done = publish.export_ensemble(root, whole, to, wanted, say)
        else:
            done = publish.export(root, names[0] if names else None, to, wanted, say)
    if as_json:
        print(dump_json(done))
        return
    exports.print_formats(done["formats"])
    if done["formats"] and not done.get("recorded", True) and not quiet:
        console.err.print("The study cannot be written, so its leaderboard does not have these figures.")
    console.out.print(
        f"{done['trial']} ({100 * done['accuracy']:.2f}% on validation) is in {to}, checked on {done['checked_on']}"
    )
    for line in _on_members(done):
        console.out.print(line)
    console.out.print(f"load it with: {done['load']}\ntry it with: mnist-suite predict {to} PICTURE")


def _on_members(done: dict[str, Any]) -> Iterator[str]:
    """What a user should know of an ensemble, line by line."""
    members = done.get("members", [])
    for one in members if len(members) > 1 else ():
        yield f"  member {one['trial']}: {100 * one['accuracy']:.2f}% alone"
    if (plain := done.get("accuracy_one_view")) is not None:
        yield f"  on the pictures alone, without the other views: {100 * plain:.2f}%"
    if left := done.get("left_out"):
        yield f"  left out, since they do not see the same pictures as the best trial: {', '.join(left)}"


def predict(
    model: Annotated[Path, path_argument(help="A folder that `export` wrote.")],
    images: Annotated[
        list[Path] | None,
        path_argument(help="Pictures, folders of pictures, or patterns such as 'photos/**/*.jpg'."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=LARGEST, help="Number of classes to show.")] = 3,
    show: Annotated[
        Path | None,
        path_option("--show", help="Write what the model saw to this folder, as PNG files."),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Read JSON lines on stdin and answer on stdout, for other programs.")
    ] = False,
    device: Device = "cpu",
    format: Format = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Classify pictures with an exported model.

    A picture that cannot be used does not stop the others. Exit code: 1 if there is such a picture, 2 if all are.
    Where pictures lie in folders that are named as the classes, the number of right answers is stated.

    \b
    Examples: mnist-suite predict model digit.png --json
              mnist-suite predict model photos/ --show seen
              mnist-suite predict model photos/ --format int8
    """
    if serve:
        from suite.export.lines import answer_lines

        answer_lines(model, device, format)
        return
    if not images:
        raise InputError("Name at least one picture or folder: mnist-suite predict MODEL_DIR PATH...")
    from suite.cli import console, predictions
    from suite.data.chosen import chosen_pictures
    from suite.export.card import read_card
    from suite.export.predict import Predictor
    from suite.export.seen import Seen

    read_card(model)  # refuses a wrong folder before anything is read
    files, left_out = chosen_pictures(images)
    if left_out and not quiet:
        console.err.print(f"left out: {', '.join(left_out)}")
    seen = Seen(show, files) if show is not None else None
    predictor = Predictor(model, device, format)
    raise typer.Exit(predictions.predict(predictor, files, seen, top=None if as_json else top, quiet=quiet))
