"""Filters: what they keep, against Python's own comparison, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_detreg.index import Index
from tf_detreg.index.filters import Any, Compare, Every, Not, parse

FIELDS = ("a", "b c", "é名")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 2.0, -1.5]),
    st.sampled_from(["", "a", "ab", "abc", "é", "1"]),
    st.lists(st.integers(0, 1), max_size=2),
)


def kept(filter, item: dict) -> bool:
    """The reference: the same rules in Python."""
    if isinstance(filter, Every):
        return all(kept(part, item) for part in filter.parts)
    if isinstance(filter, Any):
        return any(kept(part, item) for part in filter.parts)
    if isinstance(filter, Not):
        return not kept(filter.part, item)
    if filter.operator == "!=":
        return not kept(Compare(filter.field, "=", filter.value), item)
    if filter.field not in item:
        return False
    value, wanted = item[filter.field], filter.value
    number = [isinstance(one, int | float) and not isinstance(one, bool) for one in (value, wanted)]
    text = [isinstance(one, str) for one in (value, wanted)]
    if filter.operator == "in":
        return any(value == one for one in wanted)
    if filter.operator == "prefix":
        return text[0] and value.startswith(wanted)
    if filter.operator == "=":
        return value == wanted
    if not (all(number) or all(text)):
        return False
    return {"<": value < wanted, "<=": value <= wanted, ">": value > wanted, ">=": value >= wanted}[filter.operator]


def comparisons():
    field = st.sampled_from(FIELDS)
    ordered = st.one_of(st.integers(-3, 3), st.sampled_from(["", "ab", "é"]))
    return st.one_of(
        st.builds(Compare, field, st.sampled_from(["=", "!="]), VALUES),
        st.builds(Compare, field, st.sampled_from(["<", "<=", ">", ">="]), ordered),
        st.builds(Compare, field, st.just("prefix"), st.sampled_from(["", "a", "ab", "é"])),
        st.builds(Compare, field, st.just("in"), st.lists(VALUES, max_size=3).map(tuple)),
    )


def filters():
    return st.recursive(
        comparisons(),
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(lambda parts: Every(tuple(parts)), st.lists(inner, max_size=3)),
            st.builds(lambda parts: Any(tuple(parts)), st.lists(inner, max_size=3)),
        ),
        max_leaves=6,
    )


@settings(max_examples=300, deadline=None)
@given(filter=filters(), items=st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES), min_size=1, max_size=12))
def test_sql_keeps_what_python_keeps(filter, items):
    index = Index(np.ones((len(items), 2)), metadata=items)
    rows = index._store.rows_where(filter, index._store.snapshot().version)
    assert rows.tolist() == [row for row, item in enumerate(items) if kept(filter, item)]


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ('label = "mug" and price < 20', {"label": "mug", "price": {"<": 20}}),
        ("a in (1, 'two', true, null)", {"a": [1, "two", True, None]}),
        ('`b c` prefix "x\\"y"', {"b c": {"prefix": 'x"y'}}),
        ("a >= -1.5e1 AND a <= 3", {"a": {">=": -15.0, "<=": 3}}),
    ],
)
def test_text_and_mappings_say_the_same(text, mapping):
    texts, mappings = parse(text), parse(mapping)
    assert texts == mappings and texts.sql() == mappings.sql()


def test_precedence_and_negation():
    index = Index(np.ones((4, 2)), metadata=[{"a": 1}, {"a": 2}, {"b": 1}, {}])
    found = [
        ("a = 1 or a = 2 and b = 1", [0]),
        ("(a = 1 or a = 2) and not b = 1", [0, 1]),
        ("not (a = 1 or b = 1)", [1, 3]),
        ("not not a = 1", [0]),
        ("a not in (1, 2)", [2, 3]),
        ("a != 1", [1, 2, 3]),
    ]
    assert [(text, [row["id"] for row in index.rows(text)]) for text, _ in found] == found


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("a =", "at its end it should have a number"),
        ("a = 1 b = 2", r"at 'b' \(character 7\) it should have `and`"),
        ("a ~ 1", "cannot be read at '~ 1'"),
        ("a in 1", r"should have `\(`"),
        ("a in (1", "should have `,` or `\\)`"),
        ("(a = 1", r"should have `\)`"),
        ("= 1", "the name of a field"),
        ("a is 1", "one of =, !="),
        ("a not 1", "should have `in`"),
        ("a < true", "< compares with a number or with text"),
        ("(" * 60 + "a = 1" + ")" * 60, "at most 50 levels"),
        ("a = 1" + " " * 10_000, "at most 10000 characters"),
        ({"a": {"like": 1}}, "operator 'like'"),
        ({"a": {"in": "text"}}, "in takes a list"),
        ({"a": {"prefix": 3}}, "prefix takes text"),
        ({"a": object()}, "JSON cannot hold"),
        ({"a": float("nan")}, "JSON cannot hold"),
        ({"a": 2**70}, "more than 64 bits"),
        ({1: 1}, "names of fields"),
        ({'a"b': 1}, "without double quotes"),
        ({"": 1}, "must name fields by text"),
        ({"a": list(range(10_001))}, "at most 10000 values"),
        (7, "must be a mapping"),
    ],
)
def test_what_cannot_be_read_is_shown(where, message):
    with pytest.raises(ValueError, match=message):
        parse(where)


@pytest.mark.parametrize("text", ["x' OR 1=1 --", "'; DROP TABLE items; --", "a\\", "%", "_", "ключ", "a.b[0]"])
def test_values_and_names_are_never_sql(text):
    index = Index(np.ones((2, 2)), metadata=[{"label": text, text: 1}, {"label": "other"}])
    assert [row["id"] for row in index.rows({"label": text})] == [0]
    assert [row["id"] for row in index.rows({text: 1})] == [0]
    index.index_field(text)
    assert [row["id"] for row in index.rows({text: 1})] == [0] and len(index) == 2


@pytest.mark.parametrize("where", ['label = "x"', 'label prefix "x"', 'label in ("x", "y")', 'label >= "x"'])
def test_a_filter_on_a_chosen_field_is_answered_from_its_index(where):
    index = Index(np.ones((3, 2)), metadata=[{"label": "x"}, {"label": "y"}, {}])
    index.index_field("label")
    text, parameters = parse(where).sql()
    (plan, *_) = index._store.query(f"EXPLAIN QUERY PLAN SELECT row FROM items WHERE {text}", parameters)[-1][3:]
    assert "USING INDEX" in plan, plan
