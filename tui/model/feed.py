"""Reads the results directory: a `Watcher` that reads incrementally, and a thread that polls it.

A trial with a result is never opened again. A trial without one costs a `stat` and the new lines of its log. A
directory is listed only when it has changed. Polling, because inotify does not work on network disks.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from suite.ranking.annotations import Annotations, tests
from suite.ranking.final import EVALUATION_FILE
from suite.ranking.leaderboard import Row, row
from suite.ranking.shift import SHIFT_FILE, shifts
from suite.spec import NAME, StudyFile, is_default
from suite.store.events import EventReader
from suite.store.exports import EXPORTS_FILE, read_exports
from suite.store.finalists import representative
from suite.store.liveness import STALE_SECONDS, Pulse
from suite.store.notes import NO_NOTE, NOTES_FILE, STUDY, read_notes
from suite.store.study import FINAL, StudyDir
from suite.store.trial import TrialDir, TrialState
from tui.model.detail import Detail, Follower, file_signature
from tui.model.jobs import opening
from tui.model.snapshot import Key, Opening, Run, Snapshot, StudyView

INTERVAL = 0.5  # seconds between polls
SLICE = 0.25  # seconds of reading new trials, after which those read so far are shown
RELIST = 10.0  # seconds after which a directory is listed in any case: network disks may cache its mtime


@dataclass(slots=True)
class Watched:
    """One trial, polled until it has a result."""

    directory: TrialDir
    reader: EventReader
    state: TrialState | None = None
    run: Run | None = None
    began: float = 0.0
    default: bool | None = None  # whether it has its arm's default recipe; None: not known yet

    def poll(self, study: str, now: float) -> bool:
        """Read what is new; return whether the run has changed. `now`: as in `leaderboard.row`."""
        if self.state is None:
            trial = self.directory.trial()
            if trial is None:
                return False  # being written, or damaged: read again at the next poll
            self.state = TrialState(self.directory.id, trial)
        state = self.state
        # The result is read before the events: an event written in between is then read at the next poll.
        record = self.directory.record()
        lines = self.reader.poll() if record is None else []
        state.update(lines)
        if lines and not self.began:
            self.began = lines[0].time
        silent = state.state == "running" and now - state.last > STALE_SECONDS
        shown = self.run
        if shown and record is None and not lines and self.reader.bad == shown.bad_lines:
            was_stale = shown.row.state == "stale"
            if silent == was_stale:
                return False
        state.bad_lines = self.reader.bad
        state.settle(record)
        self.run = Run(
            key=(study, state.id),
            row=row(study, state, now=now),
            trial=state.trial,
            record=record,
            started=state.started,
            step=record.steps if record else state.progress.step if state.progress else 0,
            progress=None if record else state.progress,
            began=record.started if record and record.started else self.began,
            last=state.last,
            bad_lines=state.bad_lines,
        )
        return True


@dataclass(slots=True)
class WatchedStudy:
    """One study and what has been read of it."""

    directory: StudyDir
    view: StudyView
    pulse: Pulse
    signatures: dict[str, object] = field(default_factory=dict)
    trials: dict[str, Watched] = field(default_factory=dict)
    live: list[str] = field(default_factory=list)  # trials read at least once, without a result
    unread: list[str] = field(default_factory=list)  # trials listed, not read yet
    listed: float = 0.0  # when the trials were last listed, seconds since 1970
    beside: Annotations = field(default_factory=Annotations)

    def changed(self, name: str) -> bool:
        """Whether a file or folder of the study has changed since the last call with this name."""
        signature = file_signature(self.directory.path / name)
        before = self.signatures.get(name, "never")
        self.signatures[name] = signature
        return signature != before


class Watcher:
    """Reads one results directory incrementally. Not thread-safe: only one thread may poll."""

    def __init__(
        self,
        results: Path,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.results = results
        self.clock, self.monotonic = clock, monotonic
        self._studies: dict[str, WatchedStudy] = {}
        self._version = 0
        self._last = Snapshot()
        self._openings: tuple[Opening, ...] = ()

    def poll(self, budget: float = float("inf")) -> Snapshot:
        """Return the present state. After `budget` seconds, the rest of the new trials is left to the next poll."""
        deadline = time.monotonic() + budget
        if self._studies and not self.results.is_dir():
            return self._gone()
        changed = self._list_studies()
        loading = 0
        for study in self._studies.values():
            changed |= self._poll_study(study, deadline)
            loading += len(study.unread)
        problem = None
        if not self._studies:
            there = self.results.is_dir()
            problem = f"No study in {self.results} yet." if there else f"There is no directory {self.results} yet."
        if changed or problem != self._last.problem or loading != self._last.loading or not self._version:
            self._version += 1
            views = tuple(study.view for _, study in sorted(self._studies.items()))
            self._last = Snapshot(self._version, self.clock(), views, loading, problem, self._openings)
        return self._last

    def _gone(self) -> Snapshot:
        """The last state, while the directory is away: deleted, renamed, or on a disk that is not mounted."""
        problem = f"The results are gone: there is no directory {self.results}. This is their last state."
        if self._last.problem != problem:
            self._version += 1
            self._last = replace(self._last, version=self._version, problem=problem)
        return self._last

    def _list_studies(self) -> bool:
        try:
            with os.scandir(self.results) as entries:
                names = {e.name for e in entries if re.fullmatch(NAME, e.name)}
        except OSError:
            names = set()
        there = {n for n in names if n in self._studies or (self.results / n / "study.json").exists()}
        gone = [n for n in self._studies if n not in there or not self._studies[n].directory.exists()]
        for name in gone:
            del self._studies[name]
        new = there - self._studies.keys() - set(gone)
        for name in new:
            view = StudyView(name, None, None, False, ())
            self._studies[name] = WatchedStudy(StudyDir(self.results, name), view, Pulse(self.clock, self.monotonic))
        found = (one for name in sorted(names - there) if (one := opening(self.results / name)) is not None)
        openings = tuple(sorted(found, key=lambda one: one.since))
        changed, self._openings = openings != self._openings, openings
        return bool(gone or new or changed)

    def _poll_study(self, study: WatchedStudy, deadline: float) -> bool:
        now, view, directory = self.clock(), study.view, study.directory
        file, status = view.file, view.status
        if study.changed("study.json"):
            file = directory.study()
            if _replaced(view.file, file):
                study.trials.clear()
                study.live, study.unread, study.listed = [], [], 0.0
                study.signatures = {"study.json": study.signatures["study.json"]}
        if study.changed("status.json"):
            status = directory.status()
        life = study.pulse.look(status)
        present = study.pulse.present
        changed = self._list_trials(study, now)
        changed |= self._poll_trials(study, now if present is None else present, deadline)
        changed |= _annotate(study, file, changed)
        stopping = directory.stop_path.exists()
        if changed:
            runs = tuple(w.run for w in study.trials.values() if w.run is not None)
        else:
            runs = view.runs
        stale, note = life in ("silent", "died"), study.beside.notes.get(STUDY, NO_NOTE)
        new = StudyView(directory.name, file, status, stopping, runs, stale, life == "died", note)
        if new == view:
            return False  # the old view stays, with its cached properties
        study.view = new
        return True

    def _list_trials(self, study: WatchedStudy, now: float) -> bool:
        """Find new and removed trials; return whether one was removed."""
        overdue = not 0 <= now - study.listed < RELIST
        if not study.changed("trials") and not overdue:
            return False
        study.listed = now
        names = dict.fromkeys(study.directory.trial_ids())
        gone = [name for name in study.trials if name not in names]
        for name in gone:
            del study.trials[name]
        new = [name for name in names if name not in study.trials]
        for name in new:
            directory = study.directory.trial(name)
            study.trials[name] = Watched(directory, EventReader(directory.events))
        study.live = [name for name in study.live if name in study.trials]
        study.unread = [name for name in study.unread if name in study.trials] + new
        return bool(gone)

    def _poll_trials(self, study: WatchedStudy, now: float, deadline: float) -> bool:
        changed = False
        live: list[str] = []
        for name in study.live:
            changed |= self._poll_trial(study, name, live, now)
        read = 0
        for name in study.unread:
            if time.monotonic() > deadline:
                break
            changed |= self._poll_trial(study, name, live, now)
            read += 1
        study.unread = study.unread[read:]
        study.live = live
        return changed

    @staticmethod
    def _poll_trial(study: WatchedStudy, name: str, live: list[str], now: float) -> bool:
        watched = study.trials[name]
        changed = watched.poll(study.directory.name, now)
        if changed and watched.run is not None:
            watched.run = replace(watched.run, row=study.beside.on(watched.run.row))
        if watched.run is None or not watched.run.has_result:
            live.append(name)
        return changed


def _annotate(study: WatchedStudy, file: StudyFile | None, changed: bool) -> bool:
    """Read what the study's files say beside its trials' own, and take it in where it differs; return whether it does.

    `changed`: whether a trial has changed, so that the trial of a default recipe may have finished.
    """
    before = now = study.beside
    if file is not None and study.changed(f"{FINAL}/{EVALUATION_FILE}"):
        now = replace(now, tests=tests(study.directory, file.experiment.arms))
    if study.changed(SHIFT_FILE):
        now = replace(now, shifts=shifts(study.directory))
    if study.changed(NOTES_FILE):
        now = replace(now, notes=read_notes(study.directory))
    if study.changed(EXPORTS_FILE):
        now = replace(now, exports=read_exports(study.directory))
    if file is not None and changed:
        now = replace(now, defaults=_defaults(study, file))
    if now == before:
        return False
    study.beside = now
    for watched in study.trials.values():
        if watched.run is not None:
            watched.run = replace(watched.run, row=now.on(watched.run.row))
    return True


def _defaults(study: WatchedStudy, file: StudyFile) -> dict[str, Row]:
    """The finished trial of each arm's default recipe."""
    found: dict[str, list[TrialState]] = {}
    for watched in study.trials.values():
        if watched.state is None:
            continue
        trial = watched.state.trial
        if watched.default is None and (arm := file.experiment.arms.get(trial.arm)) is not None:
            watched.default = is_default(arm, trial.params)
        if watched.default:
            found.setdefault(trial.arm, []).append(watched.state)
    best = {arm: representative(states) for arm, states in found.items()}
    rows = {arm: study.trials[one.id].run for arm, one in best.items() if one and one.state == "finished"}
    # without what is annotated, which depends on the default itself
    return {arm: Annotations().on(run.row) for arm, run in rows.items() if run is not None}


