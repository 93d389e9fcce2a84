"""The typed errors. Each knows its machine-readable code and its HTTP status; nothing here knows HTTP itself.

Raise them where the cause is known, with a message that says what was wrong, where, and what to do.
The front ends (HTTP dialects, CLI) render them; no other exception type ever reaches a client's eyes.
"""

from __future__ import annotations

from typing import ClassVar


class NllbdError(Exception):
    """Base of every error that a caller may see.

    Attributes:
        code: machine-readable, stable, one of the codes listed in API.md.
        status: the HTTP status that goes with it.
        message: one sentence for a person.
        field: the request field at fault, e.g. `text[3]`, or None.
        retry_after_s: seconds after which a retry makes sense, or None; every 503 has one.
        retryable: another host may serve the very same request now (draining, not ready).
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    default_retry_after_s: ClassVar[float | None] = None

    def __init__(self, message: str, *, field: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = self.default_retry_after_s if retry_after_s is None else retry_after_s


class InvalidJson(NllbdError):
    code, status = "invalid_json", 400


class MissingField(NllbdError):
    code, status = "missing_field", 400


class InvalidType(NllbdError):
    code, status = "invalid_type", 400


class InvalidValue(NllbdError):
    code, status = "invalid_value", 400


class UnknownLanguage(NllbdError):
    code, status = "unknown_language", 400


class EmptyText(NllbdError):
    code, status = "empty_text", 400


class Unauthorized(NllbdError):
    code, status = "unauthorized", 401


class NoCredentials(Unauthorized):
    """None came where some are needed; some dialects tell that apart from wrong ones."""


class Forbidden(NllbdError):
    code, status = "forbidden", 403


class NotFound(NllbdError):
    code, status = "not_found", 404


class MethodNotAllowed(NllbdError):
    code, status = "method_not_allowed", 405


class BodyTimeout(NllbdError):
    code, status = "body_timeout", 408


class TextTooLong(NllbdError):
    code, status = "text_too_long", 413


class TooManyTexts(NllbdError):
    code, status = "too_many_texts", 413


class BodyTooLarge(NllbdError):
    code, status = "body_too_large", 413


class UnsupportedMediaType(NllbdError):
    code, status = "unsupported_media_type", 415


class UnsupportedPair(NllbdError):
    code, status = "unsupported_pair", 422


class LanguageNotDetected(NllbdError):
    code, status = "language_not_detected", 422


class RateLimited(NllbdError):
    code, status = "rate_limited", 429


class QuotaExceeded(NllbdError):
    code, status = "quota_exceeded", 429


class InternalError(NllbdError):
    code, status = "internal", 500


class NotImplementedYet(NllbdError):
    code, status = "not_implemented", 501


class Overloaded(NllbdError):
    code, status, default_retry_after_s = "overloaded", 503, 1.0


class NotReady(NllbdError):
    code, status, retryable, default_retry_after_s = "not_ready", 503, True, 1.0


class StoreUnavailable(NotReady):
    """The database does not answer; nothing is known of whether what was asked of it has happened."""


class Draining(NllbdError):
    code, status, retryable, default_retry_after_s = "draining", 503, True, 1.0


class DeadlineExceeded(NllbdError):
    code, status = "deadline_exceeded", 504


class ConfigError(NllbdError):
    """A setting is unknown, malformed or contradicts another. Never reaches HTTP: the daemon does not start.

    Attributes:
        may_pass: another attempt may do: at boot an address may come later than the daemon.
    """

    code = "config"
    may_pass = False


class CheckpointError(NllbdError):
    """A model folder is missing, incomplete or not an NLLB checkpoint."""

    code = "checkpoint"
