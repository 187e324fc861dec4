"""Signatures of messages: a worker that has a key does only what a producer with the same key has asked for.

Whoever can write to Redis can put messages into it, and a message names files for workers to read. The signature stands
in a header beside the payload: workers that know nothing of signatures, or have no key, do not look at it.
"""

import hashlib
import hmac
import json
from collections.abc import Sequence

from core.errors import UnsignedMessageError

#: Of the Celery message.
HEADER = "facesieve_signature"
#: What else may ever be signed with the same key will have another label: no signature means two things.
_LABEL = b"facesieve job, first kind of signature\0"


def sign(payload: object, key: str) -> str:
    """Return the signature of a payload: HMAC-SHA256, 64 hex digits.

    What is signed is the value, in the one spelling that it has as JSON with sorted keys and without spaces: whatever
    carries the message may spell it otherwise.

    Args:
        payload: see ``Job.to_payload``; anything that JSON can say.
        key: shared by producers and workers.

    Raises:
        ValueError: JSON cannot say it.
    """
    try:
        text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error!s:.80}") from error
    return hmac.new(key.encode(), _LABEL + text.encode(), hashlib.sha256).hexdigest()


def check_signature(payload: object, signature: object, keys: Sequence[str]) -> None:
    """Do nothing if the signature is by one of the keys, or if there are no keys.

    Args:
        payload: anything; it comes from the network.
        signature: likewise; None if the message has none.
        keys: those that are accepted, several while one takes the place of another.

    Raises:
        UnsignedMessageError: a signature is asked for, and this is none.
    """
    if not keys:
        return
    if not isinstance(signature, str):
        raise UnsignedMessageError(
            "it is not signed, as this worker demands: give the producer the same FACESIEVE_SIGNING_KEY, then "
            "`producer retry`"
        )
    try:
        expected = [sign(payload, key) for key in keys]
    except ValueError as error:
        raise UnsignedMessageError(f"it cannot have been signed: {error!s:.120}") from error
    # As bytes: the comparison in constant time takes text of ASCII alone.
    given = signature.encode(errors="replace")
    if not any([hmac.compare_digest(given, one.encode()) for one in expected]):  # noqa: C419 - as long for each key
        raise UnsignedMessageError(
            "its signature is not by a key of this worker: it was changed, or the producer has another "
            "FACESIEVE_SIGNING_KEY; if so, mend that, then `producer retry`"
        )
