# ruff: noqa: S608 - no text of a filter gets into a statement: values are bound, names are constants
"""From the tree of a filter to SQL over the fact tables. Every value is a bound parameter.

A comparison with something that is missing is NULL here, which counts as false; `not` turns NULL into
true, so the three values of SQL are two for users.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FilterError
from weightslab.engine.query.fields import resolve
from weightslab.engine.query.nodes import Comparison, Every, Exists, Flag, Not, Some
from weightslab.engine.query.values import read_number, read_quantity, read_span
from weightslab.engine.repository.fact_tables import to_number, to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from weightslab.engine.query.fields import Known
    from weightslab.engine.query.nodes import Field, Literal, Node, Order

__all__ = ["CHECKPOINTS", "EXPERIMENTS", "Compiler", "Scope", "Sql"]

_METRIC: Final = "SELECT id FROM metric_names WHERE name = ?"
_KEY: Final = "SELECT id FROM config_keys WHERE path = ?"


@dataclass(slots=True)
class Sql:
    """A piece of SQL and its parameters, in order."""

    text: str
    values: list[Any] = field(default_factory=list)

    def within(self, text: str, *before: Any) -> Sql:
        """Return `text` with this piece in the place of `{}`."""
        return Sql(text.format(self.text), [*before, *self.values])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a filter is about, and where its facts are.

    Attributes:
        what: `checkpoints` or `experiments`.
        rows: FROM clause; `e` is the experiment, `f` the checkpoint.
        drive: the same where a metric, as `m`, chooses the rows; empty where none can.
        columns: field -> expression.
        about: condition that a row of `said`, as `s`, is about this.
    """

    what: str
    rows: str
    drive: str
    columns: dict[str, str]
    about: str


_SHARED: Final = {
    "hash": "exp_hash",
    "samples": "samples",
    "model.class": "class",
    "model.parameters": "parameters",
    "model.digest": "model",
    "config.digest": "config",
    "data.digest": "data",
}
_OF_ROWS: Final = ("metric", "config")  # kinds that have a table of their own
_GROUP: Final = 40  # parts of one expression
_NEGATIVE: Final = ("!=", "!~", "not in")
_COUNT: Final = "(SELECT count(*) FROM facts c WHERE c.experiment = {}.experiment)"
CHECKPOINTS: Final = Scope(
    what="checkpoints",
    rows="facts f LEFT JOIN experiments e ON e.experiment = f.experiment",
    drive="metrics m CROSS JOIN facts f ON f.checkpoint = m.checkpoint"
    " LEFT JOIN experiments e ON e.experiment = f.experiment",
    columns={
        "created": "f.moment",
        "step": "f.step",
        "revision": "f.revision",
        "sequence": "f.sequence",
        "size": "f.size",
        "checkpoints": _COUNT.format("f"),
        "damaged": "(f.moment IS NULL)",
    },
    about="s.experiment = f.experiment AND (s.step IS NULL OR s.step = f.step)"
    " AND (s.revision IS NULL OR s.revision = f.revision)",
)
EXPERIMENTS: Final = Scope(
    what="experiments",
    rows="experiments e LEFT JOIN facts f ON f.checkpoint = ("
    "SELECT n.checkpoint FROM facts n WHERE n.experiment = e.experiment AND n.moment IS NOT NULL"
    " ORDER BY n.sequence DESC, n.moment DESC, n.step DESC, n.revision DESC LIMIT 1)",
    drive="",
    columns={
        "created": "e.moment",
        "step": "f.step",
        "revision": "f.revision",
        "sequence": "f.sequence",
        "size": "(SELECT total(c.size) FROM facts c WHERE c.experiment = e.experiment)",
        "checkpoints": _COUNT.format("e"),
        "damaged": "(e.damaged OR EXISTS (SELECT 1 FROM facts c"
        " WHERE c.experiment = e.experiment AND c.moment IS NULL))",
    },
    about="s.experiment = e.experiment",
)


