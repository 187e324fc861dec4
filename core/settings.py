"""All settings, in one frozen object. Each is a field here, ``FACESIEVE_<NAME>`` in the environment, no other place."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.errors import SettingsError
from core.uris import BUCKET_SCHEMES, Roots, is_remote

PREFIX = "FACESIEVE_"
EMBEDDED = "embedded"
#: Names a folder of files such as ``facesieve_broker_url``, each the value of a setting: as Docker mounts secrets.
SECRETS_DIR = PREFIX + "SECRETS_DIR"
#: Settings that are, or may hold, something secret: no message quotes them.
SECRETS = ("broker_url", "database_url", "signing_key")
MIN_KEY_LENGTH = 32
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
    #: What messages are signed with; a worker that has one refuses others. Several, separated by commas, while one
    #: takes the place of another: the first signs, each is accepted. At least 32 characters each.
    signing_key: SecretStr = Field(default=SecretStr(""), repr=False)
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
    drain_seconds: float = Field(default=6.0, ge=0, le=86_400)
    #: Seconds that a worker keeps trying to reach a database that went away, before it hands the job back.
    retry_seconds: float = Field(default=60.0, ge=0, le=86_400)
    #: What a worker's log is: ``pretty`` lines for people, or ``json`` objects.
    log: Literal["pretty", "json"] = "pretty"

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
        folders = [_expand(Path(root)) for root in roots if "://" not in str(root)]
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
        return _expand(path).absolute()

    @field_validator("signing_key", mode="after")
    @classmethod
    def _refuse_short_keys(cls, value: SecretStr) -> SecretStr:
        keys = [key.strip() for key in value.get_secret_value().split(",")] if value else []
        if any(len(key) < MIN_KEY_LENGTH for key in keys):
            raise ValueError(f"a key has at least {MIN_KEY_LENGTH} characters, as `openssl rand -hex 32` makes them")
        return SecretStr(",".join(keys))

    def as_environment(self) -> dict[str, str]:
        """Return the environment that gives another process the same settings, secrets included."""
        return {PREFIX + name.upper(): _as_text(getattr(self, name)) for name in (*self.model_fields_set, "data_dir")}

    @property
    def signing_keys(self) -> tuple[str, ...]:
        """The keys of messages, the one that signs first; empty if messages are not signed."""
        return tuple(filter(None, self.signing_key.get_secret_value().split(",")))

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


def _expand(path: Path) -> Path:
    """Return a path with a ``~`` replaced by the folder that it stands for."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("nobody has that home directory") from error


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; an override that is not None wins over the environment, and that over a file of a secret.

    Raises:
        SettingsError: a variable is unknown or its value is wrong, or a secret cannot be read.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {SECRETS_DIR}
    given = {name.upper() for name in os.environ if name.upper().startswith(PREFIX)}
    unknown = sorted(name for name in os.environ if name.upper() in given - known)
    if unknown:
        raise SettingsError(f"unknown setting {unknown[0]}: the known ones are {', '.join(sorted(known))}")
    secrets = {name: text for name, text in _read_secrets().items() if PREFIX + name.upper() not in given}
    try:
        return Settings(**secrets | {name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "settings"
        if field in SECRETS:  # what is raised must not be chained either: it quotes what was given
            raise SettingsError(f"{PREFIX}{field.upper()} cannot be used: {first['msg']}") from None
        raise SettingsError(f"{PREFIX}{field.upper()} is {first['input']!r:.80}: {first['msg']}") from error


def _read_secrets() -> dict[str, str]:
    """Return the settings that stand in files, by their names.

    Raises:
        SettingsError: the folder or a file of it cannot be read, or a file has the name of no setting.
    """
    folder = os.environ.get(SECRETS_DIR)
    if not folder:
        return {}
    found = {}
    try:
        for path in sorted(Path(folder).iterdir()):
            if path.name.startswith(PREFIX.lower()):
                name = path.name.removeprefix(PREFIX.lower())
                if name not in Settings.model_fields:
                    raise SettingsError(f"file {path.name!r:.80} in {SECRETS_DIR} {folder} is named like no setting")
                found[name] = path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"{SECRETS_DIR}: {error.filename} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise SettingsError(f"{SECRETS_DIR}: {folder}/{PREFIX.lower()}{name} is not UTF-8") from None
    return found


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return os.pathsep.join(map(str, value)) if isinstance(value, tuple) else str(value)


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
    url = re.sub(r"(://[^:/?#]*:).*(@)", r"\1***\2", url, flags=re.DOTALL)
    return re.sub(r"([?&]\w*password=)[^&#]*", r"\1***", url, flags=re.IGNORECASE)
