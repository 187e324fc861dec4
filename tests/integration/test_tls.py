"""TLS and passwords: what they let in, and what they keep out in one clear line, on real servers."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import kombu.pools
import pytest
from sqlalchemy.engine import URL, make_url

from core.broker import connect, held_jobs, make_app, open_broker, ping, queue_name, send_job, translated
from core.errors import BrokerError, DatabaseError
from core.images import ImageRef
from core.jobs import Job
from core.settings import load_settings
from db.engine import open_engine, schema_version
from tests.tls import Authority, behind_tls, guarded_valkey

PASSWORD = "hush/@:?#%"  # what needs to be percent-encoded
ENCODED = "hush%2F%40%3A%3F%23%25"
JOB = Job("0" * 32, 1, "card", (ImageRef("/faces/a.jpg", "5-17", 5),))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom the server's certificate is by."""
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Somebody else, whom nobody asked."""
    return Authority(tmp_path_factory.mktemp("tls") / "strangers")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[int]:
    """The port of a Valkey behind TLS that wants a user and a password."""
    with guarded_valkey(tmp_path_factory.mktemp("guarded"), authority, "facesieve", PASSWORD) as port:
        yield port


def redis_url(port: int, *, who: str = f"facesieve:{ENCODED}@", host: str = "localhost", **options: object) -> str:
    return f"rediss://{who}{host}:{port}/0?{urlencode(options)}"


def test_a_broker_behind_tls_and_a_password_takes_and_gives_jobs(guarded: int, authority: Authority) -> None:
    url = redis_url(guarded, ssl_ca_certs=authority.file)
    with open_broker(load_settings(broker_url=url)) as broker, connect(broker) as client:
        app = make_app(broker)
        try:
            send_job(app, JOB)
            assert held_jobs(client, "card") == ({JOB.id}, set())
            with app.connection_for_read() as connection, connection.SimpleQueue(queue_name("card")) as queue:
                queue.get(timeout=30).ack()
            assert held_jobs(client, "card") == (set(), set())
        finally:
            kombu.pools.reset()


def test_authorities_of_the_system_are_trusted_when_the_url_names_none(
    guarded: int, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    url = redis_url(guarded)
    ping(url)
    with make_app(url).connection_for_write() as connection:
        connection.ensure_connection(max_retries=0)


@pytest.mark.parametrize("options", ["none", "required", "stranger", "by number"])
def test_a_certificate_that_cannot_be_checked_is_refused_in_one_line(
    options: str, guarded: int, authority: Authority, stranger: Authority
) -> None:
    url = {
        "none": redis_url(guarded),
        "required": redis_url(guarded, ssl_cert_reqs="required"),
        "stranger": redis_url(guarded, ssl_ca_certs=stranger.file),
        "by number": redis_url(guarded, host="127.0.0.1", ssl_ca_certs=authority.file),
    }[options]
    with pytest.raises(BrokerError, match=r"must be for this very host, by an authority .*ssl_ca_certs=FILE") as caught:
        ping(url)
    assert_one_line(caught.value)


def test_celery_checks_certificates_as_well_without_being_told(guarded: int) -> None:
    url = redis_url(guarded)
    refused = pytest.raises(BrokerError, match="must be for this very host")
    with refused, translated(url), make_app(url).connection_for_write() as connection:
        connection.connect()


def test_tls_that_is_not_to_be_checked_must_be_asked_for(guarded: int) -> None:
    ping(redis_url(guarded, ssl_cert_reqs="none"))


@pytest.mark.parametrize("who", ["", "facesieve:wrong@", ":another%2F@", "nobody:hush@"])
def test_a_wrong_user_or_password_is_one_line_that_says_so(who: str, guarded: int, authority: Authority) -> None:
    with pytest.raises(BrokerError, match="check the user and password in FACESIEVE_BROKER_URL") as caught:
        ping(redis_url(guarded, who=who, ssl_ca_certs=authority.file))
    assert_one_line(caught.value)
    assert "wrong" not in str(caught.value).replace("WRONGPASS", "")


def test_what_the_user_may_not_do_is_one_line_that_says_so(guarded: int, authority: Authority) -> None:
    url = redis_url(guarded, ssl_ca_certs=authority.file)
    refused = pytest.raises(BrokerError, match="what Redis allows that user")
    with refused as caught, translated(url), connect(url) as client:
        client.flushall()
    assert_one_line(caught.value)


def test_a_file_of_authorities_that_is_not_there_is_one_line_that_names_it(guarded: int, tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"absent\.pem.*a file that its .* names is not there") as caught:
        ping(redis_url(guarded, ssl_ca_certs=tmp_path / "absent.pem"))
    assert_one_line(caught.value)


def test_a_client_without_tls_is_refused_in_one_line(guarded: int) -> None:
    with pytest.raises(BrokerError) as caught:
        ping(redis_url(guarded).replace("rediss:", "redis:"))
    assert_one_line(caught.value)


def test_a_server_without_tls_is_one_line_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                connection.sendall(b"-ERR unknown command\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(BrokerError, match="does Redis speak it at this port") as caught:
            ping(redis_url(server.getsockname()[1]))
        thread.join(30)
    assert_one_line(caught.value)


def assert_one_line(error: Exception) -> None:
    """Check that an error is fit to be shown: short, and without the password."""
    text = str(error)
    assert "\n" not in text
    assert "hush" not in text
    assert len(text) < 500


@pytest.fixture
def encrypted(postgresql_url: str, authority: Authority) -> Iterator[URL]:
    """The URL of a migrated PostgreSQL database behind TLS."""
    inner = make_url(postgresql_url)
    socket = Path(str(inner.query["host"])) / f".s.PGSQL.{inner.port or inner.query.get('port', 5432)}"
    with behind_tls(authority, socket, asks_first=True) as port:
        yield URL.create(
            "postgresql+psycopg", inner.username, inner.password or "hush", "localhost", port, inner.database
        )


def shown(url: URL, **options: object) -> str:
    return url.update_query_dict({name: str(value) for name, value in options.items()}).render_as_string(
        hide_password=False
    )


def test_a_database_behind_tls_answers(encrypted: URL, authority: Authority) -> None:
    url = shown(encrypted, sslmode="verify-full", sslrootcert=authority.file)
    engine = open_engine(load_settings(database_url=url))
    try:
        assert schema_version(engine)
        with engine.connect() as connection:
            assert connection.connection.driver_connection.pgconn.ssl_in_use  # type: ignore[union-attr]
    finally:
        engine.dispose()


@pytest.mark.parametrize("case", ["stranger", "by number", "absent"])
def test_a_database_whose_certificate_cannot_be_checked_is_refused_in_one_line(
    case: str, encrypted: URL, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    url = {
        "stranger": shown(encrypted, sslmode="verify-full", sslrootcert=stranger.file),
        "by number": shown(encrypted.set(host="127.0.0.1"), sslmode="verify-full", sslrootcert=authority.file),
        "absent": shown(encrypted, sslmode="verify-full", sslrootcert=tmp_path / "absent.pem"),
    }[case]
    with pytest.raises(DatabaseError, match="certificate") as caught:
        open_engine(load_settings(database_url=url))
    assert_one_line(caught.value)
