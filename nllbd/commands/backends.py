"""Two ways for `nllbd translate` to get a translation: a model in this process, or a daemon over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import SplitResult, urlsplit

from nllbd.commands.output import Progress
from nllbd.config import Settings
from nllbd.errors import InvalidValue, NllbdError, NotReady
from nllbd.sched.sequence import EarlyStopping, Priority

_NO_LIMIT_S = 24 * 3600.0  # a person at a terminal has Ctrl-C
_NO_LIMIT = 1 << 40


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted of every text. `source=None` means detect; None in a search setting means not asked for.

    `priority` is `interactive` or `bulk`, None for the former.
    """

    target: str
    source: str | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: EarlyStopping | None = None
    max_length: int | None = None
    priority: str | None = None


class Refusal(NllbdError):
    """What a daemon answered in place of a translation, with its own code."""

    def __init__(self, message: str, code: str, retry_after_s: float | None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.code = code  # type: ignore[misc]  # an instance attribute over the class's


@dataclass(frozen=True, slots=True)
class Translated:
    text: str
    warnings: tuple[str, ...] = ()


class Backend(Protocol):
    """An open translator; use it as an asynchronous context."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    async def translate(self, texts: list[str], ask: Ask) -> list[Translated]:
        """One translation a text, in order. Raises NllbdError."""
        ...


def open_backend(settings: Settings, url: str | None) -> Backend:
    return LocalBackend(settings) if url is None else RemoteBackend(url, settings.api_key)


class LocalBackend:
    """The model in a thread of this process. A daemon's limits do not apply: the caller is the owner."""

    def __init__(self, settings: Settings) -> None:
        self._settings = replace(
            settings,
            request_timeout_s=_NO_LIMIT_S,
            max_request_size=_NO_LIMIT,
            max_texts=_NO_LIMIT,
            max_waiting_segments=_NO_LIMIT,
            max_waiting_tokens=_NO_LIMIT,
        )

    async def __aenter__(self) -> Self:
        from nllbd.assembly import engine_config
        from nllbd.bridge.thread import ThreadEngine
        from nllbd.checkpoint import read_checkpoint, resolve_model
        from nllbd.metrics import Metrics
        from nllbd.text.detect import Detector
        from nllbd.text.tokenizer import Tokenizer
        from nllbd.translator import Translator

        settings = self._settings
        checkpoint = read_checkpoint(resolve_model(settings.model, settings.model_dir))
        tokenizer = Tokenizer(checkpoint)
        self._engine = ThreadEngine(engine_config(settings, checkpoint))
        self._translator = Translator(
            engine=self._engine,
            tokenizer=tokenizer,
            detector=Detector(tokenizer.languages, settings.detect_threshold, settings.detect_model),
            checkpoint=checkpoint,
            settings=settings,
            metrics=Metrics(),
        )
        try:
            await self._load(checkpoint.name)
        except BaseException:
            await self._engine.stop()
            raise
        return self

    async def _load(self, name: str) -> None:
        await self._engine.start()
        ready = asyncio.ensure_future(self._engine.wait_ready())
        try:
            with Progress(f"loading {name}") as progress:
                while not (await asyncio.wait({ready}, timeout=0.2))[0]:
                    progress.update()
            await ready
        finally:
            ready.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._translator.close()
        await self._engine.stop()

    async def translate(self, texts: list[str], ask: Ask) -> list[Translated]:
        from nllbd.job import TranslationJob

        job = TranslationJob(
            texts=tuple(texts),
            target_lang=ask.target,
            source_lang=ask.source,
            num_beams=ask.num_beams,
            length_penalty=ask.length_penalty,
            early_stopping=ask.early_stopping,
            max_length=ask.max_length,
            priority=Priority.BULK if ask.priority == "bulk" else Priority.INTERACTIVE,
            is_list=True,
        )
        result = await self._translator.translate(job)
        return [Translated(item.text, item.warnings) for item in result.translations]


class RemoteBackend:
    """A daemon over HTTP, one request a group; the standard library's client is all that takes."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = url
        self._parts = parse_url(url)
        self._path = ("" if self._parts.scheme == "unix" else self._parts.path.rstrip("/")) + "/translate"
        self._headers: dict[str, str | bytes] = {"Content-Type": "application/json", **key_header(api_key)}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        return

    async def translate(self, texts: list[str], ask: Ask) -> list[Translated]:
        wanted = asdict(ask) | {"text": texts, "source_lang": ask.source or "auto", "target_lang": ask.target}
        body = {name: value for name, value in wanted.items() if value is not None and name not in ("source", "target")}
        status, content, retry_after = await asyncio.to_thread(self._post, json.dumps(body).encode())
        try:
            answer = json.loads(content)
            if status != HTTPStatus.OK:
                raise self._refusal(status, answer["error"], retry_after)
            translated = [Translated(item["text"], tuple(item["warnings"])) for item in answer["translations"]]
            if len(translated) != len(texts):
                raise ValueError
        except (ValueError, LookupError, TypeError):
            raise NllbdError(f"{self._url} answered {status}, and not as nllbd does: is that an nllbd?") from None
        return translated

    def _post(self, body: bytes) -> tuple[int, bytes, str]:
        try:
            with closing(open_connection(self._parts)) as connection:
                connection.request("POST", self._path, body, self._headers)
                answer = connection.getresponse()
                return answer.status, answer.read(), answer.getheader("Retry-After", "")
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NotReady(f"cannot reach {self._url}: {reason}; is the daemon running there? (nllbd serve)") from None

    def _refusal(self, status: int, refusal: dict[str, str | None], retry_after: str) -> NllbdError:
        where = f" ({refusal['field']})" if refusal["field"] else ""
        message = f"{self._url} answered {status} {refusal['code']}: {refusal['message']}{where}"
        return Refusal(message, str(refusal["code"]), float(retry_after) if retry_after.isdecimal() else None)


def parse_url(url: str) -> SplitResult:
    """Raises InvalidValue for what nllbd cannot be reached at."""
    try:
        parts = urlsplit(url)
        is_complete = parts.path if parts.scheme == "unix" else parts.hostname and parts.port != 0
        if parts.scheme in ("http", "https", "unix") and is_complete:
            return parts
    except ValueError:  # a malformed host or port
        pass
    raise InvalidValue(f"--url {url!r}: expected http://HOST:PORT, https://HOST or unix:/path", field="url")


def key_header(api_key: str | None) -> dict[str, str | bytes]:
    """The header that carries a key, in UTF-8 as the daemon compares it; none without one. Raises InvalidValue."""
    if not api_key:
        return {}
    if not api_key.isprintable():
        raise InvalidValue("the key has a line break or another character that no header can carry", field="api_key")
    return {"X-API-Key": api_key.encode()}


def base_url(host: str, port: int) -> str:
    """A listening address as one to connect to."""
    if host.startswith("unix:"):
        return host
    host = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host and not host.startswith("[") else f"http://{host}:{port}"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def open_connection(parts: SplitResult, timeout_s: float = _NO_LIMIT_S) -> http.client.HTTPConnection:
    """An HTTP connection to a URL that `parse_url` let pass; it connects when it is first used."""
    if parts.scheme == "unix":
        return _UnixConnection(parts.path, timeout_s)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=timeout_s)
