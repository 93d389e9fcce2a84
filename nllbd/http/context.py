"""What every handler may use, in one object under one `web.AppKey`, and what is known of the request at hand."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from aiohttp import web

from nllbd.accounts import Accounts
from nllbd.bridge.protocol import EngineClient
from nllbd.checkpoint import Checkpoint
from nllbd.config import Settings
from nllbd.http.clients import ClientAddresses
from nllbd.job import Usage
from nllbd.lifecycle import Lifecycle
from nllbd.metrics import Metrics
from nllbd.principal import Principal, anonymous
from nllbd.text.detect import Detector
from nllbd.text.tokenizer import Tokenizer
from nllbd.translator import Translator


@dataclass(slots=True, eq=False)
class AppContext:
    """Everything the daemon assembled. `body_timeout_s` is how long a client may take to send a body.

    `accounts` without a store knows no stored keys and counts usage in memory.
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
    clients: ClientAddresses = field(init=False)

    def __post_init__(self) -> None:
        self.clients = ClientAddresses(self.settings.trusted_proxies)

    def apply(self, settings: Settings) -> None:
        """Take over settings that changed live (SIGHUP)."""
        self.settings = settings
        self.clients = ClientAddresses(settings.trusted_proxies)
        self.translator.apply(settings)


@dataclass(slots=True, eq=False)
class Exchange:
    """One HTTP request as the access log and the metrics will tell it. Handlers fill in what they learn.

    `client` is the address. `principal` is anonymous until the request is authenticated.
    """

    request_id: str
    client: str
    route: str
    started: float = field(default_factory=time.monotonic)
    code: str = "ok"
    usage: Usage | None = None
    principal: Principal = field(init=False)

    def __post_init__(self) -> None:
        self.principal = anonymous(self.client)

    @property
    def duration_s(self) -> float:
        return time.monotonic() - self.started


CONTEXT = web.AppKey("context", AppContext)
EXCHANGE = web.RequestKey("exchange", Exchange)
