"""The command `explain`: what an answer of a model depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from suite.cli.options import Device, Json, Quiet, Results, path_argument, path_option
from suite.errors import InputError

MOST_NEAREST = 100


def explain(
    model: Annotated[
        Path,
        path_argument(help="A folder that `export` wrote, or STUDY/TRIAL; STUDY stands for its best trial."),
    ],
    images: Annotated[
        list[Path] | None,
        path_argument(help="Pictures, folders or patterns; of a trial by default its worst mistakes on validation."),
    ] = None,
    to: Annotated[Path | None, path_option("--to", help="Folder for a PNG of each picture.")] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="saliency, integrated-gradients, grad-cam or occlusion; may be repeated.",
            show_default="all",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The class that is asked about.", show_default="the predicted class")
    ] = None,
    nearest: Annotated[int, typer.Option(min=0, max=MOST_NEAREST, help="Number of nearest training images.")] = 5,
    completeness: Annotated[
        float,
        typer.Option(
            min=1e-5,
            max=1,
            help="Integrated gradients take more steps until they miss the difference of the scores by no more than "
            "this share of it.",
        ),
    ] = 0.01,
    maps: Annotated[
        Literal["none", "npy", "json"],
        typer.Option(help="The values of the maps: as .npy files beside the PNG, or within --json."),
    ] = "none",
    device: Device = "cpu",
    results: Results = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show which parts of a picture a model's answer depends on, and the training images that are most alike.

    Maps by saliency, integrated gradients, Grad-CAM and occlusion are printed, and drawn with --to. Each is checked:
    the mean probability of the class while pixels are removed, the most important first, stands beside that for a
    random order. What is explained of a trial is also kept in its folder, for the dashboard and the report.

    A picture that cannot be used does not stop the others. Exit code: 1 if there is such a picture, 2 if all are.

    \b
    Examples: mnist-suite explain model digit.png --to explained
              mnist-suite explain model digit.png --method occlusion --target 3
              mnist-suite explain mnist/0007
    """
    from suite.cli import explanations
    from suite.spec import METHODS
    from suite.store.files import results_dir

    if maps == "npy" and to is None:
        raise InputError("--maps npy writes files; name their folder with --to DIR.")
    if maps == "json" and not as_json:
        raise InputError("--maps json puts the maps into the output of --json; add --json.")
    if methods and (unknown := set(methods) - set(METHODS)):
        raise InputError(f"--method {sorted(unknown)[0]!r} is no method; choose from {', '.join(METHODS)}.")
    wanted = explanations.Wanted(
        methods=tuple(m for m in METHODS if not methods or m in methods),
        target=target,
        nearest=nearest,
        share=completeness,
        to=to,
        maps=maps,
        as_json=as_json,
        quiet=quiet,
    )
    raise typer.Exit(explanations.run(model, images or [], wanted, results_dir(results), device))
