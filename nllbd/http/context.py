"""What every handler may use, in one object under one `web.AppKey`, and what is known of the request at hand."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from aiohttp import web

from nllbd.accounts import Accounts
from nllbd.bridge.protocol import EngineClient
from nllbd.busiest import BusyAccounts
from nllbd.checkpoint import Checkpoint
from nllbd.config import Settings
from nllbd.glossaries import Glossaries
from nllbd.http.clients import ClientAddresses, stranger
from nllbd.http.dispatch import Dialect
from nllbd.job import Usage
from nllbd.lifecycle import Lifecycle
from nllbd.metrics import Metrics
from nllbd.principal import Principal
from nllbd.redis_client import RedisLink
from nllbd.security.gcra import Decision
from nllbd.security.guard import Guard
from nllbd.text.detect import Detector
from nllbd.text.tokenizer import Tokenizer
from nllbd.tracing import NO_TRACING, RequestSpan, Tracing
from nllbd.translator import Translator


@dataclass(slots=True, eq=False)
class AppContext:
    """Everything the daemon assembled. `body_timeout_s` is how long a client may take to send a body.

    `accounts` without a store knows no stored keys and counts usage in memory. `rate_redis` is where several hosts
    share their rate buckets.
    """

    settings: Settings
    translator: Translator
    engine: EngineClient
    metrics: Metrics
    lifecycle: Lifecycle
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    detector: Detector
    body_timeout_s: float = 20.0
    accounts: Accounts = field(default_factory=Accounts)
    rate_redis: RedisLink | None = None
    tracing: Tracing = NO_TRACING
    busiest: BusyAccounts = field(default_factory=BusyAccounts)
    clients: ClientAddresses = field(init=False)
    guard: Guard = field(init=False)
    glossaries: Glossaries = field(init=False)

    def __post_init__(self) -> None:
        self.clients = ClientAddresses(self.settings.trusted_proxies)
        self.glossaries = Glossaries(self.accounts)
        self.guard = Guard(self.settings, self.accounts, self.rate_redis)

    def apply(self, settings: Settings) -> None:
        """Take over settings that changed live (SIGHUP). Raises ConfigError, and changes nothing, when a file that they
        name is not good.
        """
        self.guard.apply(settings)
        self.settings = settings
        self.clients = ClientAddresses(settings.trusted_proxies)
        self.translator.apply(settings)


@dataclass(slots=True, eq=False)
class Exchange:
    """One HTTP request as the access log and the metrics will tell it. Handlers fill in what they learn.

    `client` is the address. `principal` is anonymous until good credentials were found (`has_credentials`);
    `is_authenticated` says that it is known who sends the request, be it a stranger, and that they may. `rate` is what
    the rate limit decided. `dialect` is what the request seems to speak until its body is read, and what it does speak
    after that: errors are told in it.
    """

    request_id: str
    client: str
    route: str
    started: float = field(default_factory=time.monotonic)
    code: str = "ok"
    usage: Usage | None = None
    rate: Decision | None = None
    has_credentials: bool = False
    is_authenticated: bool = False
    dialect: Dialect = Dialect.NATIVE
    span: RequestSpan | None = None
    principal: Principal = field(init=False)

    def __post_init__(self) -> None:
        self.principal = stranger(self.client)

    @property
    def duration_s(self) -> float:
        return time.monotonic() - self.started


CONTEXT = web.AppKey("context", AppContext)
EXCHANGE = web.RequestKey("exchange", Exchange)