class Compiler:
    """Compiles one filter.

    Args:
        scope: what it is about.
        text: the filter, for errors.
        now: aware UTC time, for `2d ago`.
    """

    def __init__(self, scope: Scope, text: str, now: datetime) -> None:
        self._scope = scope
        self._text = text
        self._now = now
        self._is_inside_not = False
        self.rows = scope.rows
        self.driver: str | None = None
        self._row = "f" if scope.what == "checkpoints" else "e"

    # ------------------------------------------------------------ the tree
    def condition(self, node: Node, *, may_drive: bool = False) -> Sql:
        """Return what is true for the rows that match.

        Args:
            node: the filter.
            may_drive: let a metric that each match has to have choose the rows: `rows` is a FROM
                clause then in which `m` is that metric, and `driver` its name. Of 200,000
                checkpoints that saves the set of those that have it.
        Raises: FilterError for unknown fields and for values that do not fit their field.
        """
        parts = list(node.parts) if isinstance(node, Every) else [node]
        for part in parts if may_drive and self._scope.drive else ():
            if not isinstance(part, Comparison):
                continue
            known = resolve(part.field, self._text)
            if known.kind == "metric":
                self.driver, self.rows = known.key, self._scope.drive
                test = self._row_test(part, known).within(
                    f"(m.name = ({_METRIC}) AND {{}})", known.key
                )
                rest = [self._part(other) for other in parts if other is not part]
                return joined([test, *rest], is_every=True)
        return self._part(node)

    def _part(self, node: Node) -> Sql:
        if isinstance(node, Not) and isinstance(node.part, Not):
            return self._part(node.part.part)
        if isinstance(node, Not):
            before, self._is_inside_not = self._is_inside_not, True
            found = self._part(node.part).within("(({}) IS NOT TRUE)")
            self._is_inside_not = before
            return found
        if isinstance(node, (Every, Some)):
            return joined(list(map(self._part, node.parts)), isinstance(node, Every))
        if isinstance(node, Exists):
            return self._exists(resolve(node.field, self._text))
        if isinstance(node, Flag):
            return self._flag(node)
        return self._comparison(node)

    def _flag(self, node: Flag) -> Sql:
        known = resolve(node.field, self._text)
        if known.kind == "flag":
            return self._truth(known)
        if known.kind == "config":
            return self._row_with(known, Sql("kind = 'b' AND value = 1"))
        raise self._error(node.field, f"{known.name} is no flag; compare it with a value")

    def _comparison(self, node: Comparison) -> Sql:
        known = resolve(node.field, self._text)
        some = self._row_test(node, known)
        if known.kind in _OF_ROWS:
            return self._row_with(known, some)
        if node.operator in _NEGATIVE:
            return joined([self._exists(known), some.within("(({}) IS NOT TRUE)")], is_every=True)
        return some

    def _row_test(self, node: Comparison, known: Known) -> Sql:
        """Return the condition of a comparison; of a metric or config value that on its row.

        Of other fields it is the positive one: what `!=` wants has to be there as well.
        """
        operator = {"!=": "=", "in": "=", "not in": "=", "!~": "~"}.get(
            node.operator, node.operator
        )
        if operator == "~" and known.kind in ("metric", "number", "quantity", "time", "flag"):
            raise FilterError(
                f"'~' is for texts; {known.name} is none", text=self._text, position=node.position
            )
        tests = [self._test(known, operator, literal) for literal in node.literals]
        some = joined(tests, is_every=False)
        if known.kind in _OF_ROWS and node.operator in _NEGATIVE:
            return some.within("(({}) IS NOT TRUE)")
        return some

    def _test(self, known: Known, operator: str, literal: Literal) -> Sql:
        """Return the condition for `= < <= > >= ~`; of a metric or config value that on its row."""
        make: dict[str, Callable[[Known, str, Literal], Sql]] = {
            "metric": self._metric_test,
            "config": self._config_test,
            "number": self._compare_number,
            "quantity": self._compare_number,
            "time": self._compare_time,
            "flag": self._compare_flag,
        }
        return make.get(known.kind, self._compare_text)(known, operator, literal)

    # ------------------------------------------------------------ kinds of fields
    def _exists(self, known: Known) -> Sql:
        if known.kind in _OF_ROWS:
            return self._row_with(known, Sql("1"))
        if known.kind == "flag":
            return Sql("1")
        if known.kind == "texts" or known.name == "name":
            return self._said(known, Sql("1"))
        return self._fact(known, Sql("{} IS NOT NULL"))

    def _fact(self, known: Known, test: Sql) -> Sql:
        """Return a test of a column; `{}` in the test is the column."""
        name = known.name
        if name == "checkpoints" and self._scope.what == "checkpoints":  # each experiment once
            inner = test.text.format("count(*)")
            found = f"SELECT c.experiment FROM facts c GROUP BY c.experiment HAVING {inner}"
            return Sql(f"(f.experiment IN ({found}))", test.values)
        if name in self._scope.columns:
            return Sql(f"({test.text.format(self._scope.columns[name])})", test.values)
        inner = test.text.format(f"x.{_SHARED[name]}")
        found = f"SELECT x.experiment FROM experiments x WHERE {inner}"
        return Sql(f"({self._row}.experiment IN ({found}))", test.values)

    def _row_with(self, known: Known, test: Sql) -> Sql:
        """Return whether there is a metric or config value that fits."""
        if known.kind == "metric" and self._is_inside_not:
            # a set would hold nearly all checkpoints, and cannot choose the rows here
            found = f"SELECT 1 FROM metrics WHERE name = ({_METRIC}) AND checkpoint = f.checkpoint"
            return test.within(f"(EXISTS ({found} AND ({{}})))", known.key)
        if known.kind == "metric":
            found = f"SELECT checkpoint FROM metrics WHERE name = ({_METRIC}) AND ({{}})"
            return test.within(f"(f.checkpoint IN ({found}))", known.key)
        found = f"SELECT experiment FROM config_values WHERE key = ({_KEY}) AND ({{}})"
        return test.within(f"({self._row}.experiment IN ({found}))", known.key)

    def _said(self, known: Known, test: Sql) -> Sql:
        """Return whether something of a kind was said that fits; a name is that of the experiment."""
        if self._scope.what == "experiments" or known.name == "name":
            found = "SELECT s.experiment FROM said s WHERE s.kind = ? AND ({})"
            return test.within(f"({self._row}.experiment IN ({found}))", known.name)
        found = (
            "SELECT f.checkpoint FROM said s CROSS JOIN facts f"
            f" WHERE s.kind = ? AND ({{}}) AND {self._scope.about}"
        )
        return test.within(f"(f.checkpoint IN ({found}))", known.name)

    def _truth(self, known: Known) -> Sql:
        if known.name == "pinned":
            return self._said(type(known)("pin", "texts"), Sql("1"))
        return self._fact(known, Sql("{}"))

    # ------------------------------------------------------------ comparisons
    def _metric_test(self, known: Known, operator: str, literal: Literal) -> Sql:
        return number_test("value", operator, self._number(literal, known))

    def _compare_number(self, known: Known, operator: str, literal: Literal) -> Sql:
        number = self._number(literal, known)
        is_nan = number != number  # noqa: PLR0124
        return Sql("0") if is_nan else self._fact(known, number_test("{}", operator, number))

    def _number(self, literal: Literal, known: Known) -> float:
        read = read_quantity if known.kind == "quantity" else read_number
        found = None if literal.is_quoted else read(literal.text)
        if found is None:
            raise self._error(literal, f"{known.name} is compared with a number")
        return found

    def _compare_time(self, known: Known, operator: str, literal: Literal) -> Sql:
        span = read_span(literal.text, self._now)
        if span is None:
            raise self._error(
                literal,
                f"{known.name} is compared with a time",
                hint="such as 2026-01-15, 2026-01-15T10:30, or 2d for two days ago",
            )
        tests = {
            "=": ("{0} >= ? AND {0} < ?", [span.start, span.end]),
            "<": ("{} < ?", [span.start]),
            "<=": ("{} < ?", [span.end]),
            ">": ("{} >= ?", [span.end]),
            ">=": ("{} >= ?", [span.start]),
        }
        return self._fact(known, Sql(*tests[operator]))

    def _compare_flag(self, known: Known, operator: str, literal: Literal) -> Sql:
        word = literal.text.lower()
        if operator != "=" or word not in ("true", "false"):
            raise self._error(literal, f"{known.name} is true or false")
        found = self._truth(known)
        return found if word == "true" else found.within("(({}) IS NOT TRUE)")

    def _compare_text(self, known: Known, operator: str, literal: Literal) -> Sql:
        text = to_text(literal.text)
        if known.kind == "hash" and operator == "=":
            begin = text.lower().rpartition(":")[2]
            if not begin:
                raise self._error(literal, f"{known.name} is compared with its first digits")
            return self._fact(known, Sql("substr({}, 1, ?) = ?", [len(begin), begin]))
        if known.kind == "texts" or known.name == "name":
            return self._said(known, text_test("s.text", operator, text))
        return self._fact(known, text_test("{}", operator, text))

    def _config_test(self, _known: Known, operator: str, literal: Literal) -> Sql:
        """A word without quotes is a number, a truth or null, and a text that is spelled like it."""
        text = to_text(literal.text)
        as_text = text_test("value", operator, text).within("(kind = 's' AND {})")
        if literal.is_quoted or operator == "~":
            return as_text
        number = read_number(literal.text)
        if number is not None:
            test = number_test("value", operator, number).within("(kind = 'n' AND {})")
            return joined([test, as_text], is_every=False) if operator == "=" else test
        word = literal.text.lower()
        if operator == "=" and word in ("true", "false"):
            truth = Sql("(kind = 'b' AND value = ?)", [int(word == "true")])
            return joined([truth, as_text], is_every=False)
        if operator == "=" and word in ("null", "none"):
            return joined([Sql("kind = '0'"), as_text], is_every=False)
        return as_text

    def _error(
        self, place: Field | Literal, message: str, *, hint: str | None = None
    ) -> FilterError:
        return FilterError(message, text=self._text, position=place.position, hint=hint)

    # ------------------------------------------------------------ order
    def order(self, keys: Sequence[Order], driver: str | None = None) -> Sql:
        """Return an ORDER BY list; what is missing comes last in both directions.

        Args:
            keys: what to order by.
            driver: the metric that chooses the rows, as `m`.
        Raises: FilterError for unknown fields, and those that nothing can be ordered by.
        """
        parts = []
        for key in keys:
            known = resolve(key.field, self._text, what="order")
            is_driver = known.kind == "metric" and known.key == driver
            column = Sql("m.value") if is_driver else self._order_column(known, key)
            direction = " DESC" if key.is_descending else ""
            parts.append(Sql(f"{column.text}{direction} NULLS LAST", column.values))
        return Sql(", ".join(p.text for p in parts), [v for p in parts for v in p.values])

    def _order_column(self, known: Known, key: Order) -> Sql:
        if known.kind == "metric":
            found = (
                f"SELECT value FROM metrics WHERE name = ({_METRIC}) AND checkpoint = f.checkpoint"
            )
            return Sql(f"({found})", [known.key])
        row = self._row
        if known.kind == "config":
            found = f"SELECT value FROM config_values WHERE key = ({_KEY})"
            return Sql(f"({found} AND experiment = {row}.experiment)", [known.key])
        if known.name == "name":
            about = f"s.kind = 'name' AND s.experiment = {row}.experiment"
            return Sql(f"(SELECT s.text FROM said s WHERE {about})")
        if known.kind == "texts":
            raise FilterError(
                f"nothing can be ordered by {known.name}: there may be several",
                text=self._text,
                position=key.field.position,
                what="order",
            )
        if known.kind == "flag":
            return self._truth(known)
        if known.name in self._scope.columns:
            return Sql(self._scope.columns[known.name])
        return Sql(f"e.{_SHARED[known.name]}")


def joined(parts: Sequence[Sql], is_every: bool) -> Sql:
    """Return all parts joined; many in groups, as SQLite takes expressions up to some depth."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) > _GROUP:
        groups = [parts[at : at + _GROUP] for at in range(0, len(parts), _GROUP)]
        return joined([joined(group, is_every) for group in groups], is_every)
    text = (" AND " if is_every else " OR ").join(part.text for part in parts)
    return Sql(f"({text})", [value for part in parts for value in part.values])


def number_test(column: str, operator: str, number: float) -> Sql:
    """Return the test of a number; NaN, which is NULL here, equals itself alone."""
    bound = to_number(number)
    if bound is None:
        return Sql(f"{column} IS NULL" if operator == "=" else "0")
    return Sql(f"{column} {operator} ?", [bound])


def text_test(column: str, operator: str, text: str) -> Sql:
    """Return the test of a text."""
    if operator == "~":
        return Sql(f"glob_matches(?, {column})", [text])
    return Sql(f"{column} {operator} ?", [text])
