"""The embedded Valkey: one for a data directory, shared, stopped by the last to leave, never in its own way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from core.broker import connect
from core.embedded import MAX_SOCKET_PATH, EmbeddedBroker
from core.errors import BrokerError

WAIT_SECONDS = 60
#: Uses the broker of a folder, says which server it has, and leaves when its standard input ends.
USER = """
import sys
from pathlib import Path
from core.broker import connect
from core.embedded import EmbeddedBroker

with EmbeddedBroker(Path(sys.argv[1])) as broker, connect(broker.url) as client:
    print(client.info("server")["process_id"], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start_user(tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Start another process that uses the broker of this folder."""
    users: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", USER, str(tmp_path)]
        users.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return users[-1]

    yield start
    for user in users:
        user.kill()
        user.communicate(timeout=WAIT_SECONDS)


def server_of(broker: EmbeddedBroker) -> int:
    """Return the process id of the server, which must answer."""
    with connect(broker.url) as client:
        return int(client.info("server")["process_id"])


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_dead(pid: int) -> None:
    """Return when a process has ended."""
    deadline = time.monotonic() + WAIT_SECONDS
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.01)


def put(broker: EmbeddedBroker, value: str) -> None:
    """Put a value into a queue."""
    with connect(broker.url) as client:
        client.lpush("queue", value)


def values(broker: EmbeddedBroker) -> list[bytes]:
    """Return what is in the queue."""
    with connect(broker.url) as client:
        return client.lrange("queue", 0, -1)


def test_a_server_starts_with_its_first_user_and_stops_with_its_last(tmp_path: Path) -> None:
    first, second = EmbeddedBroker(tmp_path), EmbeddedBroker(tmp_path)
    with first:
        pid = server_of(first)
        with second:
            assert server_of(second) == pid
        assert server_of(first) == pid
    wait_until_dead(pid)


def test_the_first_to_come_may_be_the_first_to_leave(tmp_path: Path) -> None:
    first, second = EmbeddedBroker(tmp_path), EmbeddedBroker(tmp_path)
    first.start()
    pid = server_of(first)
    second.start()
    first.stop()
    assert server_of(second) == pid
    second.stop()
    wait_until_dead(pid)


def test_leaving_twice_does_no_harm(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    broker.stop()
    with broker, EmbeddedBroker(tmp_path) as other:
        broker.stop()
        broker.stop()
        assert is_alive(server_of(other))


def test_two_data_directories_have_two_servers(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "a") as one, EmbeddedBroker(tmp_path / "b") as two:
        assert server_of(one) != server_of(two)


def test_nobody_else_can_reach_the_server(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        with connect(broker.url) as client:
            assert client.config_get("port") == {"port": "0"} or client.config_get("port") == {b"port": b"0"}
        assert (tmp_path / "valkey").stat().st_mode & 0o077 == 0
        assert (tmp_path / "valkey" / "valkey.sock").stat().st_mode & 0o077 == 0


def test_the_queue_survives_a_stop(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        put(broker, "job")
    with EmbeddedBroker(tmp_path) as broker:
        assert values(broker) == [b"job"]


def test_the_queue_survives_a_kill_and_the_next_user_starts_the_server_again(tmp_path: Path) -> None:
    killed, later = EmbeddedBroker(tmp_path), EmbeddedBroker(tmp_path)
    with killed:
        put(killed, "job")
        pid = server_of(killed)
        os.kill(pid, signal.SIGKILL)
        wait_until_dead(pid)
        assert (tmp_path / "valkey" / "valkey.sock").exists()  # stale
        with later:
            assert server_of(later) != pid
            assert values(later) == [b"job"]


def test_a_server_that_lives_but_does_not_answer_is_replaced(tmp_path: Path) -> None:
    hanging, later = EmbeddedBroker(tmp_path), EmbeddedBroker(tmp_path)
    with hanging:
        put(hanging, "job")
        pid = server_of(hanging)
        os.kill(pid, signal.SIGSTOP)
        with later:
            assert not is_alive(pid)
            assert values(later) == [b"job"]


def test_a_file_in_the_place_of_the_socket_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir(mode=0o700)
    (tmp_path / "valkey" / "valkey.sock").touch()
    (tmp_path / "valkey" / "server.pid").write_text("1\n")
    with EmbeddedBroker(tmp_path) as broker:
        assert is_alive(server_of(broker))


@pytest.mark.parametrize("name", ["d" * (MAX_SOCKET_PATH + 20), "with space", "häßlich", "100%?#", "quo'te"])
def test_any_name_of_a_data_directory_will_do(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    with EmbeddedBroker(folder) as broker, EmbeddedBroker(folder) as other:
        assert server_of(broker) == server_of(other)
        assert (folder / "valkey" / "appendonlydir").is_dir()
        socket = Path(broker.url.removeprefix("redis+socket://"))
    assert not socket.exists()


def test_processes_that_start_at_once_share_one_server(start_user: Callable[[], "subprocess.Popen[str]"]) -> None:
    users = [start_user() for _ in range(4)]
    pids = {int(user.stdout.readline()) for user in users}
    assert len(pids) == 1
    for user in users[1:]:
        user.communicate("", timeout=WAIT_SECONDS)
    assert is_alive(*pids)
    users[0].communicate("", timeout=WAIT_SECONDS)
    wait_until_dead(*pids)


def test_a_user_that_is_killed_does_not_count_any_more(
    tmp_path: Path, start_user: Callable[[], "subprocess.Popen[str]"]
) -> None:
    user = start_user()
    pid = int(user.stdout.readline())
    user.kill()
    user.wait(WAIT_SECONDS)
    assert is_alive(pid)
    with EmbeddedBroker(tmp_path) as broker:
        assert server_of(broker) == pid
    wait_until_dead(pid)


def test_a_child_that_outlives_its_parent_does_not_keep_the_server_alive(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    broker.start()
    pid = server_of(broker)
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    try:
        broker.stop()
        wait_until_dead(pid)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_data_directory_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BrokerError, match=r"cannot use .*/file/data/valkey: Not a directory"):
        EmbeddedBroker(tmp_path / "file" / "data").start()


def test_a_server_that_does_not_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        put(broker, "job")
    for file in (tmp_path / "valkey" / "appendonlydir").iterdir():
        file.write_bytes(b"this is no append-only file\n" * 10)
    with pytest.raises(BrokerError, match=r"did not start: .+valkey\.log") as caught:
        EmbeddedBroker(tmp_path).start()
    assert "\n" not in str(caught.value)


def test_the_server_refuses_more_rather_than_forget_a_job(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker, connect(broker.url) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.lpush("queue", "job")
