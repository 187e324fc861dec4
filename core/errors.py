"""Every exception that facesieve raises on purpose, and the exit code that each gives a command.

::

    FacesieveError                  1   a check failed, a job failed, a ledger does not balance
    ├── UsageError                  2   an option or argument cannot be used as given
    ├── SettingsError               3   an environment variable or the data directory is wrong
    ├── SourceError                 4   a source does not exist, holds no images or cannot be listed
    ├── BrokerError                 5   Redis or Valkey does not answer
    ├── DatabaseError               6   the results database does not answer
    │   ├── DatabaseBusyError       6   it cannot be reached or is locked now: try again
    │   └── SchemaError             6   its schema is missing, older or newer than this program
    ├── ModelError                  7   a model cannot be used
    │   ├── ModelNotFoundError      7   there is no artifact of that name or path
    │   ├── ModelBrokenError        7   its files do not match its manifest, or do not load
    │   ├── ModelShapeError         7   its input or output is not the card's
    │   └── UnsafeModelError        7   loading it would run code from the file
    ├── WorkerError                 8   a worker could not start or stopped by itself
    ├── MessageError                    a queue message is refused (never leaves the worker)
    │   ├── MalformedMessageError       it is not a job
    │   ├── MessageVersionError         it is a job of another version of the message
    │   │   └── NewerMessageError       of one that a newer worker may read
    │   ├── UnsignedMessageError        it is not signed with a key of this worker
    │   └── ForbiddenPathError          it asks for a file outside the allowed roots
    ├── StorageError                    reading failed for a reason that may pass: try again
    └── ImageError                      one image cannot be scored; carries its status and reason

Exit code 130 means interrupted with Ctrl+C.
"""

from core.verdicts import Status


class FacesieveError(Exception):
    """Base of the tree. Its message is one line that names the value and the fix."""

    exit_code = 1


class UsageError(FacesieveError):
    """An option or argument cannot be used as given."""

    exit_code = 2


class SettingsError(FacesieveError):
    """An environment variable or the data directory is wrong."""

    exit_code = 3


class SourceError(FacesieveError):
    """A source does not exist, holds no images or cannot be listed."""

    exit_code = 4


class BrokerError(FacesieveError):
    """Redis or Valkey does not answer."""

    exit_code = 5


class DatabaseError(FacesieveError):
    """The results database does not answer."""

    exit_code = 6


class DatabaseBusyError(DatabaseError):
    """The results database cannot be reached or is locked now; that may pass."""


class SchemaError(DatabaseError):
    """The database's schema is missing, older or newer than this program."""


class ModelError(FacesieveError):
    """A model cannot be used."""

    exit_code = 7


class ModelNotFoundError(ModelError):
    """There is no artifact of that name or path."""


class ModelBrokenError(ModelError):
    """A model's files do not match its manifest, or do not load."""


class ModelShapeError(ModelError):
    """A model's input or output is not the card's."""


class UnsafeModelError(ModelError):
    """Loading the model would run code from the file."""


class WorkerError(FacesieveError):
    """A worker could not start or stopped by itself."""

    exit_code = 8


class MessageError(FacesieveError):
    """A queue message is refused."""


class MalformedMessageError(MessageError):
    """A queue message is not a job."""


class MessageVersionError(MessageError):
    """A queue message is a job of another version."""


class NewerMessageError(MessageVersionError):
    """A queue message is a job of a newer version: a newer worker can do it."""


class UnsignedMessageError(MessageError):
    """A queue message is not signed, or by none of the keys that a worker accepts."""


class ForbiddenPathError(MessageError):
    """A job asks for a file outside the allowed roots."""


class StorageError(FacesieveError):
    """Reading failed for a reason that may pass."""


class ImageError(FacesieveError):
    """One image cannot be scored.

    Attributes:
        status: what becomes of the image, never ``Status.OK``.
        reason: one line for people.
    """

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def too_large(size: int, max_bytes: int) -> ImageError:
    """Return the error of an image of that many bytes."""
    return ImageError(Status.TOO_LARGE, f"{size} bytes, the limit is {max_bytes}")
