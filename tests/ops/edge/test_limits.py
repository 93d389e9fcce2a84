"""How much one caller may have, on both load balancers with the rates that are shipped."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.ops.edge.conftest import FRONTS, TEXT, Front
from tests.ops.kit.daemons import Daemon
from tests.ops.kit.programs import eventually
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops

BURST = 20  # of who brings no key; the guide's


@pytest.fixture(scope="module", params=FRONTS)
def front(request: pytest.FixtureRequest, start_front: Callable[..., Front], one: Daemon) -> Front:
    return start_front(request.param, [one], unlimited=False)


@pytest.fixture(scope="module")
def client(front: Front, client_of: Callable[..., httpx.Client]) -> httpx.Client:
    return client_of(front)


def test_strangers_share_a_bucket_by_address_and_keys_have_their_own(client: httpx.Client) -> None:
    answers = [client.post("/translate", json=TEXT) for _ in range(BURST + 10)]
    served = [answer.status_code for answer in answers].count(200)
    assert BURST <= served <= BURST + 2
    refused = answers[-1]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "6")
    assert refused.json()["error"]["code"] == "rate_limited"
    assert refused.json()["error"]["request_id"] == refused.headers["x-request-id"]
    assert refused.headers["strict-transport-security"]

    # in the shape of the caller's dialect
    deepl = client.post("/v2/translate", json={"text": ["a"], "target_lang": "FR"})
    google = client.post("/language/translate/v2", json={"q": "a", "target": "fr"})
    azure = client.post("/translate?api-version=3.0&to=fr", json=[{"Text": "a"}])
    assert [answer.status_code for answer in (deepl, google, azure)] == [429, 429, 429]
    assert "message" in deepl.json()
    assert google.json()["error"]["code"] == 429
    assert azure.json()["error"]["code"] == 429000

    # neither health nor pages nor a browser's preflight count, nor are they refused
    assert {client.get("/health").status_code for _ in range(60)} == {200}
    assert client.get("/languages").status_code == 200
    preflight = {"Origin": "https://app.example.test", "Access-Control-Request-Method": "POST"}
    assert client.options("/translate", headers=preflight).status_code != 429

    # a key has a larger bucket of its own, wherever its client puts it
    for headers in ({"Authorization": "Bearer a-key"}, {"X-API-Key": "another"}, {"X-Goog-Api-Key": "third"}):
        assert {client.post("/translate", json=TEXT, headers=headers).status_code for _ in range(30)} == {200}
    assert client.post("/translate?key=fourth", json=TEXT).status_code == 200


def test_one_key_cannot_take_everything(front: Front, client: httpx.Client) -> None:
    key = {"Authorization": "Bearer greedy"}
    with Traffic(front.url, clients=8, cafile=front.cafile, headers=key, echoes=True) as traffic:
        eventually(lambda: traffic.counts["429"] >= 5, what="a refusal")
    assert set(traffic.counts) == {"200", "429"}, traffic.report()
    statuses = [outcome.status for outcome in sorted(traffic.outcomes, key=lambda outcome: outcome.began_at)]
    assert statuses.index(429) >= 95  # a hundred at once, and what comes back meanwhile; order is a matter of threads
    other = client.post("/translate", json=TEXT, headers={"Authorization": "Bearer modest"})
    assert other.status_code == 200
