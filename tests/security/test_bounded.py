"""BoundedMap against a plain dictionary: never a wrong value, never more than its capacity."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nllbd.security.bounded import BoundedMap

ACTIONS = st.lists(
    st.tuples(st.sampled_from(["get", "put", "pop"]), st.integers(0, 40), st.integers(1, 9)), max_size=300
)


@given(ACTIONS, st.integers(2, 30))
def test_forgets_but_never_errs(actions: list[tuple[str, int, int]], capacity: int) -> None:
    tested: BoundedMap[int, int] = BoundedMap(capacity)
    model: dict[int, int] = {}
    for action, key, value in actions:
        if action == "put":
            tested.put(key, value)
            model[key] = value
            assert tested.get(key) == value
        elif action == "pop":
            tested.pop(key)
            model.pop(key, None)
            assert tested.get(key) is None
        else:
            assert tested.get(key) in (None, model.get(key))
        assert len(tested) <= capacity


def test_what_is_touched_stays() -> None:
    tested: BoundedMap[int, int] = BoundedMap(10)
    tested.put(0, 1)
    for key in range(1, 1000):
        tested.put(key, key)
        assert tested.get(0) == 1
    tested.clear()
    assert len(tested) == 0
