"""The message: what travels from the producer to a worker. URIs, never pixels; JSON, never pickle."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from core.errors import MalformedMessageError, MessageVersionError, NewerMessageError
from core.images import ImageRef

T = TypeVar("T")

#: 2 can say where a member of an archive stands, and ask for faces. Written only where that is needed, so that older
#: workers go on.
MESSAGE_VERSIONS = (1, 2)
MAX_IMAGES = 10_000  # a larger job would not fit a visibility timeout on a slow CPU
MAX_URI_LENGTH = 16_384  # PATH_MAX of 4,096 bytes, each of which percent-encoding may triple
MAX_SIZE = 2**63 - 1  # of a file, in bytes; also what SQL can count to


@dataclass(frozen=True, slots=True)
class Job:
    """N images to score in one go.

    Attributes:
        id: 32 hex digits; also the Celery task's id.
        scan_id: the producer run that it belongs to.
        model: name of the artifact that shall score it; also the queue's suffix.
        images: at least one, at most ``MAX_IMAGES``.
        model_id: of what scores it, as far as the producer knows that; None if it does not.
        faces: whether the faces of the images are scored, each by itself, instead of the whole images.
    """

    id: str
    scan_id: int
    model: str
    images: tuple[ImageRef, ...]
    model_id: str | None = None
    faces: bool = False

    def to_payload(self) -> dict[str, Any]:
        """Return the JSON object that travels."""
        is_plain = not self.faces and all(ref.offset is None for ref in self.images)
        return {
            "version": 1 if is_plain else 2,
            "id": self.id,
            "scan_id": self.scan_id,
            "model": self.model,
            "model_id": self.model_id,
            "images": [
                [ref.uri, ref.fingerprint, ref.size_bytes, *([] if ref.offset is None else [ref.offset])]
                for ref in self.images
            ],
            **({"faces": True} if self.faces else {}),
        }

    @classmethod
    def from_payload(cls, payload: object) -> "Job":
        """Read what ``to_payload`` wrote.

        Args:
            payload: anything; it comes from the network.

        Raises:
            MessageVersionError: the message was written by another version of facesieve; a ``NewerMessageError`` if
                by a newer one.
            MalformedMessageError: it is not a job.
        """
        if not isinstance(payload, Mapping):
            raise MalformedMessageError(f"message is {type(payload).__name__}, expected a JSON object")
        version = payload.get("version")
        if type(version) is not int or version not in MESSAGE_VERSIONS:
            is_newer = type(version) is int and version > max(MESSAGE_VERSIONS)
            raise (NewerMessageError if is_newer else MessageVersionError)(
                f"message has version {version!r:.40}, this worker reads versions {MESSAGE_VERSIONS}: "
                "run the same facesieve release on producers and workers"
            )
        try:
            # The first messages of version 1 had no model_id.
            return cls(
                id=UUID(hex=payload["id"]).hex,
                scan_id=_checked(payload["scan_id"], int),
                model=_text(payload["model"]),
                images=_read_images(payload["images"]),
                model_id=None if payload.get("model_id") is None else _text(payload["model_id"]),
                faces=_flag(payload.get("faces", False)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MalformedMessageError(f"message is not a job: {type(error).__name__}: {error!s:.200}") from error

    def pack(self) -> bytes:
        """Return the message as the ledger keeps it: compressed JSON."""
        return zlib.compress(json.dumps(self.to_payload()).encode())

    @classmethod
    def unpack(cls, packed: bytes) -> "Job":
        """Read what ``pack`` wrote.

        Raises:
            MessageError: it is no job any more, or one of another version.
        """
        try:
            payload = json.loads(zlib.decompress(packed))
        except (zlib.error, ValueError, RecursionError) as error:
            raise MalformedMessageError(f"the ledger's copy of a message is damaged: {error!s:.200}") from error
        return cls.from_payload(payload)


def _read_images(rows: object) -> tuple[ImageRef, ...]:
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_IMAGES:
        raise ValueError(f"images must be a list of 1 to {MAX_IMAGES}")
    return tuple(_read_image(*row) for row in rows)


def _read_image(uri: object, fingerprint: object, size_bytes: object, offset: object = None) -> ImageRef:
    ref = ImageRef(
        _text(uri), _text(fingerprint), _checked(size_bytes, int), None if offset is None else _checked(offset, int)
    )
    if not ref.uri or not 0 <= ref.size_bytes <= MAX_SIZE or not 0 <= (ref.offset or 0) <= MAX_SIZE:
        raise ValueError(f"image {ref.uri!r:.80} has no URI, or an impossible size or offset")
    return ref


def _text(value: object) -> str:
    """Return text that every database can hold."""
    text = _checked(value, str)
    if len(text) > MAX_URI_LENGTH or "\0" in text:
        raise ValueError(f"{text!r:.80} is too long or holds a NUL")
    text.encode()  # lone surrogates raise UnicodeEncodeError, a ValueError
    return text


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.80} is not bool")
    return value


def _checked(value: object, kind: type[T]) -> T:
    # bool is an int to isinstance, but never a valid number here.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r:.80} is not {kind.__name__}")
    return value
