"""A study in other people's tools: tables, TensorBoard, Optuna and its dashboard."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest

from suite.errors import InputError
from suite.reporting import tables


def test_tables_for_other_tools(small: Any, tmp_path: Path) -> None:
    trials, events = tables.tables(small.study, tmp_path)
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(tmp_path / "events.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert (len(rows), len(lines)) == (trials, events)
    assert trials == 6
    evaluated = [line for line in lines if line["kind"] == "evaluated"]
    for state in small.study.states():
        curve = [accuracy for _, accuracy in state.curve]  # of the last training; the log has the short ones before it
        assert [float(line["accuracy"]) for line in evaluated if line["trial"] == state.id][-len(curve) :] == curve
        paused = [line for line in lines if (line["trial"], line["kind"]) == (state.id, "paused")]
        assert [(float(line["epochs"]), float(line["accuracy"])) for line in paused] == state.rungs


def test_event_files_for_tensorboard(small: Any, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tables.tensorboard(small.study, tmp_path / "runs")
    for state in small.study.states():
        found = accumulator.EventAccumulator(str(tmp_path / "runs" / state.id)).Reload()
        points = found.Scalars("validation/accuracy")
        assert [p.value for p in points] == pytest.approx([accuracy for _, accuracy in state.curve])
    with pytest.raises(InputError, match="already holds something"):
        tables.tensorboard(small.study, tmp_path / "runs")


def test_parquet_holds_what_csv_holds(small: Any, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    tables.tables(small.study, tmp_path)
    assert tables.tables(small.study, tmp_path, parquet=True)[0] == 6
    for name, words in (("trials", {"trial_id", "arm", "state"}), ("events", {"trial", "arm", "kind"})):
        table = parquet.read_table(tmp_path / f"{name}.parquet")
        with open(tmp_path / f"{name}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert table.num_rows == len(rows) > 0
        assert table.column_names == list(rows[0])
        for mine, theirs in zip(table.to_pylist(), rows):
            assert {k for k, v in mine.items() if v is None} == {k for k, v in theirs.items() if v == ""}
            for key, value in mine.items():
                if isinstance(value, int | float):
                    assert float(value) == float(theirs[key])
        kinds = {field.name: str(field.type) for field in table.schema}
        assert {kinds[word] for word in words} == {"string"}
        assert kinds["accuracy"] == kinds["loss"] == kinds["epoch"] == "double"
    assert str(parquet.read_schema(tmp_path / "trials.parquet").field("energy").type) == "double"  # known or not


def test_values_of_several_kinds_share_a_column() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"a": [1, 0.25, None], "b": [1, "auto", None], "c": [True, False, None], "d": [None, None, None]}
    made = parquet.read_table(io.BytesIO(tables._parquet(columns, {"d": {float}}))).to_pydict()
    assert made == {"a": [1.0, 0.25, None], "b": ["1", "auto", None], "c": [True, False, None], "d": [None] * 3}


def test_without_pyarrow_the_message_says_how_to_install_it(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # what Python does with a module that cannot be imported
    with pytest.raises(InputError, match=r"pip install 'mnist-suite\[parquet\]'"):
        tables.tables(small.study, tmp_path / "tables", parquet=True)
    assert not (tmp_path / "tables").exists()


@pytest.fixture
def database(small: Any, tmp_path: Path) -> str:
    for path in small.study.path.glob("optuna.db*"):
        shutil.copyfile(path, tmp_path / path.name)
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def test_optuna_sees_every_trial_and_draws_it(small: Any, database: str) -> None:
    arms = small.study.study().experiment.arms
    assert set(optuna.get_all_study_names(database)) == {f"small/{arm}" for arm in arms}
    states = {"finished": optuna.trial.TrialState.COMPLETE, "pruned": optuna.trial.TrialState.PRUNED}
    for arm in arms:
        study = optuna.load_study(study_name=f"small/{arm}", storage=database)
        ours = [s for s in small.study.states() if s.trial.arm == arm]
        assert [t.user_attrs["id"] for t in study.trials] == [s.id for s in ours]
        assert study.best_value == max(s.best for s in ours if s.state == "finished")
        for theirs, mine in zip(study.trials, ours):
            assert theirs.state == states[mine.state]
            assert theirs.params == mine.trial.params
            assert mine.rungs  # the short trainings after which pruning is decided
            assert list(theirs.intermediate_values.values()) == [accuracy for _, accuracy in mine.rungs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            drawn = optuna.visualization.matplotlib.plot_parallel_coordinate(study)
            assert len(drawn.figure.axes) > 2
            drawn = optuna.visualization.matplotlib.plot_intermediate_values(study)
            assert len(drawn.lines) == len(ours)


def test_the_dashboard_of_optuna_serves_it(small: Any, database: str) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    app = dashboard.wsgi(database)

    def get(path: str) -> Any:
        answered: list[str] = []
        environment = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
        }
        body = b"".join(app(environment, lambda status, *_: answered.append(status)))
        assert answered == ["200 OK"]
        return json.loads(body)

    listed = {one["study_name"]: one["study_id"] for one in get("/api/studies")["study_summaries"]}
    assert set(listed) == {"small/net-scratch", "small/net-head"}
    for study in listed.values():
        trials = get(f"/api/studies/{study}")["trials"]
        assert len(trials) == 3
        assert all(trial["intermediate_values"] for trial in trials)
