"""The real client packages behind one face, for what must hold with each of them. Nothing here imitates a client."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import deepl
import google.auth.api_key
import httpx
import libretranslate_aio
import libretranslatepy
from azure.ai.translation.text import TextTranslationClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from deep_translator import LibreTranslator
from deep_translator.exceptions import AuthorizationException, ServerException
from google.api_core import exceptions as google_errors
from google.cloud import translate_v2

UNKNOWN = "tlh"


@dataclass(frozen=True)
class Failure:
    """How a client reports an error: its exception, and what is found in what it says."""

    kind: type[Exception]
    says: str


class Client:
    """One client package, pointed at a daemon. Connections are kept where the package keeps them."""

    name: ClassVar[str]
    failures: ClassVar[dict[str, Failure]]
    #: Whether it makes several requests on one connection.
    keeps_connection: ClassVar[bool] = True

    def __init__(self, url: str, key: str = "any") -> None:
        raise NotImplementedError

    def translate(self, texts: Sequence[str], target: str = "fr", source: str | None = "en") -> list[str]:
        """The translations of texts, in as few calls as the package offers."""
        raise NotImplementedError

    def explain(self, error: Exception) -> str:
        """What the package lets its user see of an error."""
        return str(error)


class DeepL(Client):
    name = "deepl"
    failures: ClassVar = {
        "wrong key": Failure(deepl.AuthorizationException, "Authorization failure"),
        "unknown language": Failure(deepl.DeepLException, "Value for 'target_lang' not supported"),
        "text too long": Failure(deepl.DeepLException, "Request size exceeds the limit"),
        "rate limit": Failure(deepl.TooManyRequestsException, "Too many requests"),
        "quota": Failure(deepl.QuotaExceededException, "Quota for this billing period has been exceeded"),
        "overloaded": Failure(deepl.DeepLException, "Service unavailable"),
        "draining": Failure(deepl.DeepLException, "Service unavailable, message: .*shutting down"),
    }

    def __init__(self, url: str, key: str = "any") -> None:
        self.package = deepl.DeepLClient(key, server_url=url)

    def translate(self, texts: Sequence[str], target: str = "fr", source: str | None = "en") -> list[str]:
        return [item.text for item in self.package.translate_text(list(texts), source_lang=source, target_lang=target)]


class LibreTranslatePy(Client):
    name = "libretranslatepy"
    failures: ClassVar = {
        "wrong key": Failure(urllib.error.HTTPError, "403 Invalid API key"),
        "unknown language": Failure(urllib.error.HTTPError, f"400 {UNKNOWN} is not supported"),
        "text too long": Failure(
            urllib.error.HTTPError, r"400 Invalid request: request \(5001\) exceeds text limit \(5000\)"
        ),
        "rate limit": Failure(urllib.error.HTTPError, "429 Slowdown: "),
        "quota": Failure(urllib.error.HTTPError, "429 Slowdown: "),
        "overloaded": Failure(urllib.error.HTTPError, "503 .*try again later"),
        "draining": Failure(urllib.error.URLError, "refused|reset"),
    }
    keeps_connection = False

    def __init__(self, url: str, key: str = "any") -> None:
        self.package = libretranslatepy.LibreTranslateAPI(url, api_key=key)

    def translate(self, texts: Sequence[str], target: str = "fr", source: str | None = "en") -> list[str]:
        return [self.package.translate(text, source or "auto", target) for text in texts]

    def explain(self, error: Exception) -> str:
        if isinstance(error, urllib.error.HTTPError):
            return f"{error.code} {json.loads(error.read())['error']}"
        return str(error)


class LibreTranslateAio(Client):
    name = "libretranslate-aio"
    failures: ClassVar = {
        "wrong key": Failure(libretranslate_aio.ForbiddenError, "Invalid API key"),
        "unknown language": Failure(libretranslate_aio.BadRequestError, f"^{UNKNOWN} is not supported$"),
        "text too long": Failure(
            libretranslate_aio.BadRequestError, r"^Invalid request: request \(5001\) exceeds text limit \(5000\)$"
        ),
        "rate limit": Failure(libretranslate_aio.RateLimitError, "^Slowdown: "),
        "quota": Failure(libretranslate_aio.RateLimitError, "^Slowdown: "),
        "overloaded": Failure(libretranslate_aio.LibreTranslateError, "try again later"),
        "draining": Failure(libretranslate_aio.LibreTranslateError, "shutting down"),
    }

    def __init__(self, url: str, key: str = "any") -> None:
        self.package = libretranslate_aio.LibreTranslate(url, api_key=key, client=httpx.Client(base_url=url))

    def translate(self, texts: Sequence[str], target: str = "fr", source: str | None = "en") -> list[str]:
        found = self.package.translate(list(texts), source or "auto", target).translated_text
        return [found] if isinstance(found, str) else found  # a form cannot say that one text was meant as a list


class DeepTranslator(Client):
    name = "deep-translator"
    failures: ClassVar = {
        "wrong key": Failure(AuthorizationException, "Unauthorized access"),
        # It knows a few languages by itself: one of these that the model lacks.
        "unknown language": Failure(ServerException, "ERR_BAD_REQUEST"),
        "text too long": Failure(ServerException, "ERR_BAD_REQUEST"),
        "rate limit": Failure(ServerException, "ERR_TOO_MANY_REQUESTS"),
        "quota": Failure(ServerException, "ERR_TOO_MANY_REQUESTS"),
        "overloaded": Failure(ServerException, "ERR_SERVICE_NOT_AVAIBLE"),
        "draining": Failure(OSError, "refused|reset"),
    }
    keeps_connection = False

    def __init__(self, url: str, key: str = "any") -> None:
        self._url, self._key = f"{url}/", key

    def package(self, target: str = "fr", source: str | None = "en") -> LibreTranslator:
        return LibreTranslator(source=source or "auto", target=target, api_key=self._key, custom_url=self._url)

    def translate(self, texts: Sequence[str], target: str = "fr", source: str | None = "en") -> list[str]:
        return self.package("ru" if target == UNKNOWN else target, source).translate_batch(list(texts))


class Google(Client):
    name = "google-cloud-translate"
    failures: ClassVar = {
        "wrong key": Failure(google_errors.Unauthorized, "401 .*the key is not valid"),
        "unknown language": Failure(google_errors.BadRequest, f"unknown language '{UNKNOWN}'"),
        "text too long": Failure(google_errors.BadRequest, "Text too long"),
        "rate limit": Failure(google_errors.TooManyRequests, "429 "),
        "quota": Failure(google_errors.TooManyRequests, "429 "),
        "overloaded": Failure(google_errors.ServiceUnavailable, "503 .*try again later"),
        "draining": Failure(google_errors.ServiceUnavailable, "503 .*shutting down"),
    }

    def __init__(self, url: str, key: str = "any") -> None:
        credentials = google.auth.api_key.Credentials(key)
        self.package = translate_v2.Client(credentials=credentials, client_options={"api_endpoint": url})

    def translate(self, texts: Sequence[str], target: str = "fr", source: str | None = "en") -> list[str]:
        found = self.package.translate(
            list(texts), target_language=target, source_language=source, format_="text", model="nmt"
        )
        return [item["translatedText"] for item in found]


class Azure(Client):
    name = "azure-ai-translation-text"
    failures: ClassVar = {
        "wrong key": Failure(ClientAuthenticationError, r"\(401000\)"),
        "unknown language": Failure(HttpResponseError, r"\(400036\) The target language is not valid"),
        "text too long": Failure(HttpResponseError, r"\(400050\) The input text is too long"),
        "rate limit": Failure(HttpResponseError, r"\(429000\)"),
        "quota": Failure(HttpResponseError, r"\(403001\) .*free quota"),
        "overloaded": Failure(HttpResponseError, r"\(503000\) .*try again later"),
        "draining": Failure(HttpResponseError, r"\(503000\) .*shutting down"),
    }

    def __init__(self, url: str, key: str = "any", **options: Any) -> None:
        options.setdefault("retry_total", 0)
        self.package = TextTranslationClient(endpoint=url, credential=AzureKeyCredential(key), **options)

    def translate(self, texts: Sequence[str], target: str = "fr", source: str | None = "en") -> list[str]:
        found = self.package.translate(body=list(texts), to_language=[target], from_language=source)
        return [item.translations[0].text for item in found]


CLIENTS: tuple[type[Client], ...] = (DeepL, LibreTranslatePy, LibreTranslateAio, DeepTranslator, Google, Azure)
