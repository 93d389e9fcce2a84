"""Every operation of the main port, for the OpenAPI document: path, what is sent, what comes back. Declared once.

Bodies and answers are the very structures that parse requests and render answers. A new route gets a row here; a test
compares the rows with the routes. Of other dialects the requests are described; what their answers and errors look
like, their own documentation says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nllbd.http import debug, schema
from nllbd.http.dialects import deepl, deepl_glossaries, google, libretranslate, nllb
from nllbd.http.schema_auth import TokenRequest, TokenResponse

JSON, FORM, EVENTS = "application/json", "application/x-www-form-urlencoded", "text/event-stream"
#: What any operation may answer besides its own errors: a request that is no good, or a daemon that cannot serve.
ALWAYS = (400, 500, 503)
#: What those may answer that ask for credentials.
CREDENTIALS = (401, 403, 429)
_BODY = (408, 413, 415)
_WORK = (422, 504)

NATIVE = "nllbd"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the query, or in the path, where it is always required."""

    name: str
    place: str
    help: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method at one path.

    `bodies` are the structures that a body may have, `answer` that of success (None: no fixed form, or no content);
    `status` is that of success, `errors` are those besides `ALWAYS`. `is_public`: needs no credentials.
    """

    method: str
    path: str
    summary: str
    tag: str = NATIVE
    bodies: tuple[type[Any], ...] = ()
    body_types: tuple[str, ...] = (JSON,)
    is_body_required: bool = True
    answer: Any = None
    answer_types: tuple[str, ...] = (JSON,)
    status: int = 200
    errors: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    example: Any = None
    is_public: bool = False
    help: str = ""

    @property
    def all_errors(self) -> tuple[int, ...]:
        """Every status that is not success."""
        of_body = _BODY if self.bodies else ()
        of_credentials = () if self.is_public else CREDENTIALS
        return tuple(sorted({*ALWAYS, *of_body, *of_credentials, *self.errors}))


_DIALECTS = (
    "Other dialects are recognised by their fields: LibreTranslate by `q`, nllb-serve by `src_lang`, Azure by "
    "`api-version` in the query. They are answered in their own form."
)
_VERSION = Parameter("api-version", "query", "`3.0`: the request and its answer are Azure's.")
_ID = Parameter("id", "path", "The session's id.")

_NATIVE_OPERATIONS = (
    Operation(
        "post",
        "/translate",
        "Translate one text or several",
        bodies=(schema.TranslateRequest, libretranslate.TranslateRequest, nllb.ServeRequest),
        answer=schema.TranslateResponse,
        answer_types=(JSON, EVENTS),
        errors=_WORK,
        example={"text": "Good morning.", "source_lang": "eng_Latn", "target_lang": "fra_Latn"},
        help=f"{_DIALECTS} With `stream` events come: `segment` (SegmentItem), then `done` (StreamEnd) or `error`.",
    ),
    Operation(
        "post",
        "/detect",
        "Detect the language of texts",
        bodies=(schema.DetectRequest,),
        answer=schema.DetectResponse,
        errors=_WORK,
        example={"text": ["Good morning.", "Bonjour."]},
        help="LibreTranslate's form has `q`, Azure's `api-version` in the query.",
    ),
    Operation(
        "get",
        "/languages",
        "Languages of the model",
        answer=list[schema.LanguageItem],
        is_public=True,
        help="With `api-version` in the query: Azure's list.",
    ),
    Operation("get", "/version", "What runs here", answer=schema.VersionResponse, is_public=True),
    Operation("get", "/health", "Condition of the daemon", answer=schema.HealthResponse, is_public=True),
    Operation("get", "/livez", "The process answers", is_public=True),
    Operation("get", "/readyz", "Translations are accepted now", is_public=True),
    Operation(
        "post",
        "/auth/token",
        "Exchange a key for a short session",
        bodies=(TokenRequest,),
        is_body_required=False,
        answer=TokenResponse,
        example={"expires_in": 900},
        errors=(501,),
        help="Send the key as a credential. The session ends by itself, with its key, or when it is revoked.",
    ),
    Operation(
        "delete", "/auth/token/{id}", "End a session", status=204, errors=(404, 501), parameters=(_ID,), answer=None
    ),
    Operation(
        "get",
        debug.ROUTE,
        "What the engine does now",
        answer=debug.EngineItem,
        parameters=(Parameter("integrity", "query", "`0` leaves out the check of the engine's books."),),
        help="Needs a stored key with scope `admin`.",
    ),
)


def _dialect(tag: str, method: str, path: str, summary: str, *bodies: type[Any], **more: Any) -> Operation:
    """An operation of another dialect: JSON or a form, or, with GET, the same names in the query."""
    errors = (*more.pop("errors", ()), *_BODY, *_WORK)
    return Operation(method, path, summary, tag, bodies, (JSON, FORM), errors=errors, **more)


_TEXT_IN_QUERY = (
    Parameter("q", "query", "LibreTranslate: the text."),
    Parameter("source", "query", "LibreTranslate: its language, or `auto`."),
    Parameter("target", "query", "LibreTranslate: the language wanted."),
)
_GLOSSARIES = "/v2/glossaries"
_GLOSSARY_ID = Parameter("id", "path", "The glossary's id.")
_GOOGLE = "/language/translate/v2"
_NLLB_API = "/api/v4/translator"
_NLLB_API_QUERY = (
    Parameter("text", "query", "The text."),
    Parameter("source", "query", "Its language."),
    Parameter("target", "query", "The language wanted."),
)

_DIALECT_OPERATIONS = (
    _dialect("LibreTranslate", "get", "/translate", "Translate", parameters=_TEXT_IN_QUERY, errors=(405,)),
    _dialect("LibreTranslate", "get", "/frontend/settings", "Settings for front ends", is_public=True),
    _dialect("LibreTranslate", "post", "/suggest", "Suggest a translation (not collected: 403)", errors=(501,)),
    _dialect("LibreTranslate", "post", "/translate_file", "Translate a file (not available: 501)", errors=(501,)),
    _dialect(
        "DeepL v2",
        "post",
        "/v2/translate",
        "Translate",
        deepl.TranslateRequest,
        errors=(404, 456),
        example={"text": ["Good morning."], "target_lang": "FR"},
    ),
    _dialect("DeepL v2", "get", "/v2/languages", "Languages"),
    _dialect("DeepL v2", "post", "/v2/languages", "Languages"),
    _dialect("DeepL v2", "get", "/v2/usage", "Usage and quota of this month"),
    _dialect("DeepL v2", "post", "/v2/usage", "Usage and quota of this month"),
    _dialect("DeepL v2", "get", "/v2/glossary-language-pairs", "Pairs of languages that a glossary may have"),
    _dialect("DeepL v2", "get", _GLOSSARIES, "Glossaries of this account", answer=deepl_glossaries.GlossaryList),
    _dialect(
        "DeepL v2",
        "post",
        _GLOSSARIES,
        "Make a glossary",
        deepl_glossaries.GlossaryRequest,
        status=201,
        answer=deepl_glossaries.GlossaryItem,
    ),
    _dialect(
        "DeepL v2",
        "get",
        f"{_GLOSSARIES}/{{id}}",
        "One glossary",
        answer=deepl_glossaries.GlossaryItem,
        errors=(404,),
        parameters=(_GLOSSARY_ID,),
    ),
    _dialect(
        "DeepL v2",
        "delete",
        f"{_GLOSSARIES}/{{id}}",
        "Delete a glossary",
        status=204,
        errors=(404,),
        parameters=(_GLOSSARY_ID,),
    ),
    _dialect(
        "DeepL v2",
        "get",
        f"{_GLOSSARIES}/{{id}}/entries",
        "Terms of a glossary",
        answer_types=("text/tab-separated-values",),
        errors=(404,),
        parameters=(_GLOSSARY_ID,),
    ),
    _dialect(
        "Google v2",
        "post",
        _GOOGLE,
        "Translate",
        google.TranslateRequest,
        example={"q": "Good morning.", "target": "fr", "format": "text"},
    ),
    _dialect("Google v2", "get", _GOOGLE, "Translate"),
    _dialect("Google v2", "post", f"{_GOOGLE}/detect", "Detect the language of texts"),
    _dialect("Google v2", "get", f"{_GOOGLE}/detect", "Detect the language of texts"),
    _dialect("Google v2", "post", f"{_GOOGLE}/languages", "Languages"),
    _dialect("Google v2", "get", f"{_GOOGLE}/languages", "Languages"),
    _dialect("Azure v3", "post", "/breaksentence", "Lengths of sentences", parameters=(_VERSION,)),
    _dialect(
        "nllb-api",
        "post",
        _NLLB_API,
        "Translate",
        nllb.ApiRequest,
        example={"text": "Good morning.", "source": "eng_Latn", "target": "fra_Latn"},
    ),
    _dialect("nllb-api", "get", _NLLB_API, "Translate", parameters=_NLLB_API_QUERY),
)

OPERATIONS = (*_NATIVE_OPERATIONS, *_DIALECT_OPERATIONS)
