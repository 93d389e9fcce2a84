"""The ready line: what a person at the terminal reads first, or one log line for machines."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from nllbd import __version__

_FEW_LANGUAGES = 8
_PREFERRED = ("eng_Latn", "fra_Latn")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a ready daemon says of itself. `url` is `http://host:port` or `unix:/path`."""

    url: str
    model: str
    device: str
    dtype: str
    languages: tuple[str, ...]
    needs_key: bool = False
    start_s: float = 0.0

    def for_people(self) -> str:
        """A few lines, with a command to paste."""
        count = f"{len(self.languages)} languages"
        if len(self.languages) <= _FEW_LANGUAGES:
            count += f": {', '.join(self.languages)}"
        return (
            f"nllbd {__version__} is ready at {self.url} after {self.start_s:.1f} s\n"
            f"  model {self.model}, {self.device}, {self.dtype}; {count}\n"
            f"  try: {self.curl}\n"
        )

    def for_machines(self) -> dict[str, object]:
        """Fields of one log line."""
        return {
            "url": self.url,
            "version": __version__,
            "model": self.model,
            "device": self.device,
            "dtype": self.dtype,
            "languages": len(self.languages),
            "start_s": round(self.start_s, 2),
        }

    @property
    def curl(self) -> str:
        """A translation to paste into a shell."""
        source, target = self._pair()
        body = json.dumps({"text": "Good morning.", "source_lang": source, "target_lang": target})
        words = ["curl", "-s"]
        if self.url.startswith("unix:"):
            words += ["--unix-socket", self.url.removeprefix("unix:"), "http://localhost/translate"]
        else:
            words += [f"{self._reachable_url()}/translate"]
        words += ["-H", "Content-Type: application/json"]
        command = shlex.join(words)
        if self.needs_key:
            command += ' -H "Authorization: Bearer $API_KEY"'
        return f"{command} -d {shlex.quote(body)}"

    def _pair(self) -> tuple[str, str]:
        if set(_PREFERRED) <= set(self.languages):
            return _PREFERRED
        first = self.languages[0] if self.languages else _PREFERRED[0]
        return first, self.languages[-1] if self.languages else _PREFERRED[1]

    def _reachable_url(self) -> str:
        """A wildcard address is no address to connect to."""
        return self.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
