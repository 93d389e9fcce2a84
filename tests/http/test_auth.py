"""Credentials over HTTP, with a real store: where they may stand, what each is good for, and how it ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import pytest

from nllbd import accounts as accounts_module
from nllbd import metrics as m
from nllbd.accounts import Accounts
from nllbd.http.auth import BODY_CREDENTIAL_ROUTES
from nllbd.principal import Scope
from nllbd.sched.sequence import Priority
from nllbd.security.guard import Guard
from nllbd.security.tokens import SESSION_TYPE, session_key
from nllbd.store import key_text
from nllbd.store.records import KeyLimits, KeyRecord
from nllbd.store.store import Store
from tests.store.test_keys import make_key

API_KEY = "sesame-sesame-sesame"
SECRET = "a secret of thirty-two bytes or more"
BODY = {"text": "Hello there.", "source_lang": "en", "target_lang": "fr"}
Secured = Callable[..., Awaitable[Any]]


@pytest.fixture
async def secured(start_service: Any, tmp_path: Path) -> AsyncIterator[Secured]:
    """Factory: a service with a store (SQLite), `service.add_key(…)` and `service.ask(credentials…)`."""
    started: list[Accounts] = []

    async def start(**settings: Any) -> Any:
        service = await start_service(**settings)
        accounts = Accounts(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}", tmp_path / "journal")
        started.append(accounts)
        accounts.start()
        await accounts.wait_settled(30)
        service.context.accounts = accounts
        service.context.guard = Guard(service.context.settings, accounts)
        return service

    yield start
    for accounts in started:
        await accounts.close()


async def add_key(service: Any, *scopes: Scope, **more: Any) -> tuple[str, KeyRecord]:
    key_id = key_text.new_id()
    text = key_text.new_text(key_id)
    record = KeyRecord(
        id=key_id,
        name="test",
        digest=key_text.digest(text),
        scopes=frozenset(scopes or {Scope.TRANSLATE}),
        created_at=datetime.now(UTC),
        **more,
    )
    await service.context.accounts.store.add_key(record)
    await service.context.accounts.keys.refresh()
    return text, record


async def ask(service: Any, *headers: tuple[str, str], path: str = "/translate", body: Any = BODY) -> tuple[int, Any]:
    status, answer, _ = await service.request("POST", path, json=body, headers=list(headers))
    return status, answer


def code(answer: Any) -> str:
    return str(answer["error"]["code"])


PLACES: dict[str, Callable[[str], tuple[list[tuple[str, str]], str]]] = {
    "bearer": lambda key: ([("Authorization", f"Bearer {key}")], ""),
    "bearer, oddly written": lambda key: ([("Authorization", f"bEARER   {key} ")], ""),
    "X-API-Key": lambda key: ([("X-API-Key", key)], ""),
    "DeepL": lambda key: ([("Authorization", f"DeepL-Auth-Key {key}")], ""),
    "Azure": lambda key: ([("Ocp-Apim-Subscription-Key", key)], ""),
    "Google's header": lambda key: ([("X-Goog-Api-Key", key)], ""),
    "Google's query": lambda key: ([], f"?key={key}"),
    "LibreTranslate's query": lambda key: ([], f"?api_key={key}"),
    "twice the same": lambda key: ([("X-API-Key", key), ("Authorization", f"Bearer {key}")], f"?key={key}"),
}


async def test_every_place_and_every_kind(secured: Secured) -> None:
    service = await secured(api_key=API_KEY, jwt_secret=SECRET)
    stored, _ = await add_key(service)
    token = jwt.encode({"sub": "alice", "exp": time.time() + 60}, SECRET, algorithm="HS256")
    for credential in (API_KEY, stored, token):
        for place, put in PLACES.items():
            headers, query = put(credential)
            status, answer, _ = await service.request(
                "POST", f"/v2/translate{query}", json={"text": ["Hello."], "target_lang": "FR"}, headers=headers
            )
            assert status == 200, (place, answer)
            headers, query = put(credential[:-1] + ("x" if credential[-1] != "x" else "y"))
            status, _, _ = await service.request("GET", f"/v2/usage{query}", headers=headers)
            assert status in (401, 403), place


async def test_two_different_credentials_are_400(secured: Secured) -> None:
    service = await secured(api_key=API_KEY)
    for headers, query in (
        ([("X-API-Key", API_KEY), ("Authorization", "Bearer other")], ""),
        ([("X-API-Key", API_KEY)], "?key=other"),
        ([], f"?key={API_KEY}&key=other"),
        ([("Ocp-Apim-Subscription-Key", API_KEY), ("X-Goog-Api-Key", "other")], ""),
    ):
        status, answer, _ = await service.request("POST", f"/translate{query}", json=BODY, headers=headers)
        assert status == 400
        assert "two different credentials" in json.dumps(answer)
        assert API_KEY not in json.dumps(answer)


async def test_the_key_in_a_body(secured: Secured) -> None:
    service = await secured(api_key=API_KEY)
    body = {"q": "Hello.", "source": "en", "target": "fr"}
    assert (await ask(service, body=body))[0] in (401, 403)
    assert (await ask(service, body={**body, "api_key": "wrong"}))[0] == 403
    assert (await ask(service, body={**body, "api_key": API_KEY}))[0] == 200
    assert (await ask(service, ("X-API-Key", API_KEY), body={**body, "api_key": API_KEY}))[0] == 200
    assert (await ask(service, ("X-API-Key", API_KEY), body={**body, "api_key": "other"}))[0] == 400
    assert (await ask(service, body=BODY))[0] == 401
    assert (await ask(service, body={**BODY, "api_key": API_KEY}))[0] in (400, 401)  # not of the native form


async def test_nothing_is_translated_for_who_is_not_authenticated(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were a dialect to forget to look at the body's key, nothing would come of it."""
    service = await secured(api_key=API_KEY)

    async def forgetful(*_: object) -> None:
        return None

    for module in ("shared", "libretranslate"):
        monkeypatch.setattr(f"nllbd.http.endpoints.{module}.authenticate_body", forgetful)
    for body in (BODY, {**BODY, "stream": True}, {"q": "Hello.", "source": "en", "target": "fr"}):
        assert (await ask(service, body=body))[0] in (401, 403)
    assert service.context.metrics.value(m.SEQUENCES, result="submitted") == 0


