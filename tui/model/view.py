"""How the leaderboard is shown: columns, order, filter, grouping; and the next view for each key."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import BaseModel, ConfigDict

from suite.ranking.leaderboard import COSTS

DEFAULT_COLUMNS = (
    "flag",
    "rank",
    "number",
    "arm",
    "state",
    "accuracy",
    "test",
    "gap",
    "gain",
    "tags",
    "flops",
    "seconds",
    "params",
    "train_flops",
    "energy",
    "curve",
    "tuned",
)  # what an 80 cells wide screen must show comes first
UNSORTABLE = ("flag", "rank")
TOPS = (0, 10, 25, 50, 100)  # numbers of lines to choose from; 0: all


class View(BaseModel):
    """How the leaderboard is shown. Immutable; this is what a saved view holds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    columns: tuple[str, ...] = DEFAULT_COLUMNS
    sort: str = "accuracy"  # a column
    reverse: bool = False  # the worst first
    cost: str = "flops"  # of the Pareto front
    filter: str = ""  # in the language of `tui.model.filters`
    study: str | None = None  # None: all of them
    top: int = 0  # number of lines; 0: all
    grouped: bool = False  # seeds of one configuration on one line
    folded: bool = True  # pruned and paused trials are counted on one line, once something has finished

    def sane(self) -> View:
        """The view without values that this version does not know, as a file of another version may hold."""
        cost = self.cost if self.cost in COSTS else "flops"
        return self.changed(cost=cost, top=max(0, self.top), columns=self.columns or DEFAULT_COLUMNS)

    def changed(self, **fields: object) -> View:
        return self.model_copy(update=fields)

    def sorted_by_heading(self, column: str) -> View:
        """After a click on a heading: sorted by it, or reversed where it already is. Some columns have no order."""
        if column in UNSORTABLE:
            return self
        return self.changed(sort=column, reverse=column == self.sort and not self.reverse)

    def sorted_by_neighbour(self, by: int) -> View:
        """Sorted by the column `by` places to the right of the present one."""
        keys = [key for key in self.columns if key not in UNSORTABLE] or ["accuracy"]
        place = (keys.index(self.sort) + by) % len(keys) if self.sort in keys else 0
        return self.changed(sort=keys[place], reverse=False)

    def next_top(self) -> View:
        return self.changed(top=TOPS[(TOPS.index(self.top) + 1) % len(TOPS)] if self.top in TOPS else 0)

    def next_cost(self, by: int = 1) -> View:
        return self.changed(cost=COSTS[(COSTS.index(self.cost) + by) % len(COSTS)])

    def toggled_grouping(self) -> View:
        """With seeds grouped or not; while they are, a column tells their number."""
        columns = self.columns
        if self.grouped:
            columns = tuple(key for key in columns if key != "seeds")
        elif "seeds" not in columns:
            place = columns.index("accuracy") + 1 if "accuracy" in columns else len(columns)
            columns = (*columns[:place], "seeds", *columns[place:])
        return self.changed(grouped=not self.grouped, columns=columns)

    def fitted(self, studies: int, known: Collection[str]) -> View:
        """What is drawn of the default columns: the cost of the front before the others, none that is unknown to all
        lines, and the study's name where there are several. Columns that the user has chosen stay as they are.

        Args:
            studies: Number of studies in the table.
            known: Columns that have a value on some line.
        """
        if self.columns != DEFAULT_COLUMNS:
            return self
        place = DEFAULT_COLUMNS.index("gap") + 1
        first = [key for key in DEFAULT_COLUMNS[:place] if key != "test" or key in known]
        rest = [key for key in DEFAULT_COLUMNS[place:] if key in known and key != self.cost]
        columns = (*first, self.cost, *rest)
        if studies > 1 and self.study is None:
            number = columns.index("number") + 1
            columns = (*columns[:number], "study", *columns[number:])
        return self.changed(columns=columns)
