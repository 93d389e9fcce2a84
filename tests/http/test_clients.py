"""Whose address counts: the peer's, or what a trusted proxy forwards, never what just anybody claims."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from nllbd.http.clients import ClientAddresses


class Transport:
    def __init__(self, peer: Any) -> None:
        self.peer = peer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.peer if name == "peername" else default


def find(peer: Any, forwarded: list[str], trusted: tuple[str, ...]) -> str:
    headers = [("X-Forwarded-For", value) for value in forwarded]
    request = make_mocked_request("GET", "/", headers=dict(headers), transport=Transport(peer))
    return ClientAddresses(trusted).find(request)


PROXY = ("10.0.0.1", 4711)


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        (("192.0.2.7", 1), [], (), "192.0.2.7"),
        (("192.0.2.7", 1), ["203.0.113.9"], (), "192.0.2.7"),
        (("192.0.2.7", 1), ["203.0.113.9"], ("10.0.0.0/8",), "192.0.2.7"),
        (PROXY, ["203.0.113.9"], ("10.0.0.1",), "203.0.113.9"),
        (PROXY, ["1.1.1.1, 203.0.113.9"], ("10.0.0.0/8",), "203.0.113.9"),
        (PROXY, ["203.0.113.9, 10.1.1.1"], ("10.0.0.0/8",), "203.0.113.9"),
        (PROXY, ["203.0.113.9:5555"], ("10.0.0.0/8",), "203.0.113.9"),
        (PROXY, ["[2001:db8::1]:443"], ("10.0.0.0/8",), "2001:db8::1"),
        (PROXY, ["2001:db8::1"], ("10.0.0.0/8",), "2001:db8::1"),
        (PROXY, ["nonsense"], ("10.0.0.0/8",), "10.0.0.1"),
        (PROXY, ["203.0.113.9, nonsense"], ("10.0.0.0/8",), "10.0.0.1"),
        (PROXY, ["10.2.2.2"], ("10.0.0.0/8",), "10.2.2.2"),
        (PROXY, [""], ("10.0.0.0/8",), "10.0.0.1"),
        (("2001:db8::5", 1, 0, 0), ["203.0.113.9"], ("2001:db8::/32",), "203.0.113.9"),
        # A socket of both families, such as systemd's `ListenStream=8000`.
        (("::ffff:10.0.0.1", 1, 0, 0), ["203.0.113.9"], ("10.0.0.0/8",), "203.0.113.9"),
        (("::ffff:192.0.2.7", 1, 0, 0), [], (), "192.0.2.7"),
        (("fe80::1%eth0", 1, 0, 2), [], (), "fe80::1"),
        (PROXY, ["::ffff:203.0.113.9"], ("10.0.0.0/8",), "203.0.113.9"),
        (PROXY, ["fe80::1%<script>"], ("10.0.0.0/8",), "fe80::1"),
        ("", ["203.0.113.9"], (), "203.0.113.9"),
        ("", [], (), "unix"),
        (None, [], (), "unix"),
    ],
)
def test_addresses(peer: Any, forwarded: list[str], trusted: tuple[str, ...], expected: str) -> None:
    assert find(peer, forwarded, trusted) == expected


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_no_header_breaks_it(value: str) -> None:
    assert find(PROXY, [value], ("10.0.0.0/8",))
    assert find(("192.0.2.7", 1), [value], ("10.0.0.0/8",)) == "192.0.2.7"


def test_a_forged_header_is_mentioned_once(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = ClientAddresses(())
    for _ in range(3):
        request = make_mocked_request(
            "GET", "/", headers={"X-Forwarded-For": "1.1.1.1"}, transport=Transport(("192.0.2.7", 1))
        )
        assert addresses.find(request) == "192.0.2.7"
    assert (capsys.readouterr().out + caplog.text).count("trusted_proxies") == 1