async def test_body_routes_are_routes(secured: Secured) -> None:
    service = await secured(api_key=API_KEY)
    for path in BODY_CREDENTIAL_ROUTES:
        status, _, _ = await service.request("POST", path, json={"q": "Hello.", "source": "en", "target": "fr"})
        assert status in (401, 403), path


async def test_scopes(secured: Secured) -> None:
    service = await secured(api_key=API_KEY, jwt_secret=SECRET)
    admin, _ = await add_key(service, Scope.ADMIN)
    both, _ = await add_key(service, Scope.ADMIN, Scope.TRANSLATE)
    grand = jwt.encode({"sub": "a", "exp": time.time() + 60, "scope": "admin translate"}, SECRET, algorithm="HS256")
    other = jwt.encode({"sub": "a", "exp": time.time() + 60, "scope": "openid"}, SECRET, algorithm="HS256")
    for key, may_translate, may_look in (
        (admin, 403, 200),
        (both, 200, 200),
        (API_KEY, 200, 403),
        (grand, 200, 403),
        (other, 403, 403),
    ):
        assert (await ask(service, ("X-API-Key", key)))[0] == may_translate
        status, _, _ = await service.request("GET", "/debug/engine", headers={"X-API-Key": key})
        assert status == may_look
    assert (await service.request("GET", "/debug/engine"))[0] == 401


async def test_admin_endpoints_are_nobody_s_without_credentials(service: Any) -> None:
    status, answer, _ = await service.request("GET", "/debug/engine")
    assert (status, code(answer)) == (401, "unauthorized")


async def test_stored_keys_end(secured: Secured) -> None:
    service = await secured()
    short, _ = await add_key(service, expires_at=datetime.now(UTC) + timedelta(milliseconds=300))
    text, record = await add_key(service)
    assert (await ask(service, ("X-API-Key", text)))[0] == 200
    assert (await ask(service))[0] == 401  # there are keys, so they are asked for
    await service.context.accounts.store.revoke_key(record.id, datetime.now(UTC))
    end = time.monotonic() + 5
    while (await ask(service, ("X-API-Key", text)))[0] == 200:
        assert time.monotonic() < end, "a revoked key stops within 5 s"
        await asyncio.sleep(0.05)
    while (await ask(service, ("X-API-Key", short)))[0] == 200:
        assert time.monotonic() < end
    assert (await ask(service))[0] == 401  # the last key's end does not open the door


