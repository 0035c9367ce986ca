"""exports.jsonl: what is written is read, the last line holds, and torn lines are left out."""

from __future__ import annotations

from pathlib import Path

from suite.spec import FormatFigures
from suite.store.exports import EXPORTS_FILE, read_exports, write_exports
from suite.store.study import StudyDir


def figures(accuracy: float) -> FormatFigures:
    return FormatFigures(
        file="model.onnx",
        sha256="0",
        bytes=10,
        runtime="onnxruntime 1",
        compared_on="validation pictures",
        images=5,
        equal=1.0,
        difference=0.0,
        difference_of="logits",
        accuracy=accuracy,
        latency_seconds=0.1,
        latency_256_seconds=0.2,
        threads=1,
    )


def test_the_last_figures_of_a_format_hold(tmp_path: Path) -> None:
    study = StudyDir(tmp_path, "s")
    study.path.mkdir()
    assert read_exports(study) == {}
    write_exports(study, "0001-a", {"onnx": figures(0.5), "int8": figures(0.4)})
    with open(study.path / EXPORTS_FILE, "ab") as file:
        file.write(b'{"time": 1, "trial": "0001-a", "for')  # a writer that was killed
    write_exports(study, "0001-a", {"onnx": figures(0.6)})
    write_exports(study, "0002-b", {"onnx": figures(0.7)})
    found = read_exports(study)
    assert found["0001-a"] == {"onnx": figures(0.6), "int8": figures(0.4)}
    assert found["0002-b"] == {"onnx": figures(0.7)}
