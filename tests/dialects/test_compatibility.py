"""The README says of each client what its tests prove, no more and no less."""

from __future__ import annotations

import json

from tests.dialects import compatibility


def test_the_readme_has_the_record_s_table() -> None:
    readme = compatibility.README.read_text(encoding="utf-8")
    assert compatibility.updated(readme) == readme, "run: python -m tests.dialects.compatibility"


def test_the_record_is_what_the_tests_prove(claimed: set[compatibility.Proof], request) -> None:
    """Tests that fail are seen as such; so what is claimed here is what passes."""
    collected = {item.path.name for item in request.session.items if "dialects" in item.path.parts}
    files = {path.name for path in compatibility.ROOT.glob("tests/dialects/test_*.py")}
    recorded = json.loads(compatibility.RECORD.read_text(encoding="utf-8"))
    expected = compatibility.record_of(claimed)
    if files <= collected and not request.config.option.keyword and not request.config.option.markexpr:
        assert recorded == expected, "run: pytest tests/dialects --record-compatibility"
    for client, proven in expected.items():
        assert set(proven["features"]) <= set(recorded[client]["features"])
        assert proven["version"] == recorded[client]["version"]
