"""The API browser goes with `enable_swagger`; without it there is neither page nor file."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(("is_on", "expected"), [(True, 200), (False, 404)])
async def test_docs_go_with_the_setting(start_service: Any, is_on: bool, expected: int) -> None:
    service = await start_service(enable_swagger=is_on, api_key="sesame")
    for path in ("/docs", "/docs/start.js", "/docs/swagger-ui.css", "/openapi.json"):
        assert (await service.request("GET", path))[0] == expected
    assert (await service.request("GET", "/docs/none.js"))[0] == 404


async def test_a_slash_too_many_leads_to_the_page(start_service: Any) -> None:
    service = await start_service(enable_swagger=True)
    status, _, response = await service.request("GET", "/docs/", allow_redirects=False)
    assert (status, response.headers["Location"]) == (308, "../docs")
    status, page, response = await service.request("GET", "/docs/")
    assert (status, response.url.path) == (200, "/docs")
    assert "swagger-ui" in page
    off = await start_service(enable_swagger=False)
    assert (await off.request("GET", "/docs/"))[0] == 404
