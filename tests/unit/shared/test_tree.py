"""Trees of JSON and YAML: flat and back, and whole numbers in place of KFP's floats."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from components.shared.tree import leaves, nested, whole_numbers

NAMES = st.text("abc", min_size=1, max_size=3)
VALUES = st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
TREES = st.recursive(
    st.dictionaries(NAMES, VALUES, min_size=1),
    lambda inner: st.dictionaries(NAMES, VALUES | inner, min_size=1),
    max_leaves=8,
)


@given(TREES)
def test_a_tree_is_what_its_leaves_make(tree: dict[str, Any]) -> None:
    assert nested(dict(leaves(tree))) == tree


def test_an_empty_mapping_is_a_leaf_where_that_is_asked_for() -> None:
    tree: dict[str, Any] = {"a": {"b": {}}, "c": 1}
    assert dict(leaves(tree)) == {"c": 1}
    assert dict(leaves(tree, empty_too=True)) == {"a.b": {}, "c": 1}


def test_whole_numbers_are_integers_at_any_depth_and_others_stay() -> None:
    tree: dict[str, Any] = {"a": [4.0, {"b": 2.5}], "c": True, "d": 1e300}
    whole = whole_numbers(tree)
    assert whole == tree
    assert isinstance(whole["a"][0], int)
    assert isinstance(whole["d"], float)
    assert whole["c"] is True
