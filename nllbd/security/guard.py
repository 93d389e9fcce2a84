"""Everything of security in one object, for HTTP to ask and for the daemon to start, reload and stop."""

from __future__ import annotations

from nllbd.config import Settings
from nllbd.errors import StoreUnavailable
from nllbd.redis_client import RedisLink
from nllbd.security.attempts import FailedAttempts
from nllbd.security.authenticator import Authenticator
from nllbd.security.ports import Accounts
from nllbd.security.rates import RateLimiter
from nllbd.security.redis_buckets import RedisBuckets
from nllbd.security.sessions import Sessions
from nllbd.security.tokens import Tokens
from nllbd.security.tokens import notes as token_notes


class Guard:
    """`is_exposed`: strangers can reach a socket of ours, so nobody comes in unknown unless that is allowed."""

    def __init__(self, settings: Settings, accounts: Accounts | None = None, redis: RedisLink | None = None) -> None:
        self.is_exposed = False
        self._keys = accounts.keys if accounts is not None and accounts.has_store else None
        self._settings = settings
        self.sessions = Sessions(accounts)
        self.authenticator = Authenticator(settings, Tokens(settings), self._keys, self.sessions)
        self.attempts = FailedAttempts(audit=accounts.audit if accounts is not None else None)
        self.rates = RateLimiter(settings, RedisBuckets(redis) if redis is not None else None)

    def apply(self, settings: Settings) -> None:
        """Take over what changed live. Raises ConfigError, and changes nothing, when the JWKS file is not good.

        Reads files: call it off the event loop's thread, or where a file's read does not matter.
        """
        tokens = Tokens(settings)
        self._settings = settings
        self.authenticator.apply(settings, tokens)
        self.rates.apply(settings)

    @property
    def checks_credentials(self) -> bool:
        """Whether credentials mean anything here. Where none are set and only this machine can connect they do not:
        a client that must send some kind of key (DeepL's) is let in whatever it sends."""
        return self.has_credentials or self.is_exposed

    @property
    def lets_anonymous_in(self) -> bool:
        """Whether a request without credentials is served: where that is allowed, or nothing is set to ask for."""
        return self._settings.allow_anonymous or not self.checks_credentials

    @property
    def has_credentials(self) -> bool:
        """Whether anybody could be authenticated. A store that has ever held a key counts for good: the last key's end
        must not open the door. So does one that could not be read, for it may hold keys: only a store that was read
        and never held one asks nobody.
        """
        return self.authenticator.is_configured or (self._keys is not None and self._keys.has_held_keys is not False)

    def check_serves(self) -> None:
        """Raises StoreUnavailable while nobody at all can be let in: nothing but the store's keys would do, and they
        cannot be read. Stored keys beside other credentials that work are no reason to send everybody elsewhere.
        """
        if self._keys is None or self._keys.is_known or self.authenticator.is_configured:
            return
        if not self._settings.allow_anonymous:
            raise StoreUnavailable("the store of keys cannot be read, so nobody is let in; see the log")

    @property
    def is_locked(self) -> bool:
        """Whether nobody can come in though the store was read: strangers can reach us, and there never was a key."""
        has_any = self.authenticator.is_configured or self._keys is None or self._keys.has_held_keys is not False
        return self.is_exposed and not has_any and not self._settings.allow_anonymous

    def check_known(self) -> None:
        """Raises StoreUnavailable while nobody can say whether credentials are needed at all, or which are good: the
        store alone would know, and it could not be read."""
        if self.authenticator.is_configured or self.is_exposed or self._keys is None:
            return
        if self._keys.has_held_keys is None:
            raise StoreUnavailable("the store of keys cannot be read, so nobody is let in; try again shortly")


def notes(settings: Settings) -> tuple[str, ...]:
    """What an operator should know of the settings about access."""
    found = token_notes(settings)
    if settings.allow_anonymous and (settings.api_key or settings.jwt_secret or settings.jwt_jwks_file):
        found += ("allow_anonymous is set: requests without credentials are served although credentials are set, too",)
    return found
