"""All settings, in one frozen object. Each is a field here, ``FACESIEVE_<NAME>`` in the environment, no other place."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

from platformdirs import user_data_path
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.errors import SettingsError
from core.uris import BUCKET_SCHEMES, Roots, is_remote

PREFIX = "FACESIEVE_"
EMBEDDED = "embedded"
#: ``:`` between roots, but not that of a scheme, a port or an IPv6 address.
_ROOT_SEPARATOR = re.compile(rf"{re.escape(os.pathsep)}(?!//|[0-9]{{1,5}}(?:/|:|$)|[^\[]*\])")


class Settings(BaseSettings):
    """What every process of one installation agrees on.

    Attributes are documented beside their defaults. URLs may hold passwords and are left out of ``repr``.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", protected_namespaces=())

    #: Where the embedded broker, the SQLite database and imported models live.
    data_dir: Path = Field(default_factory=lambda: user_data_path("facesieve"))
    #: ``redis://``, ``rediss://`` or ``redis+socket://``; ``embedded`` starts a Valkey in the data directory.
    broker_url: str = Field(default=EMBEDDED, repr=False)
    #: ``sqlite:///FILE`` or ``postgresql+psycopg://...``; empty means SQLite in the data directory.
    database_url: str = Field(default="", repr=False)
    #: Name of an artifact, or path of its folder.
    model: str = "face-efficientnet"
    #: Folders, and beginnings of URIs, that workers may read; separated by ``:`` in the environment. Addresses that are
    #: not public are read only if a root names the host.
    roots: Annotated[Roots, NoDecode] = (Path("/"), *BUCKET_SCHEMES, "https://")
    #: Images in a message. 256 take one to twenty seconds: long against a commit, short against a redelivery.
    job_size: int = Field(default=256, ge=1, le=10_000)
    #: Images in a forward pass; 0 means what suits the engine.
    batch_size: int = Field(default=0, ge=0, le=4096)
    #: The producer waits while Redis holds this many images.
    max_queued_images: int = Field(default=100_000, ge=1)
    #: Larger images are refused from their header, before they are decoded.
    max_pixels: int = Field(default=100_000_000, ge=1)
    #: Larger files are refused before they are read.
    max_bytes: int = Field(default=256 * 2**20, ge=1)
    #: Threads that decode in one worker process; 0 means one for each core it may use.
    decode_threads: int = Field(default=0, ge=0)
    #: Images of buckets and the web that one worker process reads at once: as many as hide the latency.
    read_threads: int = Field(default=32, ge=1, le=1024)
    #: A job whose worker was lost this often is given up and named failed.
    max_losses: int = Field(default=5, ge=1)
    #: Seconds after which an unacknowledged job goes to another worker; 0 means from the measured job time.
    visibility_timeout: int = Field(default=0, ge=0)
    #: Seconds that a stopping worker gives its running job before it hands it back.
    drain_seconds: float = Field(default=8.0, ge=0, le=86_400)
    #: Seconds that a worker keeps trying to reach a database that went away, before it hands the job back.
    retry_seconds: float = Field(default=60.0, ge=0, le=86_400)

    @field_validator("roots", mode="before")
    @classmethod
    def _split_roots(cls, value: Any) -> Any:
        return tuple(filter(None, _ROOT_SEPARATOR.split(value))) if isinstance(value, str) else value

    @field_validator("roots", mode="after")
    @classmethod
    def _resolve_roots(cls, roots: Roots) -> Roots:
        if not roots:
            raise ValueError("name at least one folder")
        remote = [str(root) for root in roots if "://" in str(root)]
        for root in remote:
            if not is_remote(root):
                raise ValueError(f"{root} is no folder and has none of the schemes s3, gs, az, https, http")
        # As named, to compare names in messages with, and resolved, to compare the files behind them with.
        folders = [Path(root).expanduser() for root in roots if "://" not in str(root)]
        named = [Path(os.path.abspath(folder)) for folder in folders]  # noqa: PTH100
        return tuple(dict.fromkeys([*named, *(folder.resolve() for folder in named), *remote]))

    @field_validator("data_dir", mode="before")
    @classmethod
    def _refuse_no_data_dir(cls, value: Any) -> Any:
        if not str(value):
            raise ValueError("name a folder, or leave it unset")
        return value

    @field_validator("data_dir", mode="after")
    @classmethod
    def _resolve_data_dir(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    def as_environment(self) -> dict[str, str]:
        """Return the environment that gives another process the same settings."""
        values = {name: getattr(self, name) for name in (*self.model_fields_set, "data_dir")}
        return {
            PREFIX + name.upper(): os.pathsep.join(map(str, value)) if isinstance(value, tuple) else str(value)
            for name, value in values.items()
        }

    @property
    def is_broker_embedded(self) -> bool:
        """Whether facesieve itself runs the broker."""
        return self.broker_url == EMBEDDED

    @property
    def sql_url(self) -> str:
        """The database URL that is in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'facesieve.db'}"

    @property
    def models_dir(self) -> Path:
        """Where ``model init`` and ``model import`` put artifacts."""
        return self.data_dir / "models"

    @property
    def cache_dir(self) -> Path:
        """What can be made again: networks that were converted for an engine."""
        return self.data_dir / "cache"


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; an override that is not None wins over it.

    Raises:
        SettingsError: a variable is unknown or its value is wrong.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"unknown setting {unknown[0]}: the known ones are {', '.join(sorted(known))}")
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper() if first["loc"] else "settings"
        raise SettingsError(f"{name} is {first['input']!r:.80}: {first['msg']}") from error


def make_data_dir(settings: Settings) -> Path:
    """Create the data directory, readable by its owner alone.

    Raises:
        SettingsError: it cannot be created or written.
    """
    path = settings.data_dir
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"data directory {path} is not writable ({error.strerror}): set {PREFIX}DATA_DIR to a folder that is"
        ) from error
    return path


def redact(url: str) -> str:
    """Return the URL with its passwords replaced by ``***``, fit for a message or a log."""
    url = re.sub(r"(://[^:/?#]*:).*(@)", r"\1***\2", url)
    return re.sub(r"([?&]\w*password=)[^&#]*", r"\1***", url, flags=re.IGNORECASE)
