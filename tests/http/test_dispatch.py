"""Each request is taken for the dialect it is in; what could be two is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.errors import InvalidValue
from nllbd.http.dispatch import MARKS, Dialect, expect, recognise, recognise_detection

MARKED = sorted({name for _, in_query, in_body in MARKS for name in in_query | in_body})
NAMES = st.sets(st.sampled_from([*MARKED, "text", "source", "target", "format", "api_key"]))


@pytest.mark.parametrize(
    ("query", "body", "dialect"),
    [
        ((), {"text", "target_lang"}, Dialect.NATIVE),
        ((), {"text"}, Dialect.NATIVE),
        ((), {"text", "target"}, Dialect.NATIVE),
        ((), (), Dialect.NATIVE),
        ((), {"q", "source", "target"}, Dialect.LIBRETRANSLATE),
        ((), {"source", "target"}, Dialect.LIBRETRANSLATE),
        ({"q"}, (), Dialect.LIBRETRANSLATE),
        ({"api_key"}, (), Dialect.LIBRETRANSLATE),
        ((), {"source", "src_lang", "tgt_lang"}, Dialect.NLLB_SERVE),
        ({"src_lang"}, (), Dialect.NLLB_SERVE),
        ({"api-version", "to"}, (), Dialect.AZURE),
    ],
)
def test_recognised(query: set[str], body: set[str], dialect: Dialect) -> None:
    assert recognise(query, body) is dialect


@given(NAMES, NAMES)
def test_marks_of_several_are_refused_and_named(query: set[str], body: set[str]) -> None:
    marked = [name for name, in_query, in_body in MARKS if in_query & query or in_body & body]
    if len(marked) > 1:
        with pytest.raises(InvalidValue, match=" and ".join(marked)):
            recognise(query, body)
    else:
        assert recognise(query, body) in (marked or [Dialect.NATIVE, Dialect.LIBRETRANSLATE])


def test_detection() -> None:
    assert recognise_detection((), {"text"}, Dialect.NATIVE) is Dialect.NATIVE
    assert recognise_detection((), {"q"}, Dialect.NATIVE) is Dialect.LIBRETRANSLATE
    assert recognise_detection({"api-version"}, (), Dialect.NATIVE) is Dialect.AZURE
    assert recognise_detection((), (), Dialect.LIBRETRANSLATE) is Dialect.LIBRETRANSLATE
    with pytest.raises(InvalidValue, match="libretranslate and native"):
        recognise_detection((), {"q", "text"}, Dialect.NATIVE)


@pytest.mark.parametrize(
    ("path", "query", "headers", "content_type", "dialect"),
    [
        ("/translate", (), (), "application/json", Dialect.NATIVE),
        ("/translate", (), (), "application/x-www-form-urlencoded", Dialect.LIBRETRANSLATE),
        ("/translate", {"api-version"}, (), "application/json", Dialect.AZURE),
        ("/translate", (), {"ocp-apim-subscription-key"}, "application/json", Dialect.AZURE),
        ("/translate", {"q"}, (), "application/octet-stream", Dialect.LIBRETRANSLATE),
        ("/version", {"q"}, {"ocp-apim-subscription-key"}, "application/json", Dialect.NATIVE),
        ("/v2/anything", (), (), "", Dialect.DEEPL),
        ("/language/translate/v2", (), (), "", Dialect.GOOGLE),
        ("/api/v4/translator", (), (), "", Dialect.NLLB_API),
        ("/breaksentence", (), (), "", Dialect.AZURE),
        ("/suggest", (), (), "", Dialect.LIBRETRANSLATE),
    ],
)
def test_expected_before_the_body(
    path: str, query: set[str], headers: set[str], content_type: str, dialect: Dialect
) -> None:
    assert expect(path, query, headers, content_type) is dialect


async def test_a_mixture_is_told_of_in_our_own_words(service) -> None:
    for sent in (
        {"q": "a", "target_lang": "fr"},
        {"q": "a", "src_lang": "en"},
        {"src_lang": "en", "target_lang": "fr"},
    ):
        status, answer, _ = await service.request("POST", "/translate", json=sent)
        assert (status, answer["error"]["code"]) == (400, "invalid_value")
        assert "mixes the forms" in answer["error"]["message"]
