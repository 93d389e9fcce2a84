"""The reader of expressions itself."""

from __future__ import annotations

from tests.ops.monitoring.artefacts import Selector, selectors


def test_metrics_of_an_expression() -> None:
    expr = """
    # a comment with a_metric
    sum by (host, le) (rate(some_bucket{le="5.0",host=~"a|b"}[5m])) / on (host) group_left () (other:thing > 0)
      unless absent(third) and time() - fourth offset 1h < 1e3
    """
    found = selectors(expr)
    assert {selector.metric for selector in found} == {"some_bucket", "other:thing", "third", "fourth"}
    assert Selector("some_bucket", frozenset({"le", "host"})) in found


def test_functions_and_numbers_are_no_metrics() -> None:
    assert selectors("vector(0) or 1 - 2.5 * predict_linear(x[6h], 86400)") == {Selector("x", frozenset())}
