"""The daemon, telling where its processor time goes: `python -m bench.profiled FILE serve …`, then as `nllbd serve …`.

A timer of processor time interrupts it a thousand times a second; each time the innermost frame that belongs to a stage
below gets the sample. What no frame explains is the loop itself: uvloop, the kernel's sockets, waking up. Written to
FILE as JSON, stage → samples, whenever the process gets SIGUSR1; counting begins with the first, and anew with each.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from nllbd import cli

INTERVAL_S = 0.001
LOOP = "event loop and sockets (uvloop, kernel)"
#: Part of a file's path → stage. The first that fits a frame counts, the frames from the innermost outward.
STAGES = (
    ("/nllbd/log.py", "access line"),
    ("/structlog/", "access line"),
    ("/nllbd/tally.py", "figures (metrics)"),
    ("/nllbd/metrics.py", "figures (metrics)"),
    ("/sentencepiece/", "tokenizer (SentencePiece)"),
    ("/nllbd/text/tokenizer.py", "tokenizer (SentencePiece)"),
    ("/nllbd/text/guard.py", "guards"),
    ("/nllbd/text/", "text: sentences, what must survive"),
    ("/nllbd/document.py", "text: sentences, what must survive"),
    ("/nllbd/bridge/", "bridge to the engine"),
    ("/nllbd/inflight.py", "single flight, admission, pacing"),
    ("/nllbd/admission.py", "single flight, admission, pacing"),
    ("/nllbd/pacing.py", "single flight, admission, pacing"),
    ("/nllbd/translator.py", "translator"),
    ("/nllbd/segments.py", "translator"),
    ("/nllbd/job.py", "translator"),
    ("/nllbd/security/", "credentials, limits, usage, audit"),
    ("/nllbd/store/", "credentials, limits, usage, audit"),
    ("/nllbd/accounts.py", "credentials, limits, usage, audit"),
    ("/nllbd/http/auth.py", "credentials, limits, usage, audit"),
    ("/nllbd/http/rate", "credentials, limits, usage, audit"),
    ("/nllbd/http/service.py", "credentials, limits, usage, audit"),
    ("/nllbd/http/middleware.py", "middlewares"),
    ("/nllbd/http/", "request parsed, answer rendered"),
    ("/nllbd/tracing.py", "middlewares"),
    ("/nllbd/lifecycle.py", "middlewares"),
    ("/aiohttp/", "aiohttp"),
    ("/multidict/", "aiohttp"),
    ("/yarl/", "aiohttp"),
    ("/asyncio/runners.py", LOOP),
)


class Sampler:
    """Counts samples by stage."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counts: Counter[str] = Counter()
        self._stage_of: dict[str, str | None] = {}

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR1, self._write)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        while frame is not None:
            name = frame.f_code.co_filename
            if name not in self._stage_of:
                self._stage_of[name] = next((stage for part, stage in STAGES if part in name), None)
            if (stage := self._stage_of[name]) is not None:
                self._counts[stage] += 1
                return
            frame = frame.f_back
        self._counts[LOOP] += 1

    def _write(self, _number: int, _frame: FrameType | None) -> None:
        partial = self._path.with_suffix(".part")
        partial.write_text(json.dumps(self._counts), encoding="utf-8")
        partial.replace(self._path)
        self._counts.clear()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)


def main() -> int:
    Sampler(Path(sys.argv[1])).start()
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
