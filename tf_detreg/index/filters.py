"""Filters on metadata, from mappings or text to SQL.

A filter keeps an item or drops it; there is no third answer. A field that an item lacks equals nothing, so `x = 1`
drops the item and `not x = 1` keeps it. Order compares numbers with numbers and text with text; whatever else is
compared is false.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

_MOST_TEXT, _MOST_DEPTH, _MOST_VALUES = 10_000, 50, 10_000
_MOST_SHOWN = 20
_ORDERS = ("<", "<=", ">", ">=")
_OPERATORS = ("=", "!=", *_ORDERS, "in", "prefix")
_LAST = "\U0010ffff"
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<quoted>`[^`]+`)
    | (?P<name>[^\W\d][\w.\-]*)
    | (?P<sign><=|>=|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)

Sql = tuple[str, list[object]]
Where = Mapping[str, object] | str  # what `parse` reads


@dataclasses.dataclass(frozen=True)
class Compare:
    """One field compared with a value, or with several of which any will do.

    Args:
        field: The key in an item's metadata.
        operator: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in` or `prefix`.
        value: What JSON can hold; a sequence for `in`, text for `prefix`.
    """

    field: str
    operator: str
    value: object

    def sql(self, negated: bool = False) -> Sql:
        """Return a condition in SQL and its parameters."""
        if self.operator == "!=":
            return Compare(self.field, "=", self.value).sql(not negated)
        text, parameters = self._positive()
        return (f"(({text}) IS NOT TRUE)" if negated else f"({text})"), parameters

    def _positive(self) -> Sql:
        column = column_of(self.field)
        if self.operator == "in":
            values = self.value if isinstance(self.value, tuple) else ()
            parts = [Compare(self.field, "=", value).sql() for value in values]
            return " OR ".join(text for text, _ in parts) or "0", [p for _, some in parts for p in some]
        if self.operator == "prefix":
            return f"{column} >= ? AND {column} < ? AND {_kind(self.field)} = 'text'", [
                self.value,
                f"{self.value}{_LAST}",
            ]
        if self.operator in _ORDERS:
            kinds = "('text')" if isinstance(self.value, str) else "('integer', 'real')"
            return f"{column} {self.operator} ? AND {_kind(self.field)} IN {kinds}", [self.value]
        return self._equals(column)

    def _equals(self, column: str) -> Sql:
        kind = _kind(self.field)
        if self.value is None:
            return f"{kind} = 'null'", []
        if isinstance(self.value, list | dict):
            return f"{column} = ? AND {kind} IN ('array', 'object')", [json.dumps(self.value, separators=(",", ":"))]
        if isinstance(self.value, str):
            return f"{column} = ? AND {kind} = 'text'", [self.value]
        # As in Python, true equals 1 and false equals 0.
        return f"{column} = ? AND {kind} NOT IN ('text', 'array', 'object')", [self.value]


@dataclasses.dataclass(frozen=True)
class Every:
    """All parts must hold; the empty one keeps everything."""

    parts: tuple["Filter", ...]

    def sql(self, negated: bool = False) -> Sql:
        """Return a condition in SQL and its parameters."""
        return _joined(self.parts, "OR" if negated else "AND", negated, "0" if negated else "1")


@dataclasses.dataclass(frozen=True)
class Any:
    """One part must hold."""

    parts: tuple["Filter", ...]

    def sql(self, negated: bool = False) -> Sql:
        """Return a condition in SQL and its parameters."""
        return _joined(self.parts, "AND" if negated else "OR", negated, "1" if negated else "0")


@dataclasses.dataclass(frozen=True)
class Not:
    """The part must not hold."""

    part: "Filter"

    def sql(self, negated: bool = False) -> Sql:
        """Return a condition in SQL and its parameters."""
        return self.part.sql(not negated)


Filter = Compare | Every | Any | Not


def column_of(field: str, argument: str = "where") -> str:
    """Return the SQL expression of a metadata field; an index on a field is an index on this expression.

    Args:
        field: Its name.
        argument: What the message calls the argument that named it. Default `"where"`.

    Raises:
        ValueError: If the name is empty, or holds a double quote or a control character.
    """
    if not isinstance(field, str) or not field or '"' in field or any(ord(character) < 32 for character in field):
        raise ValueError(
            f"`{argument}` must name fields by text without double quotes and control characters; received {field!r}."
        )
    return f"json_extract(metadata, {_path(field)})"


def _kind(field: str) -> str:
    return f"json_type(metadata, {_path(field)})"


def _path(field: str) -> str:
    # As the stored JSON spells it: SQLite before 3.45 compares the two spellings.
    escaped = json.dumps(field)[1:-1].replace("'", "''")
    return f"'$.\"{escaped}\"'"


def _joined(parts: Sequence["Filter"], word: str, negated: bool, empty: str) -> Sql:
    made = [part.sql(negated) for part in parts]
    return "(" + (f" {word} ".join(text for text, _ in made) or empty) + ")", [p for _, some in made for p in some]


def parse(where: Where) -> Filter:
    """Read a filter.

    Args:
        where: A mapping from fields to values: a value that must be equal, a list or set of values of which any will
            do, or a mapping from operators (`=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `prefix`) to values; all entries
            must hold. Or text, such as
            `label = "mug" and (price < 20 or not color in ("red", "blue")) and name prefix "tea"`.

    Raises:
        ValueError: If it is neither, or cannot be read; the message shows where.

    Example:
        >>> parse({"price": {"<": 20}}) == parse("price < 20")
        True
        >>> parse("shop = 3 or shop = 4").sql()[1]
        [3, 4]
    """
    if isinstance(where, str):
        return _Reader(where).read()
    if not isinstance(where, Mapping):
        raise ValueError(
            "`where` must be a mapping such as {'label': 'daisy'}, or text such as 'label = \"daisy\"'; "
            f"received {where!r}."
        )
    parts: list[Filter] = []
    for field, value in where.items():
        if not isinstance(field, str):
            raise ValueError(f"`where` must have names of fields as its keys; received {field!r}.")
        if isinstance(value, Mapping):
            parts += [_compare(field, str(operator), operand) for operator, operand in value.items()]
        elif isinstance(value, list | tuple | set | frozenset):
            parts.append(_compare(field, "in", value))
        else:
            parts.append(_compare(field, "=", value))
    return parts[0] if len(parts) == 1 else Every(tuple(parts))


def fields_of(kept: Filter) -> set[str]:
    """Return the fields that a filter looks at."""
    if isinstance(kept, Compare):
        return {kept.field}
    parts = (kept.part,) if isinstance(kept, Not) else kept.parts
    return {field for part in parts for field in fields_of(part)}


def unknown(kept: Filter, known: Iterable[str]) -> str:
    """Return a sentence, after a space, on the fields of a filter that no item has; an empty text if there is none.

    Args:
        kept: The filter.
        known: The fields that items have.

    Example:
        >>> unknown(parse("prize < 20 and label = 'mug'"), ["price", "label"])
        " No item has the field 'prize'; the fields are: label, price."
    """
    there = sorted(set(known))
    missing = sorted(fields_of(kept).difference(there))
    if not missing:
        return ""
    shown = ", ".join(there[:_MOST_SHOWN]) + ", …" * (len(there) > _MOST_SHOWN)
    fields = f"the fields are: {shown}" if there else "the items have no metadata"
    return f" No item has the field {' or '.join(map(repr, missing))}; {fields}."


def _compare(field: str, operator: str, value: object) -> Compare:
    column_of(field)
    operator = "=" if operator == "==" else operator
    if operator not in _OPERATORS:
        raise ValueError(f"`where` has the operator {operator!r} for {field!r}; it knows {', '.join(_OPERATORS)}.")
    if operator == "in":
        if isinstance(value, str) or not isinstance(value, Sequence | set | frozenset):
            raise ValueError(f"`where`: in takes a list of values; received {value!r} for {field!r}.")
        if len(value) > _MOST_VALUES:
            raise ValueError(f"`where`: in takes at most {_MOST_VALUES} values; received {len(value)} for {field!r}.")
        return Compare(field, "in", tuple(_plain(field, one) for one in value))
    value = _plain(field, value)
    if operator == "prefix" and not isinstance(value, str):
        raise ValueError(f"`where`: prefix takes text; received {value!r} for {field!r}.")
    if operator in _ORDERS and (isinstance(value, bool) or not isinstance(value, int | float | str)):
        raise ValueError(f"`where`: {operator} compares with a number or with text; received {value!r} for {field!r}.")
    return Compare(field, operator, value)


def _plain(field: str, value: object) -> object:
    """Return a value as JSON and SQLite know it."""
    value = value.item() if hasattr(value, "item") and not isinstance(value, Mapping) else value
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`where` has a value for {field!r} that JSON cannot hold: {value!r} ({error}).") from None
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise ValueError(f"`where` has an integer for {field!r} of more than 64 bits: {value!r}.")
    return value


class _Reader:
    """Reads the text form, by recursive descent."""

    def __init__(self, text: str) -> None:
        if len(text) > _MOST_TEXT:
            raise ValueError(f"`where` must be at most {_MOST_TEXT} characters; received {len(text)}.")
        self.text, self.depth = text, 0
        self.tokens = list(self._split())
        self.at = 0

    def read(self) -> Filter:
        """Return the filter."""
        found = self._any()
        if self._peek()[0] != "end":
            raise self._wrong("`and`, `or` or the end")
        return found

    def _split(self) -> Iterator[tuple[str, str, int]]:
        position = 0
        while self.text[position:].strip():
            match = _TOKEN.match(self.text, position)
            if match is None or match.lastgroup is None:
                raise ValueError(f"`where` cannot be read at {self.text[position:].strip()[:30]!r}, in {self.text!r}.")
            yield match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)
            position = match.end()

    def _peek(self) -> tuple[str, str, int]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "", len(self.text))

    def _next(self) -> tuple[str, str, int]:
        token = self._peek()
        self.at += 1
        return token

    def _taken(self, *words: str) -> str | None:
        kind, text, _ = self._peek()
        if kind in ("name", "sign") and text.lower() in words:
            self.at += 1
            return text.lower()
        return None

    def _any(self) -> Filter:
        self.depth += 1
        if self.depth > _MOST_DEPTH:
            raise ValueError(f"`where` must be at most {_MOST_DEPTH} levels deep; received more.")
        parts = [self._every()]
        while self._taken("or"):
            parts.append(self._every())
        self.depth -= 1
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _every(self) -> Filter:
        parts = [self._one()]
        while self._taken("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _one(self) -> Filter:
        negated = False
        while self._taken("not"):
            negated = not negated
        if self._taken("("):
            found = self._any()
            if not self._taken(")"):
                raise self._wrong("`)`")
        else:
            found = self._comparison()
        return Not(found) if negated else found

    def _comparison(self) -> Filter:
        kind, field, _ = self._peek()
        if kind not in ("name", "quoted"):
            raise self._wrong("the name of a field")
        self.at += 1
        field = field.strip("`")
        if self._taken("not"):
            if not self._taken("in"):
                raise self._wrong("`in`")
            return Not(_compare(field, "in", self._values()))
        operator = self._taken("in", "prefix", "=", "==", "!=", *_ORDERS)
        if operator is None:
            raise self._wrong("one of " + ", ".join(_OPERATORS))
        return _compare(field, operator, self._values() if operator == "in" else self._value())

    def _values(self) -> list[object]:
        if not self._taken("("):
            raise self._wrong("`(`")
        values = [self._value()]
        while self._taken(","):
            values.append(self._value())
        if not self._taken(")"):
            raise self._wrong("`,` or `)`")
        return values

    def _value(self) -> object:
        kind, text, _ = self._peek()
        words = {"true": True, "false": False, "null": None}
        if kind == "number":
            value: object = float(text) if any(c in text for c in ".eE") else int(text)
        elif kind == "text":
            value = re.sub(r"\\(.)", r"\1", text[1:-1])
        elif kind == "name" and text.lower() in words:
            value = words[text.lower()]
        else:
            raise self._wrong('a number, "text", true, false or null')
        self.at += 1
        return value

    def _wrong(self, wanted: str) -> ValueError:
        _, text, position = self._peek()
        found = f"{text!r} (character {position + 1})" if text else "its end"
        return ValueError(f"`where` cannot be read: at {found} it should have {wanted}, in {self.text!r}.")
