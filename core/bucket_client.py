"""The client of a bucket: how long it waits, how often it tries, who it is, and what its errors mean.

Import this module late: obstore is an extra, it takes a while to load, and its threads do not survive a fork.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from core.errors import ImageError, SettingsError, StorageError, UsageError
from core.settings import redact
from core.verdicts import Status

try:
    from obstore.exceptions import BaseError, PreconditionError
    from obstore.store import AzureStore, GCSStore, S3Store
except ImportError as error:
    raise UsageError("obstore is not installed: pip install 'facesieve[cloud]'") from error

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig

#: A network sends a first packet that was lost again after one second and after three.
CONNECT_SECONDS = 5
#: Without a byte, not of a whole answer: an overloaded server thinks for a second or two, a dead one for ever.
READ_SECONDS = 10
#: Of a whole answer: the largest image that workers take by default, at 1 MB/s. A server that drips is left after it.
ANSWER_SECONDS = 300
#: How often the client tries one request. A worker reads an image four times, and a listing asks as often for a page:
#: a request that always fails is sent twelve times.
TRIES = 3
RETRIES: "RetryConfig" = {
    "max_retries": TRIES - 1,
    "retry_timeout": timedelta(seconds=TRIES * READ_SECONDS),
    # Before the second try up to one second, before the third up to four; each by chance.
    "backoff": {"init_backoff": timedelta(seconds=0.25), "max_backoff": timedelta(seconds=4), "base": 4},
}
#: Clients that a process keeps, with their connections; most need one or two.
CLIENTS = 32

#: What obstore raises. Both a key that it refuses and one with a lone surrogate are a `ValueError`.
ERRORS = (BaseError, OSError, ValueError)
#: What object_store, which obstore is made of, does not accept in a key.
REFUSED = re.compile(r"(?P<empty>//)|(?:^|/)(?P<dots>\.\.?)(?=/|$)|(?P<control>[\0-\x1f])|\x7f")
REFUSAL = "a key with '//', a part '.' or '..', or a control character cannot be read"
#: A bucket and a key; nothing that would be read as another host, path or query gets into the address of a request.
_NAME = re.compile(r"(s3|gs|az)://(\$?[A-Za-z0-9][A-Za-z0-9._-]*)(?:/(.*))?", re.DOTALL)

#: Where the client asks for the credentials of a machine's role, if the environment has none.
_NO_CREDENTIALS = r"/latest/api/token|://169\.254\.|token request|Account must be specified"
_BAD_CREDENTIALS = r"credential provider|service account file|Invalid Access Key"
#: What the client says at length, with addresses that may hold signatures, in a few words.
_REASONS = (
    (_NO_CREDENTIALS, "no credentials were found"),
    (_BAD_CREDENTIALS, "the credentials cannot be used"),
    (r"redirect without LOCATION", "the bucket is in another region"),
    (r"<Code>(?:NoSuchBucket|ContainerNotFound)<", "there is no such bucket"),
    (r"kind: Timeout", "the storage did not answer in time"),
    (r"kind: Connect\b", "the storage cannot be reached"),
    (r"kind: (?:Interrupted|Request)", "the connection to the storage broke"),
)
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
#: By scheme: what to look at if a bucket cannot be listed.
HINTS = {
    "s3": "see AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SKIP_SIGNATURE=true for a public bucket), AWS_REGION, "
    "and AWS_ENDPOINT_URL if it is not at Amazon",
    "gs": "see GOOGLE_APPLICATION_CREDENTIALS (GOOGLE_SKIP_SIGNATURE=true for a public bucket)",
    "az": "see AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (AZURE_SKIP_SIGNATURE=true for a public one)",
}


def split_name(uri: str) -> tuple[str, str] | None:
    """Return the bucket, with its scheme, and the rest; None if it is no name in a bucket."""
    found = _NAME.fullmatch(uri)
    return (f"{found[1]}://{found[2]}", found[3] or "") if found else None


@lru_cache(maxsize=CLIENTS)
def open_client(bucket: str) -> "ObjectStore":
    """Return the client of a bucket; all threads share it and its connections. It asks the network for nothing yet.

    Credentials, region and address come from the environment that the provider defines (``AWS_*``, ``GOOGLE_*``,
    ``AZURE_*``), else from the role of the machine.

    Args:
        bucket: its name with the scheme; of ``az://`` a container of ``AZURE_STORAGE_ACCOUNT_NAME``.

    Raises:
        StorageError: the environment says too little.
        SettingsError: the address or the profile in the environment is none.
        UsageError: the environment asks for what is not installed.
    """
    if _was_used_before_fork:
        raise RuntimeError("buckets were read before this process was forked: reading on would hang for ever")
    scheme, _, name = bucket.partition("://")
    _check_address(scheme)
    # Not as client_options: those would replace what the environment says of the client, such as AWS_ALLOW_HTTP.
    config: Any = {
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "read_timeout": f"{READ_SECONDS}s",
        "timeout": f"{ANSWER_SECONDS}s",
        "user_agent": f"facesieve/{version('facesieve')}",
    }
    profile = _find_profile() if scheme == "s3" else None
    with translated():
        if scheme == "s3":
            return S3Store(name, config=config, retry_config=RETRIES, credential_provider=profile)
        if scheme == "gs":
            return GCSStore(name, config=config, retry_config=RETRIES)
        return AzureStore(name, config=config, retry_config=RETRIES)


@contextmanager
def translated() -> Iterator[None]:
    """Raise what obstore raises as an ``ImageError`` or a ``StorageError``."""
    try:
        yield
    except ERRORS as error:
        raise translate(error) from error


def translate(error: Exception) -> ImageError | StorageError:
    """Return an error of obstore in a few words, without the addresses and answers that it quotes."""
    if isinstance(error, FileNotFoundError):
        return ImageError(Status.NOT_FOUND, "the object is gone")
    if isinstance(error, PreconditionError):
        return StorageError("the object was changed while it was read")
    if isinstance(error, ValueError):
        return ImageError(Status.UNSUPPORTED, REFUSAL)
    return StorageError(_reason(str(error)))


def may_pass(error: Exception) -> bool:
    """Tell whether a listing that failed so is worth another try."""
    is_final = re.search(rf"status code: 4(?!08|29)|redirect without|{_NO_CREDENTIALS}|{_BAD_CREDENTIALS}", str(error))
    return isinstance(error, BaseError) and not is_final


def _reason(said: str) -> str:
    for pattern, reason in _REASONS:
        if re.search(pattern, said):
            return reason
    status = re.search(r"status code: (\d{3}[ A-Za-z]*)", said)
    code = re.search(r"<Code>(\w{1,64})</Code>", said)
    if status is None:
        return "the storage's answer cannot be read"
    return f"the storage answered {status[1]}{f' ({code[1]})' if code else ''}"


def _check_address(scheme: str) -> None:
    """Refuse what would crash the client, and say what it would not say."""
    for name in _ENDPOINTS[scheme]:
        address = os.environ.get(name)
        if not address:
            continue
        try:
            parts = urlsplit(address)
            is_address = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address or not re.fullmatch(r"[!-~]+", address):
            raise SettingsError(f"{name} is {redact(address)!r:.80}: write https://HOST or https://HOST:PORT")
        allowing = f"{name.partition('_')[0]}_ALLOW_HTTP"
        if address.startswith("http://") and os.environ.get(allowing, "").lower() not in ("true", "1", "yes", "on"):
            raise SettingsError(f"{name} begins with http://: set {allowing}=true to go without encryption")


def _find_profile() -> Any:
    """Return what gets the credentials of the profile that the environment names; None if it names none."""
    profile = os.environ.get("AWS_PROFILE")
    if not profile:
        return None
    try:
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise UsageError("AWS_PROFILE is set, but boto3 is not installed: pip install boto3, or unset it") from error
    try:
        return Boto3CredentialProvider()
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(f"AWS_PROFILE is {profile!r:.80}: no credentials of it were found") from error


_was_used_before_fork = False


def _forget_clients() -> None:
    global _was_used_before_fork
    _was_used_before_fork |= open_client.cache_info().currsize > 0
    open_client.cache_clear()


os.register_at_fork(after_in_child=_forget_clients)
