"""What became of the images of a job, as rows: images, verdicts and faces."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete

from core.verdicts import Outcome
from db import schema
from db.bulk import upsert
from db.ledger import chunks


class OutcomeRows:
    """The rows of some outcomes, ready to be written: nothing is left to be done while the database is locked."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        """Make the rows.

        Args:
            outcomes: at least one; of an image that stands twice among them, the last one counts.
        """
        # In the order of their keys, so that two jobs with an image in common cannot wait for each other.
        by_id = sorted({outcome.ref.id: outcome for outcome in outcomes}.items())
        self._ids = [image_id for image_id, _ in by_id]
        self._images = [_image_row(image_id, outcome) for image_id, outcome in by_id]
        self._verdicts = [_verdict_row(image_id, outcome) for image_id, outcome in by_id]
        self._faces = [row for image_id, outcome in by_id if outcome.faces for row in _face_rows(image_id, outcome)]

    def write(self, connection: Connection, origin: Mapping[str, Any], *, are_of_faces: bool) -> None:
        """Write the rows over those that were there.

        Args:
            connection: in whose transaction.
            origin: what all verdicts have in common, by column.
            are_of_faces: whether faces were looked for: those that the same model found before go.
        """
        upsert(connection, schema.image, self._images, keep=("width", "height", "phash"))
        upsert(connection, schema.verdict, self._verdicts, origin)
        if not are_of_faces:
            return
        face, model_id = schema.face, origin["model_id"]
        for some in chunks(self._ids, 500):
            connection.execute(delete(face).where(face.c.model_id == model_id, face.c.image_id.in_(some)))
        if self._faces:
            upsert(connection, face, self._faces, {"model_id": model_id})


def _image_row(image_id: bytes, outcome: Outcome) -> dict[str, Any]:
    return {
        "id": image_id,
        "uri": outcome.ref.uri,
        "size_bytes": outcome.ref.size_bytes,
        "width": outcome.width,
        "height": outcome.height,
        "phash": outcome.phash,
    }


def _verdict_row(image_id: bytes, outcome: Outcome) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "status": str(outcome.status),
        "p_real": outcome.p_real,
        "reason": outcome.reason[: schema.REASON_LENGTH],
        "fingerprint": outcome.ref.fingerprint,
        "digest": outcome.digest,
    }


def _face_rows(image_id: bytes, outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {"image_id": image_id, "number": number, **asdict(found.face), "p_real": found.p_real}
        for number, found in enumerate(outcome.faces, start=1)
    ]
