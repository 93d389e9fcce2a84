"""Search settings: who decides, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nllbd.checkpoint import Checkpoint, GenerationDefaults
from nllbd.config import Settings
from nllbd.errors import ConfigError, InvalidValue
from nllbd.job import TranslationJob, cap_warning, check_settings, max_segment_tokens, search_params, timeout_s
from nllbd.sched.sequence import SearchParams


def job(**changes: Any) -> TranslationJob:
    return TranslationJob(texts=("Hello",), target_lang="fra_Latn", **changes)


def wishing(checkpoint: Checkpoint, **wishes: Any) -> Checkpoint:
    return replace(checkpoint, generation=GenerationDefaults(**wishes))


def test_built_in_defaults(demo_checkpoint: Checkpoint) -> None:
    assert search_params(job(), Settings(), wishing(demo_checkpoint)) == SearchParams(4, 1.0, True, 512, 1)


MODEL = {"num_beams": 5, "length_penalty": 0.7, "early_stopping": "never", "max_length": 200}
SETTING = {"num_beams": 2, "length_penalty": 1.3, "early_stopping": False, "max_length": 100}
REQUEST = {"num_beams": 1, "length_penalty": 0.0, "early_stopping": True, "max_length": 50}


@pytest.mark.parametrize("name", sorted(MODEL))
def test_request_over_setting_over_model(demo_checkpoint: Checkpoint, name: str) -> None:
    checkpoint = wishing(demo_checkpoint, **MODEL)
    by_model = search_params(job(), Settings(), checkpoint)
    by_setting = search_params(job(), Settings(**{name: SETTING[name]}), checkpoint)  # type: ignore[arg-type]
    by_request = search_params(job(**{name: REQUEST[name]}), Settings(**{name: SETTING[name]}), checkpoint)  # type: ignore[arg-type]
    assert getattr(by_model, name) == MODEL[name]
    assert getattr(by_setting, name) == SETTING[name]
    assert getattr(by_request, name) == REQUEST[name]


def test_a_model_s_wishes_yield_to_the_caps(demo_checkpoint: Checkpoint) -> None:
    params = search_params(job(), Settings(), wishing(demo_checkpoint, num_beams=20, max_length=5000))
    assert (params.num_beams, params.max_length) == (8, demo_checkpoint.config.max_positions)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 9}, "num_beams"),
        ({"num_beams": 10**40}, "num_beams"),
        ({"max_length": 2}, "max_length"),
        ({"max_length": 1025}, "max_length"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"length_penalty": float("inf")}, "length_penalty"),
        ({"length_penalty": -11.0}, "length_penalty"),
        ({"num_alternatives": 5}, "alternatives"),
        ({"num_alternatives": -1}, "alternatives"),
    ],
)
def test_refused(demo_checkpoint: Checkpoint, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValue) as error:
        search_params(job(**asked), Settings(), demo_checkpoint)
    assert error.value.field == field
    assert len(error.value.message) < 200


def test_beams_yield_to_the_lanes_and_the_operator_is_told(demo_checkpoint: Checkpoint) -> None:
    checkpoint, settings = wishing(demo_checkpoint, num_beams=5), Settings(max_num_lanes=2)
    assert search_params(job(), settings, checkpoint).num_beams == 2
    assert "2 beams and not the model's 5" in str(cap_warning(settings, checkpoint))
    assert cap_warning(Settings(), checkpoint) is None
    assert cap_warning(Settings(max_num_lanes=2, num_beams=2), checkpoint) is None
    with pytest.raises(InvalidValue, match="max_num_lanes") as error:
        search_params(job(num_beams=3), settings, checkpoint)
    assert error.value.field == "num_beams"


def test_alternatives_ask_for_hypotheses(demo_checkpoint: Checkpoint) -> None:
    assert search_params(job(num_alternatives=3), Settings(), demo_checkpoint).num_hypotheses == 3


def test_a_setting_beyond_the_model_s_positions_is_refused(demo_checkpoint: Checkpoint) -> None:
    most = demo_checkpoint.config.max_positions
    check_settings(Settings(max_length=most), demo_checkpoint)
    with pytest.raises(ConfigError, match=f"max_length is {most + 1}, .* has {most} positions") as error:
        check_settings(Settings(max_length=most + 1), demo_checkpoint)
    assert error.value.field == "max_length"


def test_the_timeout_is_capped_and_must_be_one() -> None:
    settings = Settings(request_timeout_s=60.0)
    assert timeout_s(job(), settings) == 60
    assert timeout_s(job(timeout_s=3.5), settings) == 3.5
    assert timeout_s(job(timeout_s=1e9), settings) == 60
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidValue):
            timeout_s(job(timeout_s=wrong), settings)


def test_segments_leave_room_for_their_translation(demo_checkpoint: Checkpoint) -> None:
    for max_length in (3, 20, 200, 512, 1024):
        tokens = max_segment_tokens(Settings(max_length=max_length), demo_checkpoint)
        assert 1 <= tokens <= demo_checkpoint.config.max_positions - 2
        assert tokens <= max(8, max_length)


def test_fields_are_named_as_the_request_names_them() -> None:
    assert job().text_field(0) == "text"
    assert job(is_list=True, field="q").text_field(3) == "q[3]"