async def test_who_comes_in_unknown(secured: Secured) -> None:
    service = await secured()
    any_key = ("Authorization", "DeepL-Auth-Key whatever")
    assert (await ask(service))[0] == 200
    assert (await ask(service, any_key))[0] == 200  # nothing is set: what a client must send means nothing
    service.context.guard.is_exposed = True
    assert (await ask(service))[0] == 401
    assert (await ask(service, any_key))[0] == 401
    service.context.apply(replace(service.context.settings, allow_anonymous=True))
    assert (await ask(service))[0] == 200
    assert (await ask(service, any_key))[0] == 401
    service.context.apply(replace(service.context.settings, api_key=API_KEY))
    assert (await ask(service))[0] == 200
    assert (await ask(service, ("X-API-Key", API_KEY)))[0] == 200
    assert (await ask(service, ("X-API-Key", "wrong")))[0] == 401


FAKE_KEY = f"nllbd_{'a' * 12}_{'b' * 43}"


async def test_a_store_that_cannot_be_read_opens_no_door(
    start_service: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """It may hold keys: nobody is let in, and nobody is told that their key is wrong, until it was read."""
    monkeypatch.setattr(accounts_module, "_RETRY_S", 0.02)
    monkeypatch.setattr(accounts_module, "_MAX_RETRY_S", 0.02)
    database = tmp_path / "store.db"
    database.write_bytes(b"no database" * 1000)
    service = await start_service()
    accounts = Accounts(f"sqlite+aiosqlite:///{database}", tmp_path / "journal")
    service.context.accounts, service.context.guard = accounts, Guard(service.context.settings, accounts)
    accounts.start()
    try:
        await accounts.wait_settled(30)
        libre = {"q": "Hello.", "source": "en", "target": "fr"}
        for headers, body in (
            ([], BODY),
            ([("X-API-Key", FAKE_KEY)], BODY),
            ([("Authorization", "DeepL-Auth-Key any")], BODY),
            ([], libre),
            ([], {**libre, "api_key": "any"}),
        ):
            status, answer, response = await service.request("POST", "/translate", json=body, headers=headers)
            assert (status, "Retry-After" in response.headers) == (503, True), (headers, answer)
        assert code((await ask(service))[1]) == "not_ready"
        assert service.context.metrics.value(m.AUTH_FAILURES) == 0
        assert (await service.request("GET", "/livez"))[0] == 200
        service.context.apply(replace(service.context.settings, api_key=API_KEY))
        assert [(await ask(service, ("X-API-Key", key)))[0] for key in (API_KEY, "any", FAKE_KEY)] == [200, 401, 503]
        assert (await ask(service))[0] == 401
        service.context.apply(replace(service.context.settings, api_key=None, allow_anonymous=True))
        assert (await ask(service))[0] == 200  # that is what was asked for
        service.context.apply(replace(service.context.settings, allow_anonymous=False))
        database.unlink()
        await eventually(lambda: accounts.keys.is_current)
        assert (await ask(service))[0] == 200  # read, and there never was a key in it
    finally:
        await accounts.close()


@pytest.mark.parametrize("end", ["revoked_at", "expires_at"])
async def test_a_store_whose_only_key_ended_before_the_start_asks_for_keys(
    secured: Secured, tmp_path: Path, end: str
) -> None:
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}")
    key, text = make_key(**{end: datetime.now(UTC)})
    await store.add_key(key)
    await store.close()
    service = await secured()
    assert (await ask(service))[0] == 401
    assert (await ask(service, ("X-API-Key", text)))[0] == 401


# Sessions


async def exchange(service: Any, key: str, body: Any = None) -> tuple[int, Any]:
    status, answer, _ = await service.request("POST", "/auth/token", json=body, headers={"X-API-Key": key})
    return status, answer


async def test_a_session_from_its_key_to_its_end(secured: Secured) -> None:
    service = await secured(api_key=API_KEY, jwt_secret=SECRET, jwt_issuer="https://me", jwt_audience="nllbd")
    stored, record = await add_key(service, limits=KeyLimits(rate_per_minute=600, rate_burst=77))
    for key, subject in ((stored, record.account), (API_KEY, "api_key")):
        status, answer, response = await service.request("POST", "/auth/token", headers={"X-API-Key": key})
        assert status == 200
        assert response.headers["Cache-Control"] == "no-store"
        assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 900)
        claims = jwt.decode(answer["access_token"], session_key(SECRET), algorithms=["HS256"], audience="nllbd")
        assert (claims["iss"], claims["sub"], claims["jti"]) == ("https://me", subject, answer["session_id"])
        assert key not in json.dumps(claims)
        bearer = ("Authorization", f"Bearer {answer['access_token']}")
        assert (await ask(service, bearer))[0] == 200
        assert code((await exchange(service, answer["access_token"]))[1]) == "forbidden"  # not another one
        path = f"/auth/token/{answer['session_id']}"
        assert (await service.request("DELETE", path))[0] == 401
        for _ in range(2):
            status, _, _ = await service.request("DELETE", path, headers={"X-API-Key": key})
            assert status == 204
        assert code((await ask(service, bearer))[1]) == "unauthorized"


