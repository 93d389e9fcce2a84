"""The daemon: assembles everything, serves, and goes in an orderly way. `run` is all that others call.

Start-up: 1 logging, 2 checkpoint and tokenizer, 3 sockets, 4 engine process, 5 serve on own sockets (`/livez` 200, all
else 503), 6 wait for the engine, 7 serve on inherited sockets (connections wait in their backlog until now), 8 tell
systemd and the terminal. Shutdown, on SIGTERM or SIGINT: 1 stop accepting, 2 drain, 3 close connections, 4 stop the
engine, 5 close the rest. A second signal skips the drain. SIGHUP reloads what can change live.

Exit codes (through the command line): 0 stopped as told, 1 the model or the engine could not be started, 2 the settings
or an address were refused. Never imports torch: the engine has a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvloop
from aiohttp import web

from nllbd import log, signals
from nllbd.accounts import Accounts
from nllbd.announce import Announcement
from nllbd.assembly import engine_config, rate_limit_link, redis_link, segment_cache
from nllbd.bridge.process import ProcessEngine
from nllbd.bridge.protocol import EngineInfo
from nllbd.cache.cache import SegmentCache
from nllbd.checkpoint import read_checkpoint, resolve_model
from nllbd.config import Settings, load_settings
from nllbd.endpoint import Endpoint
from nllbd.errors import ConfigError, NllbdError
from nllbd.http.app import build_app, build_metrics_app
from nllbd.http.context import AppContext
from nllbd.http.server import count_silent, make_runner
from nllbd.job import cap_warning
from nllbd.lifecycle import Lifecycle, LifecycleState
from nllbd.metrics import CONFIG_RELOADS, MAX_WAITING_SEGMENTS, MAX_WAITING_TOKENS, Metrics
from nllbd.redis_client import RedisLink
from nllbd.security.guard import notes as security_notes
from nllbd.sockets import Listener, bind, check_exposure, sort_inherited
from nllbd.standing import Standing
from nllbd.systemd import Notifier, inherit_sockets
from nllbd.text.detect import Detector
from nllbd.text.tokenizer import Tokenizer
from nllbd.tracing import open_tracing
from nllbd.translator import Translator

#: How long a connection that was accepted just before the drain may take to send its request.
SILENT_GRACE_S = 1.0
#: How long it must stay quiet: requests may be under way to a kept-alive connection.
SETTLE_S = 0.05
#: How long a response that is ready may take to reach its client once everything else is done.
_FLUSH_S = 5.0
_GC_THRESHOLD = 20_000  # new objects between two collections: some megabytes at the most

logger = log.get_logger(__name__)


def run(settings: Settings, reload: Callable[[], Settings] | None = None) -> int:
    """Serve until told to stop; blocks. `reload` reads the settings anew (SIGHUP); default `load_settings`.

    Raises ConfigError, CheckpointError or InternalError when it cannot start.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(log.configure(settings.log_level, settings.log_format).close)
        if settings.sentry_dsn is not None:
            from nllbd.sentry import reporting  # an SDK that nobody else needs

            stack.enter_context(reporting(settings.sentry_dsn))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(Daemon(settings, reload or load_settings)))
        signals.finish()
    return 0


async def _serve(daemon: Daemon) -> None:
    try:
        await daemon.serve()
    finally:
        signals.hold()


