"""A contestant that fails says so, and leaves nothing behind."""

import pytest

from bench.child import Child, ContestantFailed, Spec
from nllbd.checkpoint import DEMO_FOLDER


def test_a_model_that_cannot_be_loaded_is_an_error() -> None:
    with pytest.raises(ContestantFailed, match=r"nothing there: .*exit code 1"):
        Child(Spec("nothing there", "nllbd", DEMO_FOLDER / "nothing", "float32", 1))


def test_a_process_that_dies_is_an_error() -> None:
    spec = Spec("ours", "nllbd", DEMO_FOLDER, "float32", 1)
    with Child(spec) as child, pytest.raises(ContestantFailed, match="ours"):
        child.translate([((1, 2), "no id")], 1, 16, {"alone": 1})  # type: ignore[list-item]