async def test_a_session_has_its_key_s_limits_and_ends_with_it(secured: Secured) -> None:
    service = await secured(jwt_secret=SECRET)
    key, record = await add_key(service, limits=KeyLimits(rate_per_minute=1, rate_burst=4))
    _, answer = await exchange(service, key, {"expires_in": 60})
    bearer = ("Authorization", f"Bearer {answer['access_token']}")
    statuses = [(await ask(service, bearer))[0] for _ in range(2)] + [(await ask(service, ("X-API-Key", key)))[0]]
    assert statuses == [200, 200, 200]
    assert (await ask(service, bearer))[0] == 429  # one bucket for a key and its sessions
    other, record = await add_key(service)
    _, answer = await exchange(service, other)
    bearer = ("Authorization", f"Bearer {answer['access_token']}")
    assert (await ask(service, bearer))[0] == 200
    await service.context.accounts.store.revoke_key(record.id, datetime.now(UTC))
    await service.context.accounts.keys.refresh()
    assert (await ask(service, bearer))[0] == 401


@pytest.mark.parametrize("signed_with", ["the secret", "the sessions' key"])
async def test_only_a_stored_session_is_one(secured: Secured, signed_with: str) -> None:
    """Whoever has `jwt_secret`, to sign tokens of their own, does not get a stored key's rights by it."""
    service = await secured(api_key=API_KEY, jwt_secret=SECRET)
    admin, record = await add_key(service, Scope.ADMIN, Scope.TRANSLATE)
    _, real = await exchange(service, admin)
    secret = SECRET if signed_with == "the secret" else session_key(SECRET)
    now = int(time.time())
    for session_id in ("abcdefabcdef", "x", real["session_id"]):
        claims = {"iss": "nllbd", "sub": "x", "jti": session_id, "iat": now, "exp": now + 10**6}
        claims |= {"nllbd_key": record.id, "scope": "admin translate"}
        forged = jwt.encode(claims, secret, algorithm="HS256", headers={"typ": SESSION_TYPE})
        status, _, _ = await service.request("GET", "/debug/engine", headers={"X-API-Key": forged})
        is_real = session_id == real["session_id"] and signed_with != "the secret"
        assert status == (200 if is_real else 401), session_id
    headers = {"X-API-Key": real["access_token"]}
    assert (await service.request("GET", "/debug/engine", headers=headers))[0] == 200


async def test_a_session_works_on_another_host_and_after_a_restart_until_it_is_revoked(secured: Secured) -> None:
    first, second = await secured(jwt_secret=SECRET), await secured(jwt_secret=SECRET)
    key, _ = await add_key(first)
    await second.context.accounts.keys.refresh()
    _, session = await exchange(first, key)
    bearer = ("Authorization", f"Bearer {session['access_token']}")
    assert [(await ask(service, bearer))[0] for service in (first, second, second)] == [200, 200, 200]
    await first.context.accounts.store.revoke_session(session["session_id"], datetime.now(UTC))
    await second.context.accounts.keys.refresh()
    assert (await ask(second, bearer))[0] == 401
    third = await secured(jwt_secret=SECRET)
    assert (await ask(third, bearer))[0] == 401


async def test_a_new_configured_key_ends_the_old_one_s_sessions(secured: Secured) -> None:
    service = await secured(api_key=API_KEY, jwt_secret=SECRET)
    _, answer = await exchange(service, API_KEY)
    bearer = ("Authorization", f"Bearer {answer['access_token']}")
    assert (await ask(service, bearer))[0] == 200
    service.context.apply(replace(service.context.settings, api_key="another-key"))
    assert (await ask(service, bearer))[0] == 401