class Daemon:
    """One run of the daemon, on one event loop. The methods stand in the order in which they happen."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings]) -> None:
        self._settings = settings
        self._reload = reload
        self._notifier = Notifier.from_environment(os.environ)
        self._lifecycle = Lifecycle()
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._context: AppContext
        self._engine: ProcessEngine
        self._standing: Standing
        self._cache: SegmentCache
        self._redis: RedisLink | None = None
        self._rate_redis: RedisLink | None = None
        self._http: Endpoint
        self._metrics: Endpoint

    async def serve(self) -> None:
        """Start, serve until told to stop, drain, close."""
        try:
            self._handle_signals()
            self._assemble()
            await self._listen()
            info = await self._start_engine()
            if info is not None:
                await self._become_ready(info)
                await self._stop.wait()
                await self._drain()
        finally:
            await self._close()

    # Start-up

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload_settings()))

    def _on_stop_signal(self) -> None:
        if self._stop.is_set():
            self._stop_at_once.set()
        self._stop.set()

    def _assemble(self) -> None:
        """Everything that needs no socket and no engine process yet."""
        settings = self._settings
        for note in (*settings.notes, *security_notes(settings)):
            logger.warning("settings", note=note)
        checkpoint = read_checkpoint(resolve_model(settings.model, settings.model_dir))
        if warning := cap_warning(settings, checkpoint):
            logger.warning("settings", note=warning)
        tokenizer = Tokenizer(checkpoint)
        detector = Detector(tokenizer.languages, settings.detect_threshold, settings.detect_model)
        self._engine = ProcessEngine(engine_config(settings, checkpoint))
        self._standing = Standing(self._notifier, self._engine, self._lifecycle, checkpoint.name)
        metrics = Metrics(self._engine, checkpoint.name, checkpoint.fingerprint)
        metrics.watch_settings(lambda: self._settings.fingerprint)
        metrics.set(MAX_WAITING_TOKENS, settings.max_waiting_tokens)
        metrics.set(MAX_WAITING_SEGMENTS, settings.max_waiting_segments)
        metrics.watch_log(log.num_dropped)
        tracing = open_tracing(settings.otlp_endpoint)
        self._redis = redis_link(settings, metrics)
        self._rate_redis = rate_limit_link(settings, metrics)
        self._cache = segment_cache(settings, checkpoint, metrics, self._redis)
        translator = Translator(
            engine=self._engine,
            tokenizer=tokenizer,
            detector=detector,
            checkpoint=checkpoint,
            settings=settings,
            metrics=metrics,
            cache=self._cache,
            tracing=tracing,
        )
        self._context = AppContext(
            settings=settings,
            translator=translator,
            engine=self._engine,
            metrics=metrics,
            lifecycle=self._lifecycle,
            checkpoint=checkpoint,
            tokenizer=tokenizer,
            detector=detector,
            accounts=Accounts.from_settings(settings, metrics),
            rate_redis=self._rate_redis or self._redis,
            tracing=tracing,
        )

    async def _listen(self) -> None:
        """Bind or inherit, check who can reach us, and answer on our own sockets: alive, not ready."""
        settings = self._settings
        http, metrics = sort_inherited(inherit_sockets(os.environ))
        self._lifecycle.has_successor = bool(http)
        http = http or bind(settings.host, settings.port, "")
        self._http = await self._open(http, build_app(self._context))
        await self._check_exposure(http)
        if not metrics and settings.metrics_port:
            metrics = bind(settings.metrics_host, settings.metrics_port, "metrics_")
        self._metrics = await self._open(metrics, build_metrics_app(self._context))
        for endpoint in (self._http, self._metrics):
            await endpoint.accept(inherited=False)
        await self._metrics.accept(inherited=True)

    async def _check_exposure(self, listeners: list[Listener]) -> None:
        """Raises ConfigError if strangers could come in unknown. Stored keys count if there are any, or may be."""
        guard, accounts = self._context.guard, self._context.accounts
        guard.is_exposed = not all(listener.is_private for listener in listeners)
        if guard.is_exposed and not guard.authenticator.is_configured and not self._settings.allow_anonymous:
            accounts.start()
            await accounts.wait_settled()
        try:
            check_exposure(listeners, guard.has_credentials, self._settings.allow_anonymous)
        except ConfigError:
            await accounts.close()
            raise
        if guard.is_exposed:
            self._spawn(self._tell_if_locked())

    async def _tell_if_locked(self) -> None:
        """A store that could only be read after the start may turn out to hold no keys: then nobody can come in."""
        await self._context.accounts.wait_open()
        if self._context.guard.is_locked:
            reason = "the store was read and holds no keys, so every request is refused"
            logger.error("nobody can come in", reason=reason, remedy="nllbd keys create NAME, or set api_key")

    async def _open(self, listeners: list[Listener], app: web.Application) -> Endpoint:
        endpoint = Endpoint(listeners, make_runner(app, shutdown_timeout=_FLUSH_S), [])
        self._closers.append(lambda: self._shut(endpoint))
        await endpoint.runner.setup()
        return endpoint

    async def _start_engine(self) -> EngineInfo | None:
        """The engine's description once it is ready; None if we are told to stop before."""
        self._closers.append(self._stop_engine)
        self._spawn(self._standing.feed_watchdog())
        self._spawn(self._standing.tell_load())
        patience = self._spawn(self._standing.ask_for_time())
        await self._engine.start()
        self._closers.append(self._close_cache)
        for link in filter(None, (self._redis, self._rate_redis)):
            link.start()
        self._closers.append(self._context.accounts.close)  # after the engine's: what was translated is booked
        self._context.accounts.start()
        ready = asyncio.ensure_future(self._engine.wait_ready())
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({ready, stop}, return_when=asyncio.FIRST_COMPLETED)
            return await ready if ready.done() else None
        except NllbdError as error:
            self._lifecycle.fail(error.message)
            logger.error("the engine cannot be started", reason=error.message)
            raise
        finally:
            for task in (ready, stop, patience):
                task.cancel()

    async def _become_ready(self, info: EngineInfo) -> None:
        await self._context.accounts.wait_settled()
        _collect_seldom()
        self._lifecycle.advance(LifecycleState.READY)
        await self._http.accept(inherited=True)
        announcement = Announcement(
            url=self._http.listeners[0].url,
            model=self._context.checkpoint.name,
            device=info.device,
            dtype=info.dtype,
            languages=self._context.tokenizer.languages.codes,
            needs_key=not self._context.guard.lets_anonymous_in,
            start_s=self._lifecycle.uptime_s,
        )
        self._standing.serving = f"serving {announcement.model} on {announcement.url}"
        self._standing.ready()
        if sys.stdout.isatty() and self._settings.log_format != "json":
            sys.stdout.write(announcement.for_people())
            sys.stdout.flush()
        else:
            logger.info("ready", **announcement.for_machines())

    # While it runs

    async def _reload_settings(self) -> None:
        if self._lifecycle.is_ready:
            self._notifier.reloading()
        try:
            fresh = await asyncio.to_thread(self._reload)
            settings, cold = self._settings.reloaded(fresh)
            self._context.apply(settings)
        except NllbdError as error:
            logger.error("settings not reloaded", reason=error.message)
            self._context.metrics.add(CONFIG_RELOADS, result="failed")
            self._standing.complaint = f"settings not reloaded: {error.message}"
        else:
            self._standing.complaint = ""
            self._settings = settings
            log.set_level(self._settings.log_level)
            logger.info("settings reloaded", need_restart=cold)
            self._context.metrics.add(CONFIG_RELOADS, result="ok")
            self._context.accounts.audit.record("settings.reloaded", need_restart=" ".join(cold))
            if self._context.accounts.is_open:
                await self._context.accounts.keys.refresh()
        if self._lifecycle.is_ready:
            self._standing.ready()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Shutdown

    async def _drain(self) -> None:
        """Stop accepting; return when nothing is in flight, the time is up, or a second signal came."""
        timeout_s = self._settings.drain_timeout_s
        self._notifier.stopping("draining")
        self._notifier.extend_timeout(timeout_s + 3 * _FLUSH_S)
        logger.info("draining", in_flight=self._lifecycle.num_in_flight, timeout_s=timeout_s)
        await self._http.take_in_backlog()
        self._http.stop_accepting()
        self._lifecycle.advance(LifecycleState.DRAINING)
        quiet = asyncio.ensure_future(self._wait_quiet())
        at_once = asyncio.ensure_future(self._stop_at_once.wait())
        await asyncio.wait({quiet, at_once}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not quiet.done():
            self._stop_at_once.set()  # what is left is cut: no courtesy below may take time
            logger.warning("stopped with requests in flight", cut=self._lifecycle.num_in_flight)
        for waiter in (quiet, at_once):
            waiter.cancel()

    async def _wait_quiet(self) -> None:
        """Return when nothing is in flight, nothing came in for a moment, and every connection that was accepted
        before the drain has sent the request it was opened for."""
        patience_ends = time.monotonic() + SILENT_GRACE_S
        while True:
            await self._lifecycle.wait_idle()
            num_begun = self._lifecycle.num_begun
            await asyncio.sleep(SETTLE_S)
            is_waited_for = count_silent(self._http.runner) and time.monotonic() < patience_ends
            if num_begun == self._lifecycle.num_begun and not is_waited_for:
                return

    async def _close(self) -> None:
        """Close connections first, the engine after them; no failure keeps the rest from being closed."""
        self._lifecycle.advance(LifecycleState.STOPPED)
        for task in list(self._tasks):
            task.cancel()
        for close in self._closers:
            try:
                await close()
            except Exception:
                logger.exception("shutdown")
        if hasattr(self, "_context"):
            self._context.translator.close()
            await asyncio.to_thread(self._context.tracing.close)
        self._notifier.close()
        logger.info("stopped")

    async def _shut(self, endpoint: Endpoint) -> None:
        endpoint.stop_accepting()
        if not self._stop_at_once.is_set():
            await endpoint.runner.cleanup()

    async def _close_cache(self) -> None:
        await self._cache.close()
        for link in filter(None, (self._redis, self._rate_redis)):
            await link.close()

    async def _stop_engine(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._engine.stop()


def _collect_seldom() -> None:
    """What was built up to now stays: the collector of cyclic garbage need not look at it again. A request makes
    hundreds of objects and hardly a cycle, so that it runs each ten requests by default."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
