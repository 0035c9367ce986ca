"""The pictures of folders and CSV files: classes, parts, links, what is passed over, and refusals. None is opened."""

from __future__ import annotations

import itertools
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from suite.data.findings import PART_WORDS, part_of, why_no_picture
from suite.data.listing import TEST, TRAIN, VALIDATION, Listing, canonical, list_pictures
from suite.data.pictures import FORMATS
from suite.data.registry import entry
from suite.data.splits import split_indices
from suite.errors import InputError


def fill(folder: Path, names: Iterable[str] | int = 4) -> Path:
    """A folder with files of these names, or with this number of PNGs. Nothing opens them, so they hold a few bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (f"{i}.png" for i in range(names)) if isinstance(names, int) else names:
        (folder / name).write_bytes(b"-")
    return folder


def two_classes(root: Path, each: int = 4) -> Path:
    for label in ("cat", "dog"):
        fill(root / label, each)
    return root


def listed(root: Path) -> Listing:
    return list_pictures(f"folder:{root}")


def content(listing: Listing) -> set[tuple[str, str, int]]:
    """(relative path, class, part) of each picture; fails if one is listed twice."""
    rows = [
        (str(path.relative_to(listing.root)), listing.classes[label], int(part))
        for path, label, part in zip(listing.files, listing.labels, listing.parts, strict=True)
    ]
    assert len(set(rows)) == len(rows)
    return set(rows)


def in_part(listing: Listing, part: int) -> set[str]:
    return {path for path, _, own in content(listing) if own == part}


def refusal(name: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        list_pictures(name if isinstance(name, str) else f"folder:{name}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- names ----------------------------------------------------------------------------------------------------------


def test_a_data_set_has_one_name_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path / "pics")
    (tmp_path / "link").symlink_to(tmp_path / "pics")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    ways = ["pics", "pics/", "./pics", "pics//", "pics/../pics", "~/pics", f"{tmp_path}/pics", "link", "link/../pics"]
    assert {canonical(f"folder:{way}") for way in ways} == {f"folder:{tmp_path}/pics"}
    assert {list_pictures(f"folder:{way}").name for way in ways} == {f"folder:{tmp_path}/pics"}
    assert {canonical(f"csv:{way}/l.csv") for way in ways} == {f"csv:{tmp_path}/pics/l.csv"}
    assert canonical(canonical("folder:pics")) == canonical("folder:pics")
    assert canonical("mnist") == "mnist"


def test_a_csv_file_that_is_a_link_keeps_its_folder(tmp_path: Path) -> None:
    two_classes(tmp_path / "pics")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "v2.csv").write_text("path,label\n" + table(tmp_path / "pics"))
    (tmp_path / "pics" / "labels.csv").symlink_to("../tables/v2.csv")
    assert len(list_pictures(f"csv:{tmp_path}/pics/labels.csv").files) == 8


@pytest.mark.parametrize("name", ["folder:~nobody_here/p", "csv:~nobody_here/p.csv", "folder:", "csv: ", "folder:a\0b"])
def test_names_that_lead_nowhere(name: str) -> None:
    with pytest.raises(InputError):
        canonical(name)


def test_data_sets_of_ones_own_have_nothing_to_fetch() -> None:
    for name in ("folder:x", "csv:x.csv"):
        with pytest.raises(InputError, match="nothing to fetch"):
            entry(name)
    with pytest.raises(InputError, match="csv:FILE"):
        entry("my-pictures")


# --- classes and parts ----------------------------------------------------------------------------------------------


def test_folders_inside_a_class_belong_to_it_and_the_order_is_stable(tmp_path: Path) -> None:
    fill(tmp_path / "dog", ["b.png", "a.PNG"])
    fill(tmp_path / "dog" / "small" / "brown", ["1.jpeg", "2.JPG"])
    fill(tmp_path / "cat", ["9.png", "10.png", "8.png"])
    found = listed(tmp_path)
    assert found.classes == ("cat", "dog")
    assert {(path, label) for path, label, _ in content(found)} == {
        *((f"cat/{n}.png", "cat") for n in (8, 9, 10)),
        *((f"dog/{n}", "dog") for n in ("a.PNG", "b.png", "small/brown/1.jpeg", "small/brown/2.JPG")),
    }
    assert found.files == listed(tmp_path).files
    assert found.labels.dtype == np.int64 and found.parts.dtype == np.int8
    keys = [(p, found.classes[c], f.parts) for p, c, f in zip(found.parts, found.labels, found.files, strict=True)]
    assert keys == sorted(keys)


def test_without_a_test_part_a_tenth_of_each_class_is_test_as_it_always_was(tmp_path: Path) -> None:
    """The rule of all versions: `split_indices` over the pictures sorted by class and path."""
    for label, each in (("b", 33), ("a-1", 21), ("a", 20)):
        fill(tmp_path / label, each)
        fill(tmp_path / label / "in", 7)
        fill(tmp_path / label / "in-2", 5)
    classes = sorted(path.name for path in tmp_path.iterdir())
    pool = [(label, path) for label in classes for path in sorted((tmp_path / label).rglob("*.png"))]
    train, test = split_indices(np.array([classes.index(label) for label, _ in pool]))
    found = listed(tmp_path)
    for part, rows in ((TRAIN, train), (TEST, test)):
        chosen = [file for file, own in zip(found.files, found.parts, strict=True) if own == part]
        assert chosen == [pool[i][1] for i in rows]
    assert not found.own_validation


@pytest.mark.parametrize(
    ("names", "validation", "test"),
    [
        (("train", "test"), False, True),
        (("training", "testing"), False, True),
        (("Train", "Val", "Test"), True, True),
        (("TRAIN", "VALIDATION"), True, False),
        (("train", "valid"), True, False),
        (("training_set", "test_set"), False, True),
        (("Training Data", "Testing Data"), False, True),
        (("train2017", "val2017", "test2017"), True, True),
        (("trainset", "dev", "testset"), True, True),
        (("train_images", "val-images", "eval"), True, True),
        (("seg_train", "seg_test"), False, True),
        (("asl alphabet train", "asl alphabet val"), True, False),
    ],
)
def test_parts_in_the_usual_spellings(tmp_path: Path, names: tuple[str, ...], validation: bool, test: bool) -> None:
    for name in names:
        two_classes(tmp_path / name)
    found = listed(tmp_path)
    assert found.classes == ("cat", "dog")
    assert found.own_validation == validation
    expected = {TRAIN: 8, VALIDATION: 8 if validation else 0, TEST: 8}
    if not test:
        expected |= {TRAIN: 6, TEST: 2}  # drawn from training: one of each class
    assert Counter(found.parts.tolist()) == Counter(expected)
    assert in_part(found, TRAIN) <= {f"{names[0]}/{label}/{i}.png" for label in ("cat", "dog") for i in range(4)}
    assert found.left_out == () and found.notes == ()


def test_parts_that_an_archive_holds_one_level_deeper(tmp_path: Path) -> None:
    """The layout of "Intel Image Classification": seg_pred holds pictures without classes."""
    for name in ("seg_train", "seg_test"):
        two_classes(tmp_path / name / name)
    fill(tmp_path / "seg_pred" / "seg_pred", 5)
    found = listed(tmp_path)
    assert found.classes == ("cat", "dog")
    assert Counter(found.parts.tolist()) == {TRAIN: 8, TEST: 8}
    assert found.left_out == ("5 pictures without a class (seg_pred)",)


def test_a_test_part_without_classes_is_passed_over_with_a_word(tmp_path: Path) -> None:
    two_classes(tmp_path / "train")
    fill(tmp_path / "test", 7)
    found = listed(tmp_path)
    assert len(in_part(found, TEST)) == 2
    assert found.left_out == ("7 pictures without a class (test)",)
    assert found.notes == ("test holds no pictures in class folders: test is drawn from the training part",)


def test_a_training_part_alone_is_used_with_a_word(tmp_path: Path) -> None:
    two_classes(tmp_path / "train")
    found = listed(tmp_path)
    assert found.classes == ("cat", "dog") and len(found.files) == 8
    assert found.notes == ("train is the only part: validation and test are drawn from it",)


@pytest.mark.parametrize("names", [("train", "test"), ("training", "val"), ("train",)])
def test_pictures_directly_in_the_training_part_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        fill(tmp_path / name, 5)
    assert f"look like parts and not like classes, but {names[0]} holds no class folders" in refusal(tmp_path)


def test_parts_without_training_are_refused(tmp_path: Path) -> None:
    for name in ("val", "test"):
        two_classes(tmp_path / name)
    assert "none for training" in refusal(tmp_path)


def test_two_folders_for_one_part_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "dev"):
        two_classes(tmp_path / name)
    assert "dev and val" in refusal(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("bus", "train"),
        ("train", "training wheels"),
        ("control", "test"),
        ("invalid", "valid"),
        ("bullet train", "car"),
    ],
)
def test_classes_that_are_called_like_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        fill(tmp_path / name, 4)
    fill(tmp_path / names[0] / "more", 1)
    assert listed(tmp_path).classes == names


def test_folders_beside_the_parts_are_passed_over(tmp_path: Path) -> None:
    for name in ("train", "test"):
        two_classes(tmp_path / name)
    fill(tmp_path / "masks", 9)
    found = listed(tmp_path)
    assert found.classes == ("cat", "dog") and len(found.files) == 16
    assert found.left_out == ("1 folder beside the parts (masks)",)


def test_classes_that_the_training_part_lacks_are_named_and_those_it_has_alone_are_fine(tmp_path: Path) -> None:
    two_classes(tmp_path / "train")
    fill(tmp_path / "val" / "cat", 2)
    assert in_part(listed(tmp_path), VALIDATION) == {"val/cat/0.png", "val/cat/1.png"}
    (tmp_path / "val" / "owl").mkdir()
    assert listed(tmp_path).classes == ("cat", "dog")  # an empty folder lacks nothing
    fill(tmp_path / "val" / "owl", 1)
    assert "validation part" in refusal(tmp_path) and "lacks: owl" in refusal(tmp_path)


def test_accents_are_the_same_on_macs(tmp_path: Path) -> None:
    for part, form in (("train", "NFC"), ("test", "NFD")):
        for label in ("café", "thé"):
            fill(tmp_path / part / unicodedata.normalize(form, label), 4)  # type: ignore[arg-type]
    found = listed(tmp_path)
    assert found.classes == ("café", "thé") and len(in_part(found, TEST)) == 8


def test_every_word_for_a_part_is_one_in_any_case() -> None:
    for word, part in PART_WORDS.items():
        for name in (word, word.upper(), word.title(), f"{word}_set", f"{word}-images", f"{word}2017", f" {word} "):
            assert part_of(name) == (part, ""), name
        assert part_of(f"my_{word}") == (part, "my")
    for name in ("trains", "contest", "latest", "device", "rain", "train_station", "validity", "cat", "7", ""):
        assert part_of(name) is None, name


# --- what is passed over --------------------------------------------------------------------------------------------


def test_hidden_and_system_folders_are_passed_over_at_every_depth(tmp_path: Path) -> None:
    two_classes(tmp_path)
    fill(tmp_path / "cat" / ".ipynb_checkpoints", 4)
    fill(tmp_path / "cat" / "deep" / "@eaDir" / "0.png", ["SYNOPHOTO_THUMB_M.jpg"])
    fill(tmp_path / "dog" / ".@__thumb", 4)
    fill(tmp_path / "dog" / ".hidden" / "deep", 4)
    fill(tmp_path / "dog", ["._0.png", "Thumbs.db", ".DS_Store", ".secret.png"])
    fill(tmp_path / "__MACOSX" / "cat", ["._0.png"])
    for name in ("$RECYCLE.BIN", "System Volume Information", "lost+found", "#recycle", ".git"):
        fill(tmp_path / name, 1)
    found = listed(tmp_path)
    assert found.classes == ("cat", "dog") and len(found.files) == 8
    assert set(found.left_out) == {
        "8 system folders (#recycle, $RECYCLE.BIN, .@__thumb, .ipynb_checkpoints, @eaDir, System Volume Information, "
        "__MACOSX, lost+found)",
        "2 hidden folders",
        "3 system files (.DS_Store, ._*, Thumbs.db)",
        "1 hidden file",
    }


def test_what_is_no_picture_is_counted_by_suffix(tmp_path: Path) -> None:
    two_classes(tmp_path)
    fill(tmp_path / "cat", [*(f"{i}.HEIC" for i in range(40)), "a.txt", "b.txt", "c.TXT", "name.", "x.psd"])
    fill(tmp_path / "dog", ["a.pgm", "b.ppm", "c.pbm"])
    fill(tmp_path, ["above.png", "above.jpg", "labels.csv"])
    found = listed(tmp_path)
    assert len(found.files) == 11 and {p for p in map(str, found.files) if p.endswith("m")}
    assert found.left_out[0] == "40 .heic (no decoder)"
    assert set(found.left_out[1:]) == {
        "3 .txt", "2 pictures outside the class folders", "1 .csv", "1 .psd (no decoder)", "1 file without a suffix",
    }  # fmt: skip


def test_many_kinds_are_told_in_few_words(tmp_path: Path) -> None:
    two_classes(tmp_path)
    fill(tmp_path / "cat", [f"scan.{i:04}" for i in range(50)])
    assert len(listed(tmp_path).left_out) == 13
    assert listed(tmp_path).left_out[-1] == "38 of 38 other kinds"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_without_a_suffix_is_told_by_its_first_bytes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "0001"
    Image.effect_noise((20, 20), 50).convert("RGB").save(path, format=kind)
    assert why_no_picture(str(path)) is None
    path.write_bytes(path.read_bytes()[1:])
    assert why_no_picture(str(path)) == "file{s} without a suffix"


@pytest.mark.parametrize("text", ["BMW and other cars, in alphabetical order", "Python 3", "P5 is a list", "", "MM"])
def test_texts_without_a_suffix_are_no_pictures(tmp_path: Path, text: str) -> None:
    (tmp_path / "README").write_text(text)
    assert why_no_picture(str(tmp_path / "README")) is not None


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    two_classes(tmp_path)
    os.mkfifo(tmp_path / "cat" / "pipe")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    assert listed(tmp_path).left_out == ("2 special files",)


# --- links ----------------------------------------------------------------------------------------------------------


def test_links_are_followed_and_each_picture_is_listed_once(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "pics")
    fill(tmp_path / "elsewhere" / "owls" / "barn", 5)
    fill(tmp_path / "more", ["x.png"])
    (root / "owl").symlink_to(tmp_path / "elsewhere" / "owls")
    (root / "cat" / "0-more").symlink_to(tmp_path / "more")
    (root / "cat" / "0-more-again").symlink_to(tmp_path / "more")
    (root / "cat" / "-first.png").symlink_to("0.png")
    (root / "dog" / "x.png").symlink_to(tmp_path / "more" / "gone.png")
    (root / "dog" / "self.png").symlink_to("self.png")
    (root / "dog" / "inside-a-file").symlink_to("0.png/x")
    found = listed(root)
    assert {(path, label) for path, label, _ in content(found)} == {
        *((f"{label}/{i}.png", label) for label in ("cat", "dog") for i in range(4)),
        *((f"owl/barn/{i}.png", "owl") for i in range(5)),
        ("cat/0-more/x.png", "cat"),
    }
    assert set(found.left_out) == {"3 broken links", "1 folder listed twice", "1 picture listed twice"}


@pytest.mark.parametrize("target", ["..", "../..", "/", "../cat", "inner"])
def test_loops_of_links_end(tmp_path: Path, target: str) -> None:
    root = two_classes(tmp_path / "pics")
    fill(root / "cat" / "inner", 1)
    (root / "cat" / "loop").symlink_to(target)
    (root / "cat" / "inner" / "up").symlink_to("../..")
    (root / "all").symlink_to(".")
    found = listed(root)
    assert found.classes == ("cat", "dog") and len(found.files) == 9
    assert sum(int(words.split()[0]) for words in found.left_out) == 3


def test_two_folders_that_link_to_each_other(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "pics")
    (fill(tmp_path / "one", 2) / "two").symlink_to(tmp_path / "two")
    (fill(tmp_path / "two", 2) / "one").symlink_to(tmp_path / "one")
    (root / "cat" / "one").symlink_to(tmp_path / "one")
    assert len(listed(root).files) == 12


def test_a_picture_in_two_classes_or_parts_is_refused_by_name(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "pics")
    (root / "cat" / "also.png").symlink_to("../dog/3.png")
    assert "dog/3.png (dog, training) and cat/also.png (cat, training)" in refusal(root)
    two_classes(tmp_path / "parts" / "train")
    (tmp_path / "parts" / "test").symlink_to("train")
    assert "train/cat/0.png (cat, training) and test/cat/0.png (cat, test)" in refusal(tmp_path / "parts")


# --- refusals -------------------------------------------------------------------------------------------------------


def test_classes_with_too_few_pictures_are_named_with_their_numbers(tmp_path: Path) -> None:
    for label in range(200):
        fill(tmp_path / f"{label:03}", 9)
    fill(tmp_path / "owl", 1)
    fill(tmp_path / "cat", [*(f"{i}.heic" for i in range(8)), "1.png", "2.png"])
    (tmp_path / "none").mkdir()
    words = refusal(tmp_path)
    assert "at least 3 images" in words and "cat has 2, none has 0, owl has 1." in words and "000" not in words
    assert "8 .heic (no decoder)" in words


@pytest.mark.parametrize(
    ("given", "need"),
    [((), 3), (("test",), 2), (("val",), 2), (("val", "test"), 1)],
    ids=["none", "test", "val", "both"],
)
def test_each_part_that_is_drawn_needs_a_picture_of_each_class(
    tmp_path: Path, given: tuple[str, ...], need: int
) -> None:
    for part in given:
        two_classes(tmp_path / part)
    two_classes(tmp_path / "train", need - 1)
    assert f"at least {need} image" in refusal(tmp_path)
    two_classes(tmp_path / "train", need)
    found = listed(tmp_path)
    assert Counter(found.labels[found.parts == TRAIN].tolist()) == dict.fromkeys((0, 1), need - ("test" not in given))


def test_folders_that_hold_no_data_set(tmp_path: Path) -> None:
    assert "no folder" in refusal(tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert "no folder" in refusal(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "holds no class; it takes at least two folders" in refusal(tmp_path / "empty")
    fill(tmp_path / "flat", 12)
    assert "12 pictures outside the class folders" in refusal(tmp_path / "flat")
    fill(tmp_path / "one" / "cat", 12)
    assert "one class, cat; it takes at least two folders" in refusal(tmp_path / "one")
    two_classes(tmp_path / "zip" / "PetImages")
    assert f"Did you mean folder:{tmp_path}/zip/PetImages?" in refusal(tmp_path / "zip")


def test_a_class_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    two_classes(tmp_path)
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert "not UTF-8" in refusal(tmp_path)


def test_a_folder_that_cannot_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies in a folder of this user alone
        root = two_classes(Path(name))
        root.chmod(0o755)
        listed(root)  # imports what it needs while this user may
        closed = fill(root / "dog" / "private", 1)
        closed.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # permissions do not bind root
        try:
            words = refusal(root)
        finally:
            os.seteuid(user)
            closed.chmod(0o700)
    assert f"{closed} cannot be read: Permission denied" in words


# --- CSV files ------------------------------------------------------------------------------------------------------


def table(folder: Path, delimiter: str = ",") -> str:
    """One line a picture of two classes, without a header."""
    return "".join(
        f"{path.relative_to(folder)}{delimiter}{path.parent.name}\n"
        for label in ("cat", "dog")
        for path in sorted((folder / label).iterdir())
    )


def csv_file(folder: Path, text: str | bytes, name: str = "labels.csv") -> str:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return f"csv:{folder / name}"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", ["path{}label", "File Name{}CLASS", "filepaths{}labels", '"image_path"{}"target"'])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
def test_a_csv_file_in_the_usual_forms(tmp_path: Path, delimiter: str, header: str, bom: bytes) -> None:
    two_classes(tmp_path)
    rows = table(tmp_path, delimiter).replace("\n", "\r\n\r\n")  # with empty lines
    found = list_pictures(csv_file(tmp_path, bom + f"{header.format(delimiter)}\r\n{rows}".encode()))
    assert found.name == f"csv:{tmp_path}/labels.csv" and found.root == tmp_path
    assert content(found) == content(listed(tmp_path))
    assert (found.classes, found.left_out, found.notes) == (("cat", "dog"), (), ())


def test_the_columns_may_stand_anywhere_and_numbers_stay_text(tmp_path: Path) -> None:
    fill(tmp_path, [f"a, {i};b.png" for i in range(6)])
    rows = "".join(f'{i},"a, {i};b.png",{"007" if i < 3 else "1e3"}\n' for i in range(6))
    found = list_pictures(csv_file(tmp_path, f"id,image,label\n{rows}"))
    assert found.classes == ("007", "1e3") and len(found.files) == 6


def test_a_part_column_gives_the_parts(tmp_path: Path) -> None:
    two_classes(tmp_path)
    parts = itertools.cycle(["Train", "training", "val", "TEST"])
    rows = "".join(f"{line},{next(parts)}\n" for line in table(tmp_path).splitlines())
    found = list_pictures(csv_file(tmp_path, f"file,label,data set\n{rows}"))
    assert found.own_validation
    for part, numbers in ((TRAIN, "01"), (VALIDATION, "2"), (TEST, "3")):
        assert in_part(found, part) == {f"{label}/{i}.png" for label in ("cat", "dog") for i in numbers}
    rows = rows.replace("TEST", "evaluating")
    assert "an unknown part: line 5 ('evaluating'), line 9 ('evaluating')" in refusal(
        csv_file(tmp_path, f"file,label,split\n{rows}")
    )


def test_absolute_paths_links_and_backslashes_lead_to_one_picture(tmp_path: Path) -> None:
    two_classes(tmp_path / "pics")
    (tmp_path / "link").symlink_to("pics")
    rows = "".join(
        f"{path},{label}\n"
        for label in ("cat", "dog")
        for i in range(4)
        for path in (f"{tmp_path}/pics/{label}/{i}.png", f"./pics/{label}/{i}.png", f"link/{label}/{i}.png",
                     f"pics\\{label}\\{i}.png", f"pics/cat/../{label}/{i}.png")
    )  # fmt: skip
    found = list_pictures(csv_file(tmp_path, f"path,label\n{rows}"))
    assert in_part(found, TRAIN) | in_part(found, TEST) == {
        f"pics/{c}/{i}.png" for c in ("cat", "dog") for i in range(4)
    }
    assert found.left_out == ("32 pictures listed twice",)


def test_a_picture_with_two_labels_is_refused_by_name(tmp_path: Path) -> None:
    two_classes(tmp_path)
    words = refusal(csv_file(tmp_path, f"path,label\n{table(tmp_path)}cat/1.png,dog\n"))
    assert "cat/1.png (cat, training) and cat/1.png (dog, training)" in words


def test_missing_files_are_named_all_at_once(tmp_path: Path) -> None:
    two_classes(tmp_path)
    rows = "".join(f"gone/{i}.png,cat\n" for i in range(25))
    words = refusal(csv_file(tmp_path, f"path,label\n{table(tmp_path)}{rows}cat,cat\n"))
    assert "names 26 pictures that are not there: gone/0.png," in words and "gone/9.png and 16 more" in words
    assert f"relative to {tmp_path}" in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("path,label\n", "no class"),
        ("id,diagnosis\n1,2\n", "it has 'id', 'diagnosis'"),
        ("cat/0.png,cat\n", "it has 'cat/0.png', 'cat'"),
        ("path,label\n,cat\n\ncat/0.png\ncat/1.png, \n", "no path: line 2; no label: line 4, line 5"),
        ("path,label,part\ncat/0.png,cat\n", "an unknown part: line 2 ('')"),
        ('path,label\n"cat/0.png,cat\n', "not CSV"),
        ("path,label\ncat/0.png,caf\xe9\n".encode("latin-1"), "not text in UTF-8 (line 2)"),
        ("path,label\ncat/0.png,cat\n".encode("utf-16"), "not text in UTF-8"),
        (b"path,label\ncat/0.png\0,cat\n", "not there"),
        ("path,label\n" + "".join(f"cat/{i}.png,cat\n" for i in range(4)), "at least two labels"),
        ("path,label\n" + "".join(f"cat/{i}.png,{i % 2}\n" for i in range(4)), "0 has 2, 1 has 2"),
        ("path,label,part\ncat/0.png,cat,test\ncat/1.png,dog,test\n", "lacks: cat, dog"),
    ],
)
def test_csv_files_that_cannot_be_used(tmp_path: Path, text: str | bytes, words: str) -> None:
    two_classes(tmp_path)
    told = refusal(csv_file(tmp_path, text))
    assert words in told and str(tmp_path / "labels.csv") in told


def test_a_csv_file_that_is_not_there(tmp_path: Path) -> None:
    assert "There is no file" in refusal(f"csv:{tmp_path}/none.csv")
    assert "cannot be read" in refusal(f"csv:{tmp_path}")


def test_pictures_in_a_csv_file_without_a_decoder_are_left_out(tmp_path: Path) -> None:
    two_classes(tmp_path)
    fill(tmp_path / "cat", ["x.heic", "y.heic"])
    fill(tmp_path / "dog", ["z"])
    (tmp_path / "dog" / "z").write_bytes(b"P5\n1 1\n255\n0")
    found = list_pictures(csv_file(tmp_path, f"path,label\n{table(tmp_path)}"))
    assert len(found.files) == 9 and found.left_out == ("2 .heic (no decoder)",)


# --- trees drawn at random ------------------------------------------------------------------------------------------

CLASSES = ("7", "10", "Cat", "cat", "train station", "été", "v1.5")

SPELLINGS = {
    TRAIN: ("train", "Training", "TRAIN_SET", "train-images"),
    VALIDATION: ("val", "Valid", "VALIDATION", "dev set"),
    TEST: ("test", "Testing", "TEST2", "eval"),
}

PLACES = ("", "in", "in/deeper", "@cat", "_x")
PASSED = (".hidden", "in/.h", "@eaDir", "in/__MACOSX", ".ipynb_checkpoints")
NAMES = st.lists(st.sampled_from(("a.png", "b.JPG", "c.jpeg", "0.webp", "d.Gif", "e.tif", "f.pgm")), unique=True)


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[int, str], dict[tuple[int, str], dict[str, list[str]]]]:
    """The folder of each part, and (part, class) -> folder inside the class -> names of pictures."""
    parts = draw(st.sampled_from([(TRAIN,), (TRAIN, TEST), (TRAIN, VALIDATION), (TRAIN, VALIDATION, TEST)]))
    bare = parts == (TRAIN,) and draw(st.booleans())
    spelt = {part: "" if bare else draw(st.sampled_from(SPELLINGS[part])) for part in parts}
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=4, unique=True))
    places = st.dictionaries(st.sampled_from(PLACES), NAMES, max_size=3)
    tree = {(part, label): draw(places) for part in parts for label in classes}
    for label in classes:
        tree[TRAIN, label] = {**tree[TRAIN, label], "": ["0.png", "1.png", "2.png"]}  # the fewest that are taken
    return spelt, tree


@settings(max_examples=25)
@given(trees(), st.data())
def test_exactly_the_pictures_of_a_tree_are_listed_once(
    tree: tuple[dict[int, str], dict[tuple[int, str], dict[str, list[str]]]], data: st.DataObject
) -> None:
    spelt, classes = tree
    expected = set()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve() / "root"
        for number, ((part, label), places) in enumerate(classes.items()):
            folder = root / spelt[part] / label
            if data.draw(st.booleans(), label="the class folder is a link"):
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.symlink_to(fill(root.parent / str(number), 0))
            fill(folder, ["._0.png", ".x.png", "notes.txt"])
            for place, names in places.items():
                fill(folder / place, names)
                expected |= {(str(Path(spelt[part], label, place, name)), label, part) for name in names}
            fill(folder / data.draw(st.sampled_from(PASSED), label="passed over"), ["a.png"])
            (folder / "z.png").symlink_to(data.draw(st.sampled_from([".", "..", "0.png", "z.png", "gone"])))
        found = list_pictures(f"folder:{root}")
    given = {part for _, _, part in expected}
    assert found.own_validation == (VALIDATION in given)
    assert found.classes == tuple(sorted({label for _, label in classes}))
    drawn = set() if TEST in given else in_part(found, TEST)
    assert bool(drawn) == (TEST not in given)
    assert {(path, label, TRAIN if path in drawn else part) for path, label, part in content(found)} == expected
