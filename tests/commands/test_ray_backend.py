from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from nllbd.commands.backends import Ask, Translated
from nllbd.commands.ray_backend import RayBackend, Worker
from nllbd.config import ROWS, Settings, load_settings
from nllbd.errors import ConfigError, NllbdError, NotReady

ASK = Ask(target="fra_Latn", source="eng_Latn", num_beams=1)


@pytest.fixture
def settings() -> Settings:
    return load_settings(environ={"NLLBD_API_KEY": "not to be sent", "NLLBD_NUM_THREADS": "2"})


class Cluster:
    """What the backend asks of Ray, answered at once in this process."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    def __init__(self, cores: list[int], gpus: int = 0) -> None:
        self._cores, self._gpus = cores, gpus
        self.needs: dict[str, Any] = {}
        self.given: list[Settings] = []
        self.answer: Any = None

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": float(cores)}} for cores in self._cores]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(sum(self._cores)), "GPU": float(self._gpus)}

    def remote(self, **needs: Any) -> Any:
        self.needs = needs
        return lambda cls: SimpleNamespace(remote=self._make)

    def _make(self, settings: Settings) -> Any:
        self.given.append(settings)
        return Actor(self)


class Actor:
    def __init__(self, cluster: Cluster) -> None:
        self.asked: list[list[str]] = []

        async def translate(texts: list[str], ask: Ask) -> Any:
            self.asked.append(texts)
            if isinstance(cluster.answer, Exception):
                raise cluster.answer
            return cluster.answer or [Translated(text.upper()) for text in texts]

        self.translate = SimpleNamespace(remote=translate)


def placed(settings: Settings, cluster: Cluster, num_workers: int = 0) -> RayBackend:
    backend = RayBackend(settings, None, num_workers)
    backend._ray = cluster
    backend._place()
    return backend


def test_without_ray_it_says_what_to_install(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'nllbd\[ray\]'"):
        RayBackend(settings).__aenter__().send(None)


def test_as_many_workers_as_there_is_room_for(settings: Settings) -> None:
    cluster = Cluster([4, 5, 1])
    backend = placed(settings, cluster)
    assert len(cluster.given) == 4
    assert backend.num_calls == 32
    assert cluster.needs["num_cpus"] == 2


def test_a_gpu_is_one_worker_s(settings: Settings) -> None:
    cluster = Cluster([16], gpus=3)
    placed(settings, cluster)
    assert len(cluster.given) == 3
    assert cluster.needs["num_gpus"] == 1


def test_more_workers_than_room_are_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="room for 2"):
        placed(settings, Cluster([4]), num_workers=3)


def test_no_secret_leaves_this_process(settings: Settings) -> None:
    cluster = Cluster([4])
    placed(settings, cluster)
    assert settings.api_key == "not to be sent"
    assert all(getattr(given, row.name) is None for given in cluster.given for row in ROWS if row.secret)


async def test_texts_go_to_who_has_least_to_do(settings: Settings) -> None:
    backend = placed(settings, Cluster([4]))
    first, second = backend._load
    backend._load[first] = 1
    assert await backend.translate(["a"], ASK) == [Translated("A")]
    assert (first.asked, second.asked) == ([], [["a"]])
    assert backend._load[second] == 0


async def test_errors_of_workers_keep_their_codes(settings: Settings) -> None:
    cluster = Cluster([2])
    backend = placed(settings, cluster)
    cluster.answer = ("language_not_detected", "the language could not be told")
    with pytest.raises(NllbdError, match="could not be told") as caught:
        await backend.translate(["a"], ASK)
    assert caught.value.code == "language_not_detected"
    cluster.answer = Cluster.exceptions.RayError()
    with pytest.raises(NotReady, match="lost"):
        await backend.translate(["a"], ASK)


async def test_a_worker_tells_why_its_model_cannot_be_loaded(settings: Settings) -> None:
    from dataclasses import replace

    worker = Worker(replace(settings, model="/nowhere"))
    refused = await worker.open()
    assert refused is not None
    assert "nowhere" in refused[1]
    assert await worker.translate(["a"], ASK) == refused
