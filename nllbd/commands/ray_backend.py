"""A third way to get a translation: models in the actors of a Ray cluster, one an actor. Knows no files.

Each actor has a `LocalBackend` of its own; texts go to the one that has least to do. One that is lost is started again
by Ray; what it had is answered `not_ready`, which `nllbd bulk` tries again.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import ModuleType, TracebackType
from typing import Any, Self

from nllbd.commands.backends import Ask, LocalBackend, Refusal, Translated
from nllbd.commands.output import Progress
from nllbd.config import ROWS, Settings
from nllbd.errors import ConfigError, NllbdError, NotReady

#: Calls that an actor works on at once: together they fill its batch.
CALLS_AN_ACTOR = 8
#: How long the cluster may take to place the actors and load the models.
PLACED_WITHIN_S = 600.0
#: (code, message) of a typed error, for errors of another process's classes do not always cross.
_Refused = tuple[str, str]


class Worker:
    """What runs in an actor: a model, opened by the first call."""

    def __init__(self, settings: Settings) -> None:
        self._backend = LocalBackend(settings)
        self._opening: asyncio.Task[LocalBackend] | None = None

    async def open(self) -> _Refused | None:
        """Load the model; why it cannot be, if so."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._backend.__aenter__())
        try:
            await self._opening
        except NllbdError as error:
            return error.code, error.message
        return None

    async def translate(self, texts: list[str], ask: Ask) -> list[Translated] | _Refused:
        refused = await self.open()
        if refused is not None:
            return refused
        try:
            return await self._backend.translate(texts, ask)
        except NllbdError as error:
            return error.code, error.message


class RayBackend:
    """Models on a Ray cluster: that of `address`, else of RAY_ADDRESS, else one that lives in this machine meanwhile.

    `num_workers` 0: as many as the cluster has room for, each with `num_threads` cores (by default a whole node's), or
    with a GPU.
    """

    def __init__(self, settings: Settings, address: str | None = None, num_workers: int = 0) -> None:
        secrets: dict[str, Any] = {row.name: None for row in ROWS if row.secret}
        self._settings = replace(settings, **secrets)  # they would lie in the cluster's object stores
        self._address = address
        self._num_workers = num_workers
        self._load: dict[Any, int] = {}

    @property
    def num_calls(self) -> int:
        """Calls at once that keep all actors busy. Known once it is open."""
        return CALLS_AN_ACTOR * max(1, len(self._load))

    async def __aenter__(self) -> Self:
        ray = self._ray = _import_ray()
        try:
            await asyncio.to_thread(
                ray.init, self._address, log_to_driver=False, logging_level="error", include_dashboard=None
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise NotReady(f"the Ray cluster is not to be had: {str(error).splitlines()[0]}") from None
        try:
            self._place()
            await self._load_models()
        except BaseException:
            ray.shutdown()
            raise
        return self

    def _place(self) -> None:
        ray, settings = self._ray, self._settings
        with_gpu = settings.device.startswith("cuda") or (settings.device == "auto" and _count(ray, "GPU") > 0)
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        threads = settings.num_threads or max(1, max(cores, default=1))
        room = int(_count(ray, "GPU")) if with_gpu else sum(number // threads for number in cores)
        number = self._num_workers or room
        if not 0 < number <= room:
            kind = "GPUs" if with_gpu else f"times {threads} cores"
            raise ConfigError(f"{number or 1} Ray workers are asked for; the cluster has room for {room} ({kind})")
        needs = {"num_gpus": 1, "num_cpus": 1} if with_gpu else {"num_cpus": threads}
        actor = ray.remote(**needs, max_restarts=-1, max_concurrency=2 * CALLS_AN_ACTOR)(Worker)
        settings = replace(settings, num_threads=0 if with_gpu else threads)
        self._load = {actor.remote(settings): 0 for _ in range(number)}

    async def _load_models(self) -> None:
        opening = asyncio.gather(*(worker.open.remote() for worker in self._load))
        waited_s = 0.0
        try:
            with Progress(f"loading {self._settings.model} on {len(self._load)} Ray workers") as progress:
                while not opening.done() and waited_s < PLACED_WITHIN_S:
                    await asyncio.wait({opening}, timeout=0.2)
                    waited_s += 0.2
                    progress.update()
            if not opening.done():
                raise NotReady(f"the Ray cluster placed no workers within {PLACED_WITHIN_S:g} s")
            for refused in await opening:
                _check(refused)
        except self._ray.exceptions.RayError as error:
            raise NotReady(_lost(error)) from None
        finally:
            opening.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._ray.shutdown)

    async def translate(self, texts: list[str], ask: Ask) -> list[Translated]:
        """Raises NllbdError: what the actor's translator raised; NotReady if the actor was lost."""
        worker = min(self._load, key=lambda worker: self._load[worker])
        self._load[worker] += 1
        try:
            answer = await worker.translate.remote(texts, ask)
        except self._ray.exceptions.RayError as error:
            raise NotReady(_lost(error)) from None
        finally:
            self._load[worker] -= 1
        if isinstance(answer, tuple):
            _check(answer)
        return list(answer)


def _import_ray() -> ModuleType:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise ConfigError("--engine ray needs Ray, which is not installed: pip install 'nllbd[ray]'") from None
    return ray


def _count(ray: ModuleType, resource: str) -> float:
    return float(ray.cluster_resources().get(resource, 0))


def _check(refused: _Refused | None) -> None:
    if refused is not None:
        code, message = refused
        raise Refusal(message, code, None)


def _lost(error: Exception) -> str:
    return f"a worker of the Ray cluster was lost ({type(error).__name__}); Ray starts it again"