async def test_only_its_own_key_or_an_admin_ends_a_session(secured: Secured) -> None:
    service = await secured(jwt_secret=SECRET)
    mine, _ = await add_key(service)
    theirs, _ = await add_key(service)
    admin, _ = await add_key(service, Scope.ADMIN)
    _, first = await exchange(service, mine)
    _, second = await exchange(service, mine)
    for credential, session, expected in (
        (theirs, first, 404),
        (first["access_token"], second, 403),
        (first["access_token"], first, 204),
        (admin, second, 204),
        (admin, {"session_id": "none"}, 404),
    ):
        path = f"/auth/token/{session['session_id']}"
        status, _, _ = await service.request("DELETE", path, headers={"Authorization": f"Bearer {credential}"})
        assert status == expected


@pytest.mark.parametrize("session_id", ["x", "%00", "%ff", "%F0%9F%92%A9", "a" * 5000, "a" * 12, "..%2f..", "'; drop"])
async def test_sessions_that_are_none(secured: Secured, session_id: str) -> None:
    service = await secured(api_key=API_KEY, jwt_secret=SECRET)
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    path = f"/auth/token/{quote(session_id, safe='%')}"
    writer.write(f"DELETE {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {API_KEY}\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 30)
    assert answer.split()[1] == b"404", answer
    writer.close()


async def test_a_key_s_class_is_the_highest_it_may_ask_for(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await secured()
    slow, _ = await add_key(service, limits=KeyLimits(top_priority=Priority.BULK))
    quick, _ = await add_key(service)
    seen: list[Priority] = []
    translate = service.context.translator.translate

    async def record(job: Any) -> Any:
        seen.append(job.priority)
        return await translate(job)

    monkeypatch.setattr(service.context.translator, "translate", record)
    for key in (slow, quick):
        for priority in ("interactive", "bulk"):
            assert (await ask(service, ("X-API-Key", key), body={**BODY, "priority": priority}))[0] == 200
    assert seen == [Priority.BULK, Priority.BULK, Priority.INTERACTIVE, Priority.BULK]


async def test_front_ends_are_told_whether_a_key_is_needed(secured: Secured) -> None:
    service = await secured()
    assert not (await service.request("GET", "/frontend/settings"))[1]["keyRequired"]
    await add_key(service)
    assert (await service.request("GET", "/frontend/settings"))[1]["keyRequired"]


@pytest.mark.parametrize("body", [{"expires_in": 0}, {"expires_in": 10**9}, {"expires_in": "60"}, {"x": 1}, [], "x"])
async def test_bad_exchanges(secured: Secured, body: Any) -> None:
    service = await secured(api_key=API_KEY, jwt_secret=SECRET)
    assert (await exchange(service, API_KEY, body))[0] == 400


async def test_sessions_need_a_secret_and_a_key(secured: Secured) -> None:
    service = await secured(api_key=API_KEY)
    status, answer = await exchange(service, API_KEY)
    assert (status, code(answer)) == (501, "not_implemented")
    assert "jwt_secret" in answer["error"]["message"]
    service.context.apply(replace(service.context.settings, jwt_secret=SECRET))
    token = jwt.encode({"sub": "alice", "exp": time.time() + 60}, SECRET, algorithm="HS256")
    assert (await exchange(service, token))[0] == 403
    assert (await service.request("POST", "/auth/token"))[0] == 401


# Limits


async def test_rate_limits_and_what_is_told_of_them(start_service: Any) -> None:
    service = await start_service(rate_limit_per_minute=6, rate_limit_burst=2)
    seen = []
    for _ in range(3):
        status, answer, response = await service.request("POST", "/translate", json=BODY)
        seen.append((status, response.headers["RateLimit"].split(";")[1], response.headers["X-RateLimit-Remaining"]))
    assert seen == [(200, "r=1", "1"), (200, "r=0", "0"), (429, "r=0", "0")]
    assert code(answer) == "rate_limited"
    assert 1 <= int(response.headers["Retry-After"]) <= 10
    assert response.headers["RateLimit-Policy"] == '"default";q=2;w=20'
    assert response.headers["X-RateLimit-Limit"] == "2"
    assert 10 <= int(response.headers["X-RateLimit-Reset"]) <= 20
    assert (await service.request("POST", "/detect", json={"text": "Hello"}))[0] == 429
    for path in ("/health", "/livez", "/readyz", "/languages", "/version", "/"):
        status, _, response = await service.request("GET", path)
        assert status == 200
        assert "RateLimit" not in response.headers
    service.context.apply(replace(service.context.settings, rate_limit_per_minute=0))
    assert (await ask(service))[0] == 200


async def test_a_key_in_the_body_is_charged_once_and_by_the_key(secured: Secured) -> None:
    service = await secured(api_key=API_KEY, rate_limit_per_minute=1, rate_limit_burst=2)
    body = {"q": "Hello.", "source": "en", "target": "fr", "api_key": API_KEY}
    assert [(await ask(service, body=body))[0] for _ in range(3)] == [200, 200, 429]
    assert (await ask(service, ("X-API-Key", API_KEY)))[0] == 429


async def test_ipv6_neighbours_are_one_client(start_service: Any) -> None:
    service = await start_service(rate_limit_per_minute=1, rate_limit_burst=1, trusted_proxies=("127.0.0.1",))
    for client, expected in (
        ("2001:db8:1:2::1", 200),
        ("2001:db8:1:2:ffff::2", 429),
        ("2001:db8:1:3::1", 200),
        ("192.0.2.1", 200),
        ("::ffff:192.0.2.1", 429),
        ("192.0.2.2", 200),
    ):
        assert (await ask(service, ("X-Forwarded-For", client)))[0] == expected, client


async def test_guessing_is_429_and_good_clients_go_on(secured: Secured) -> None:
    service = await secured(api_key=API_KEY)
    good = ("X-API-Key", API_KEY)
    assert (await ask(service, good))[0] == 200
    statuses = [(await ask(service, ("X-API-Key", f"guess{number}")))[0] for number in range(120)]
    assert statuses[:100] == [401] * 100
    assert 429 in statuses[100:]
    assert (await ask(service, good))[0] == 200
    assert service.context.metrics.value(m.AUTH_FAILURES) >= 100


@pytest.mark.parametrize(
    "value",
    ["", " ", "\xff\xfe", "Bearer", "Basic Zm9v", "nllbd_" + "a" * 12 + "_" + "b" * 43, "a" * 7000, "a.b.c", "..", "é"],
)
async def test_odd_credentials_are_401(secured: Secured, value: str) -> None:
    service = await secured(api_key=API_KEY, jwt_secret=SECRET)
    for header in ("X-API-Key", "Authorization"):
        content = f"GET /v2/usage HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}: {value}\r\n\r\n".encode(
            "latin-1"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(content)
        answer = await asyncio.wait_for(reader.read(), 30)
        assert answer.split()[1] in (b"401", b"403"), answer
        writer.close()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 503), ({"api_key": API_KEY}, 200), ({"jwt_secret": SECRET}, 200), ({"allow_anonymous": True}, 200)],
)
async def test_who_could_let_nobody_in_is_not_ready(
    start_service: Any, tmp_path: Path, settings: dict[str, Any], expected: int
) -> None:
    """A store that was never read: those who could be let in without it still are."""
    service = await start_service(**settings)
    accounts = Accounts(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}", tmp_path / "journal")
    service.context.accounts = accounts
    service.context.guard = Guard(service.context.settings, accounts)
    status, ready, response = await service.request("GET", "/readyz")
    assert (status, "Retry-After" in response.headers) == (expected, expected == 503)
    status, health, response = await service.request("GET", "/health")
    assert (status, "Retry-After" in response.headers) == (expected, expected == 503)
    assert (health["status"], health["store"]) == ("ok" if expected == 200 else "failed", "unreadable")
    if expected == 503:
        assert ready["error"]["code"] == "not_ready"
        assert "store of keys" in health["message"]
    await accounts.close()


async def test_a_store_that_answers_is_told(secured: Secured) -> None:
    service = await secured()
    status, health, _ = await service.request("GET", "/health")
    assert (status, health["store"]) == (200, "ok")


async def test_a_name_without_a_value_is_no_credential(secured: Secured) -> None:
    """Forms and settings that were left empty send them."""
    service = await secured(api_key=API_KEY)
    good = ("X-API-Key", API_KEY)
    assert (await ask(service, good, path="/translate?key="))[0] == 200
    assert (await ask(service, good, ("X-Goog-Api-Key", ""), path="/translate"))[0] == 200
    status, answer = await ask(service, ("X-API-Key", ""), body={"q": "Hi", "source": "en", "target": "fr"})
    assert (status, answer["error"]) == (403, "Please contact the server operator to get an API key")
    opened = await secured(api_key=API_KEY, allow_anonymous=True)
    assert (await ask(opened, ("X-API-Key", "")))[0] == 200
