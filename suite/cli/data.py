"""Commands for data sets: data list, fetch, verify, import, sample, cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from suite.cli.options import LARGEST, Json, Quiet, path_argument, path_option
from suite.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Data sets and the cache: list, fetch, verify, import, sample, cache.")


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the data sets, and which of them are in the cache.

    \b
    Example: mnist-suite data list
    """
    from suite.cli import console
    from suite.data import cache
    from suite.data.registry import DATASETS
    from suite.store.files import dump_json

    rows: list[dict[str, Any]] = []
    for name, entry in DATASETS.items():
        here = all(status.state == "ok" for status in cache.verify(name, quick=True))
        rows.append({"name": name, "title": entry.title, "classes": len(entry.classes), "here": here})
    if as_json:
        print(dump_json(rows))
        return
    for row in rows:
        mark = "here" if row["here"] else "not fetched"
        console.out.print(f"{row['name']:14} {row['title']:44} {row['classes']:3} classes   {mark}")
    console.out.print("folder:PATH    your own pictures, one folder for each class")
    console.out.print("csv:FILE       your own pictures, a path and a label in each row")


@app.command("fetch")
def fetch_datasets(names: list[str], quiet: Quiet = False, as_json: Json = False) -> None:
    """Fetch data sets into the cache, verified by SHA-256.

    \b
    Example: mnist-suite data fetch mnist fashion-mnist
    """
    from suite.cli import console
    from suite.data import fetch
    from suite.store.files import dump_json

    reports: list[dict[str, Any]] = []
    with console.download_progress(quiet) as on_progress:
        for name in names:
            report = fetch.fetch(name, on_progress=on_progress)
            reports.append({"name": name, "source": report.source, "folder": str(report.folder)})
    if as_json:
        print(dump_json(reports))
        return
    for report in reports:
        console.out.print(f"{report['name']}: {report['source']}, in {report['folder']}")


@app.command("verify")
def verify_datasets(names: Annotated[list[str] | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """Compare every cached file with its SHA-256; exit code 1 if one is damaged.

    \b
    Example: mnist-suite data verify mnist
    """
    from suite.cli import console
    from suite.data import cache
    from suite.data.registry import DATASETS
    from suite.store.files import dump_json

    rows: list[dict[str, str]] = []
    for name in names or DATASETS:
        for status in cache.verify(name):
            if names or status.state != "missing":
                rows.append({"dataset": name, "file": str(status.path), "state": status.state})
    if as_json:
        print(dump_json(rows))
    else:
        for row in rows or [{"state": "nothing is cached yet", "dataset": "", "file": ""}]:
            console.out.print(f"{row['state']:8} {row['dataset']:14} {row['file']}")
    if any(row["state"] == "damaged" or (names and row["state"] == "missing") for row in rows):
        raise typer.Exit(1)


@app.command("import")
def import_dataset(
    path: Annotated[Path, path_argument()],
    name: Annotated[str, typer.Option("--as", help="The data set that the files hold.")] = "mnist",
) -> None:
    """Copy files that you downloaded yourself into the cache, verified by SHA-256.

    \b
    Example: mnist-suite data import ~/Downloads/mnist --as mnist
    """
    from suite.cli import console
    from suite.data import fetch

    fetch.import_path(path, name)
    console.out.print(f"{name}: imported from {path}")


@app.command("sample")
def sample_image(
    name: Annotated[str, typer.Argument()] = "mnist",
    index: Annotated[
        int | None, typer.Option(min=0, max=LARGEST, help="Index of the validation image; random by default.")
    ] = None,
    to: Annotated[
        Path | None,
        path_option("--to", help="Write it to this .png file instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print one validation image as text.

    \b
    Examples: mnist-suite data sample mnist --index 3
              mnist-suite data sample fashion-mnist --to shirt.png
    """
    import random

    from suite.cli import console
    from suite.data.datasets import search_splits
    from suite.store.files import dump_json
    from suite.store.outputs import check_file, write_file

    if to is not None:
        check_file(to, [".png"])
    splits = search_splits(name)
    count = len(splits.validation.labels)
    index = random.randrange(count) if index is None else index
    if index >= count:
        raise InputError(f"--index {index} is outside the {count} validation images of {name}.")
    image = splits.validation.images[index]  # (C, H, W)
    pixels = image.mean(0).round().astype(int)
    label = splits.info.classes[int(splits.validation.labels[index])]
    if as_json:
        print(dump_json({"index": index, "label": label, "pixels": pixels.tolist()}))
        return
    if to is not None:
        from io import BytesIO

        from PIL import Image

        png = BytesIO()
        Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(png, "PNG")
        write_file(to, png.getvalue())
        console.out.print(f"{name} validation image {index}, a {label}, is in {to}")
        return
    for line in pixels:
        console.out.print("".join(" .:-=+*#%@"[min(9, value * 10 // 256)] * 2 for value in line).rstrip())
    console.out.print(f"{name} validation image {index}: {label}")


@app.command("cache")
def show_cache(
    prune: Annotated[bool, typer.Option("--prune", help="Remove decoded pictures and features.")] = False,
    unused: Annotated[
        float, typer.Option(min=0, max=36_500, help="With --prune: only those not used for so many days.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Show what the cache holds and how much it takes; --prune removes what can be computed again.

    Data sets and weights stay: they would have to be fetched again.

    \b
    Examples: mnist-suite data cache
              mnist-suite data cache --prune --unused 7
    """
    import time

    from rich.filesize import decimal

    from suite.cli import console
    from suite.data import cache_usage
    from suite.store.files import cache_dir, dump_json

    found = cache_usage.entries()
    removed = [e for e in cache_usage.prunable(found, unused_days=unused) if cache_usage.remove(e)] if prune else []
    left = [entry for entry in found if entry not in removed]
    if as_json:
        print(dump_json({"folder": str(cache_dir()), "entries": left, "removed": removed}))
        return
    features = [entry for entry in left if entry.kind == "features"]
    lines = [(e.bytes, e.kind, e.what, e.used) for e in left if e.kind != "features"]
    if features:
        used = max(entry.used for entry in features)
        lines.append((sum(e.bytes for e in features), "features", f"{len(features)} sets of frozen features", used))
    for size, kind, what, used in sorted(lines, reverse=True):
        days = max(0.0, time.time() - used) / 86_400
        console.out.print(f"{decimal(size):>9}  {kind:8}  {what}   (used {days:.0f} days ago)")
    console.out.print(f"{decimal(sum(entry.bytes for entry in left)):>9}  in {cache_dir()}")
    if prune:
        console.out.print(f"removed {len(removed)} entries, {decimal(sum(entry.bytes for entry in removed))}")