def _replaced(before: StudyFile | None, now: StudyFile | None) -> bool:
    """Whether the study was deleted and a new one started under its name."""
    return before is not None and now is not None and before.created != now.created


class Feed:
    """A daemon thread that polls a results directory and hands each state to `publish`.

    `publish` is called in that thread with the snapshot, the details of the followed trials, and the reason why
    reading failed, if it did. The thread is not joined at the end, so a hanging disk cannot delay quitting.
    """

    def __init__(
        self,
        results: Path,
        publish: Callable[[Snapshot, dict[Key, Detail], str | None], object],
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.watcher = Watcher(results, clock)
        self.interval = interval
        self._publish = publish
        self._results = results
        self._followers: dict[Key, Follower] = {}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def wake(self) -> None:
        """Poll now instead of after the interval."""
        self._wake.set()

    def follow(self, keys: Iterable[Key]) -> None:
        """Read the complete logs of these trials, and of no others."""
        wanted = set(keys)
        with self._lock:
            kept = {key: follower for key, follower in self._followers.items() if key in wanted}
            for key in wanted - kept.keys():
                study, trial = key
                kept[key] = Follower(StudyDir(self._results, study).trial(trial))
            self._followers = kept
        self.wake()

    def poll(self, budget: float = SLICE) -> tuple[Snapshot, dict[Key, Detail]]:
        """The state of everything, and in full that of the followed trials."""
        snapshot = self.watcher.poll(budget)
        with self._lock:
            followers = dict(self._followers)
        return snapshot, {key: follower.poll() for key, follower in followers.items()}

    def _loop(self) -> None:
        while not self._stop.is_set():
            problem = None
            snapshot, details = Snapshot(), {}
            try:
                snapshot, details = self.poll()
            except Exception as error:  # of any kind: it is shown, and reading is tried again
                problem = f"Reading failed: {type(error).__name__}: {error}"
            if self._stop.is_set():
                return
            self._publish(snapshot, details, problem)
            self._wake.wait(0.01 if snapshot.loading else self.interval)
            self._wake.clear()
