"""No two requests whose answers could differ have one name."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from nllbd.cache.key import Field, Namer, Origin, Recipe, encode, make_namer
from nllbd.sched.sequence import SearchParams

SECRET = bytes(32)
ORIGIN = Origin(code="c", model="m", runner="model", device="cpu", dtype="int8")
RECIPE = Recipe(target="fra_Latn", params=SearchParams(), max_num_beams=8)

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates, too
SOME_WORDS = st.sampled_from(["", "a", "aa", "a\0", "\0a", "s", "t", "1", "eng_Latn", "fra_Latn"]) | ANY_TEXT
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | SOME_WORDS,
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=8,
)
PARAMS = st.builds(
    SearchParams,
    num_beams=st.integers(1, 64),
    length_penalty=st.floats(-10, 10),
    early_stopping=st.sampled_from([True, False, "never"]),
    max_length=st.integers(3, 1024),
    num_hypotheses=st.integers(1, 64),
)
ORIGINS = st.builds(Origin, *[SOME_WORDS] * 5)
RECIPES = st.builds(Recipe, SOME_WORDS, PARAMS, st.integers(1, 64), SOME_WORDS)
SEGMENTS = st.tuples(SOME_WORDS, SOME_WORDS)
INPUTS = st.tuples(ORIGINS, RECIPES, SEGMENTS)


def same(one: Field, other: Field) -> bool:
    """Equal and of one type all the way down: 1, 1.0 and True are three values here, and so are 0.0 and -0.0."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


@given(VALUES, VALUES)
@example(("a", "b"), ("ab",))
@example(("a", ("b",)), ("a", "b"))
@example((1,), (True,))
@example(1, 1.0)
@example("", None)
@example("1", 1)
def test_the_encoding_is_injective(one: Any, other: Any) -> None:
    assert (encode(one) == encode(other)) == same(one, other)


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_so_is_one_value_after_the_other(one: list[Any], other: list[Any]) -> None:
    """Names are digests of several values in a row: where one ends and the next begins must not be in doubt."""
    assert (b"".join(map(encode, one)) == b"".join(map(encode, other))) == same(tuple(one), tuple(other))


def name_of(origin: Origin, recipe: Recipe, segment: tuple[str, str]) -> bytes:
    return make_namer(SECRET, origin, recipe)(*segment)


@given(INPUTS, INPUTS)
def test_different_inputs_have_different_names(one: Any, other: Any) -> None:
    assume(one != other)
    assert name_of(*one) != name_of(*other)


@given(INPUTS)
def test_equal_inputs_have_equal_names(one: Any) -> None:
    assert name_of(*one) == name_of(*one)


@pytest.mark.parametrize(
    "changed",
    [
        *(replace(ORIGIN, **{field.name: "other"}) for field in dataclasses.fields(Origin)),
        replace(RECIPE, target="deu_Latn"),
        replace(RECIPE, max_num_beams=4),
        replace(RECIPE, tenant="key:a"),
        *(
            replace(RECIPE, params=replace(RECIPE.params, **change))
            for change in (
                {"num_beams": 5},
                {"length_penalty": 1.1},
                {"early_stopping": False},
                {"early_stopping": "never"},
                {"max_length": 511},
                {"num_hypotheses": 2},
            )
        ),
    ],
)
def test_everything_that_changes_an_answer_changes_its_name(changed: Origin | Recipe) -> None:
    origin = changed if isinstance(changed, Origin) else ORIGIN
    recipe = changed if isinstance(changed, Recipe) else RECIPE
    assert name_of(origin, recipe, ("eng_Latn", "Hello.")) != name_of(ORIGIN, RECIPE, ("eng_Latn", "Hello."))


def test_no_search_setting_is_left_out() -> None:
    """A setting that is added to SearchParams tomorrow is in the name without anybody thinking of it."""

    @dataclasses.dataclass(frozen=True, slots=True)
    class MoreParams(SearchParams):
        temperature: float = 0.0

    names = {
        name_of(ORIGIN, replace(RECIPE, params=MoreParams(temperature=temperature)), ("eng_Latn", "Hello."))
        for temperature in (0.0, 0.5, 1.0)
    }
    assert len(names) == 3


def test_without_the_secret_a_guessed_text_cannot_be_found() -> None:
    def namer(secret: bytes) -> Namer:
        return make_namer(secret, ORIGIN, RECIPE)

    assert namer(bytes(32))("eng_Latn", "Hello.") != namer(b"\1" * 32)("eng_Latn", "Hello.")
