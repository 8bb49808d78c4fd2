"""Where the files live: which variable wins, which directory is trusted, and addresses that are too long."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

import pytest
from support import open_fds

from warmpool import paths
from warmpool.errors import InvalidRequestError
from warmpool.paths import (
    ADDRESS_LIMIT,
    SOCKET_ENV,
    Places,
    address_of,
    default_socket,
    make_private,
    peer_of,
)

TMP_SOCKET = f"/tmp/warmpool-{os.getuid()}/daemon.sock"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    monkeypatch.delenv(SOCKET_ENV, raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A private XDG_RUNTIME_DIR."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return directory


# --- which socket -----------------------------------------------------------------------------------------------


def test_without_any_variable_it_is_in_tmp_by_uid():
    assert default_socket() == TMP_SOCKET


def test_a_private_runtime_directory_is_preferred(runtime):
    assert default_socket() == str(runtime / "warmpool" / "daemon.sock")


def test_the_socket_variable_wins_over_all(runtime, monkeypatch):
    monkeypatch.setenv(SOCKET_ENV, "/elsewhere/my.sock")
    assert default_socket() == "/elsewhere/my.sock"


@pytest.mark.parametrize("name", [SOCKET_ENV, "XDG_RUNTIME_DIR"])
def test_an_empty_variable_is_as_if_it_were_not_set(monkeypatch, name):
    monkeypatch.setenv(name, "")
    assert default_socket() == TMP_SOCKET


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o720, 0o750, 0o704, 0o755, 0o777, 0o1777], ids=oct)
def test_a_runtime_directory_that_others_may_enter_is_not_used(runtime, mode):
    runtime.chmod(mode)
    assert default_socket() == TMP_SOCKET


def test_a_runtime_directory_of_somebody_else_is_not_used(runtime, monkeypatch):
    uid = os.getuid() + 1
    monkeypatch.setattr(paths.os, "getuid", lambda: uid)
    assert default_socket() == f"/tmp/warmpool-{uid}/daemon.sock"


def test_a_runtime_directory_that_is_a_link_a_file_or_missing_is_not_used(runtime, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(runtime)
    (tmp_path / "file").touch(mode=0o600)
    for name in ("link", "file", "missing"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / name))
        assert default_socket() == TMP_SOCKET


def test_a_relative_runtime_directory_is_not_used(runtime, monkeypatch):
    """The XDG specification says so; and whose directory it is would change with each `cd`."""
    monkeypatch.chdir(runtime.parent)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run")
    assert default_socket() == TMP_SOCKET


# --- the places beside it ---------------------------------------------------------------------------------------


def all_of(places: Places) -> list[Path]:
    return [places.socket, places.lock, places.starting, places.log, places.logs]


def test_every_file_is_named_after_its_socket():
    assert [str(place) for place in all_of(Places.of("/run/me/my.sock"))] == [
        "/run/me/my.sock",
        "/run/me/my.sock.lock",
        "/run/me/my.sock.starting",
        "/run/me/my.sock.log",
        "/run/me/my.sock.logs",
    ]


def test_two_sockets_of_one_directory_share_no_file():
    assert not {*all_of(Places.of("/run/a.sock"))} & {*all_of(Places.of("/run/b.sock"))}
    assert not {*all_of(Places.of("/run/a"))} & {*all_of(Places.of("/run/a.sock"))}


def test_places_are_absolute_and_keep_it_when_the_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = Places.of("my.sock")
    assert places.socket == tmp_path / "my.sock"
    monkeypatch.setenv(SOCKET_ENV, "given.sock")
    assert Places.of().socket == tmp_path / "given.sock"


def test_an_absolute_path_needs_no_directory_to_be_in(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert Places.of("/run/my.sock").address == "/run/my.sock"


@pytest.mark.parametrize("none", [None, ""])
def test_without_a_socket_the_places_are_the_default_ones(runtime, none):
    assert Places.of(none) == Places.of(runtime / "warmpool" / "daemon.sock")


# --- the directory ----------------------------------------------------------------------------------------------


def mode_of(path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_the_directory_is_made_for_the_user_alone(runtime, umask):
    before = os.umask(umask)
    try:
        make_private(Places.of())
        make_private(Places.of())
    finally:
        os.umask(before)
    assert mode_of(runtime / "warmpool") == 0o700


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o770, 0o755, 0o777, 0o1777], ids=oct)
def test_a_default_directory_that_others_may_enter_is_refused(runtime, mode):
    (runtime / "warmpool").mkdir()
    (runtime / "warmpool").chmod(mode)
    with pytest.raises(InvalidRequestError, match=rf"{runtime / 'warmpool'} .*--socket or {SOCKET_ENV}"):
        make_private(Places.of())


def test_a_default_directory_of_somebody_else_is_refused(tmp_path, monkeypatch):
    socket_path = tmp_path / "warmpool" / "daemon.sock"
    socket_path.parent.mkdir(mode=0o700)
    monkeypatch.setattr(paths, "default_socket", lambda: str(socket_path))
    make_private(Places.of())
    uid = os.getuid() + 1
    monkeypatch.setattr(paths.os, "getuid", lambda: uid)
    with pytest.raises(InvalidRequestError):
        make_private(Places.of())


def test_a_default_directory_that_is_a_link_is_refused(runtime, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (runtime / "warmpool").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidRequestError):
        make_private(Places.of())


@pytest.mark.parametrize("what", ["file", "dangling-link"])
def test_a_default_directory_that_is_none_is_refused(runtime, what):
    if what == "file":
        (runtime / "warmpool").touch()
    else:
        (runtime / "warmpool").symlink_to(runtime / "nowhere")
    with pytest.raises(InvalidRequestError):
        make_private(Places.of())
    assert not (runtime / "nowhere").exists()


def test_an_empty_socket_variable_does_not_switch_the_check_off(runtime, monkeypatch):
    monkeypatch.setenv(SOCKET_ENV, "")
    (runtime / "warmpool").mkdir()
    (runtime / "warmpool").chmod(0o777)
    with pytest.raises(InvalidRequestError):
        make_private(Places.of())


def test_the_default_directory_is_checked_also_where_it_was_named(runtime):
    (runtime / "warmpool").mkdir()
    (runtime / "warmpool").chmod(0o777)
    with pytest.raises(InvalidRequestError):
        make_private(Places.of(runtime / "warmpool" / "daemon.sock"))


def test_a_directory_that_the_user_chose_is_the_users_own_affair(tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    make_private(Places.of(shared / "my.sock"))
    monkeypatch.setenv(SOCKET_ENV, str(shared / "my.sock"))
    make_private(Places.of())
    make_private(Places.of(tmp_path / "new" / "deep" / "my.sock"))
    assert mode_of(tmp_path / "new" / "deep") == 0o700
    assert mode_of(shared) == 0o777


# --- addresses --------------------------------------------------------------------------------------------------


def socket_path_of(tmp_path, length: int):
    """A path of exactly so many bytes in a directory that exists."""
    directory = tmp_path
    while length - len(os.fsencode(directory)) > 60:
        directory = directory / ("d" * min(50, length - len(os.fsencode(directory)) - 10))
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / ("s" * (length - len(os.fsencode(directory)) - 1))
    assert len(os.fsencode(path)) == length
    return path


def bind_and_connect(path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with address_of(str(path)) as address:
            listener.bind(address)
        listener.listen()
        assert stat.S_ISSOCK(path.stat().st_mode)
        with address_of(str(path)) as address:
            client.connect(address)
        accepted, _ = listener.accept()
        with accepted:
            client.sendall(b"hello")
            assert accepted.recv(5) == b"hello"


@pytest.mark.parametrize("length", [ADDRESS_LIMIT - 1, ADDRESS_LIMIT, ADDRESS_LIMIT + 1, 200, 1000])
def test_a_path_of_any_length_can_be_bound_and_connected(tmp_path, length):
    before = open_fds()
    bind_and_connect(socket_path_of(tmp_path, length))
    assert open_fds() == before


def test_a_path_is_measured_in_bytes_and_not_in_characters(tmp_path):
    directory = tmp_path / ("ü" * (ADDRESS_LIMIT - len(str(tmp_path)) - 3))
    directory.mkdir()
    assert len(str(directory / "s")) <= ADDRESS_LIMIT < len(os.fsencode(directory / "s"))
    bind_and_connect(directory / "s")


def test_a_short_path_is_its_own_address(tmp_path):
    with address_of("/run/my.sock") as address:
        assert address == "/run/my.sock"


def test_a_long_path_into_a_directory_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError), address_of(str(tmp_path / ("x" * 100) / ("y" * 100) / "s")):
        pass


# --- peers ------------------------------------------------------------------------------------------------------


def test_the_peer_of_a_connection_is_known():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        assert peer_of(one) == peer_of(other) == (os.getpid(), os.getuid())


@pytest.mark.parametrize("uid", [0, 1000, 2**31 - 1, 2**31, 2**32 - 2])
def test_a_uid_is_the_number_that_getuid_gives_however_large(uid):
    class Connection:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return struct.pack("@iII", 4321, uid, uid)

    assert peer_of(Connection()) == (4321, uid)


def test_a_path_that_is_no_text_is_refused():
    """It could not be told to anybody: by an answer of the daemon's, for one."""
    with pytest.raises(InvalidRequestError, match=r"must be UTF-8, not '/tmp/\\udcff/d.sock'"):
        Places.of(b"/tmp/\xff/d.sock")
    assert Places.of("/tmp/é/d.sock".encode()).address == "/tmp/é/d.sock"
