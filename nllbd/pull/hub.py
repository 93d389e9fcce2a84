"""What a model hub says of a model: its files, their checksums, the licence. And the stream of a file's bytes.

The only place that knows the package huggingface-hub (an extra: `pip install 'nllbd[hub]'`), which is imported when a
hub is asked. The hub is Hugging Face's, or the one that HF_ENDPOINT or `endpoint` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from nllbd.errors import CheckpointError, InvalidValue, NllbdError, NotFound, NotReady

_MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_TIMEOUT_S = 30.0
_SMALL = re.compile(
    r"(config|generation_config|tokenizer_config|special_tokens_map|languages)\.json|sentencepiece\.bpe\.model"
)
_SAFETENSORS = re.compile(r"model-\d{5}-of-\d{5}\.safetensors|model\.safetensors\.index\.json")
_PICKLES = re.compile(r"pytorch_model-\d{5}-of-\d{5}\.bin|pytorch_model\.bin\.index\.json")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file. `size` in bytes. Its checksum is `sha256`, or else git's name of its content, `git_sha1`."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model as of one commit, and those of its files that a server needs. `licence` as the hub's page says it."""

    model_id: str
    commit: str
    licence: str | None
    files: tuple[HubFile, ...]

    @property
    def num_bytes(self) -> int:
        return sum(file.size for file in self.files)


class Hub(Protocol):
    """Where models come from."""

    def find(self, model_id: str, revision: str | None) -> HubModel:
        """Raises NotFound, InvalidValue, NotReady (out of reach), CheckpointError (no NLLB checkpoint)."""
        ...

    def read(self, model: HubModel, file: HubFile, offset: int) -> Any:
        """A context: (offset where the bytes begin, their iterator); the server may begin at 0 after all.

        Raises ConnectionError for what another attempt may cure, NllbdError for what it may not.
        """
        ...


class HuggingFaceHub:
    """A hub that speaks Hugging Face's protocol. Raises NllbdError when the package is missing."""

    def __init__(self, endpoint: str | None = None) -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise NllbdError("pulling a model takes the package huggingface-hub: pip install 'nllbd[hub]'") from None
        self._package: Any = huggingface_hub
        self._api = huggingface_hub.HfApi(endpoint=endpoint)

    def find(self, model_id: str, revision: str | None) -> HubModel:
        check_model_id(model_id)
        import httpx2
        from huggingface_hub import errors

        where = f"{model_id!r} at {self._api.endpoint}"
        try:
            info = self._api.model_info(model_id, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
        except errors.GatedRepoError:
            raise NotFound(f"the model {where} is gated: ask for access there, and set HF_TOKEN") from None
        except errors.RevisionNotFoundError:
            raise NotFound(f"the model {where} has no revision {revision!r}") from None
        except errors.RepositoryNotFoundError:
            raise NotFound(f"there is no model {where}, or it is private and HF_TOKEN is not set") from None
        except (errors.HfHubHTTPError, httpx2.HTTPError, OSError) as error:
            raise NotReady(f"cannot ask the hub at {self._api.endpoint}: {_reason(error)}") from None
        except (ValueError, LookupError, TypeError):
            raise NotReady(f"{self._api.endpoint} does not answer as a model hub does") from None
        return HubModel(model_id, _commit(info, where), _licence(info), _needed(info.siblings or [], where))

    @contextmanager
    def read(self, model: HubModel, file: HubFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        import httpx2
        from huggingface_hub.utils._headers import build_hf_headers

        url = self._package.hf_hub_url(model.model_id, file.name, revision=model.commit, endpoint=self._api.endpoint)
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            # The client leaves our token out when it is sent on to another host.
            with self._package.get_session().stream(
                "GET", url, headers=headers, timeout=_TIMEOUT_S, follow_redirects=True
            ) as answer:
                yield _begin(answer, file), answer.iter_raw()
        except httpx2.HTTPError as error:
            raise ConnectionError(_reason(error)) from None


def check_model_id(model_id: str) -> None:
    """Raise InvalidValue for what is no hub id, such as a path out of model_dir."""
    if not _MODEL_ID.fullmatch(model_id) or ".." in model_id or "--" in model_id:
        raise InvalidValue(f"{model_id!r} is no hub id; give one such as facebook/nllb-200-distilled-600M")


def _begin(answer: Any, file: HubFile) -> int:
    """The offset of the first byte that comes. Raises ConnectionError (try again) or NllbdError (do not)."""
    status = answer.status_code
    if status == HTTPStatus.PARTIAL_CONTENT:
        begin = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        if begin is None:
            raise ConnectionError("the hub's answer does not say which part of the file it is")
        return int(begin[1])
    if status == HTTPStatus.OK or status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return 0 if status == HTTPStatus.OK else file.size
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        raise ConnectionError(f"the hub answered {status}")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise NotFound(f"the hub refuses {file.name} ({status}): ask for access there, and set HF_TOKEN")
    raise NotFound(f"the hub has no {file.name} ({status})")


def _needed(siblings: list[Any], where: str) -> tuple[HubFile, ...]:
    """What a server reads: descriptions, vocabulary, and one form of the weights, safetensors if there is."""
    by_name = {sibling.rfilename: sibling for sibling in siblings}
    names = [name for name in by_name if _SMALL.fullmatch(name)]
    if "config.json" not in names or "sentencepiece.bpe.model" not in names:
        raise CheckpointError(f"{where} is no NLLB-200 checkpoint: it lacks config.json or sentencepiece.bpe.model")
    for single, sharded in (("model.safetensors", _SAFETENSORS), ("pytorch_model.bin", _PICKLES)):
        weights = [single] if single in by_name else [name for name in by_name if sharded.fullmatch(name)]
        if weights:
            return tuple(_file(by_name[name], where) for name in sorted(names) + sorted(weights))
    raise CheckpointError(f"{where} has no weights: neither safetensors nor pytorch_model.bin")


def _file(sibling: Any, where: str) -> HubFile:
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    if sibling.size is None or (sha256 or sibling.blob_id) is None:
        raise NotReady(f"the hub does not say size and checksum of {sibling.rfilename} of {where}")
    return HubFile(sibling.rfilename, sibling.size, sha256, sibling.blob_id)


def _commit(info: Any, where: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{7,64}", info.sha or ""):
        raise NotReady(f"the hub does not say which commit {where} is at")
    return str(info.sha)


def _licence(info: Any) -> str | None:
    declared = info.card_data.get("license") if info.card_data else None
    tagged = (tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:"))
    found = declared or next(tagged, None)
    return ", ".join(map(str, found)) if isinstance(found, list) else found and str(found)


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    return f"it answered {response.status_code}" if response is not None else str(error) or type(error).__name__
