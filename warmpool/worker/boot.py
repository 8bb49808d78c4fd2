"""The first thing that runs in an interpreter that is not the daemon's. If it can serve, it becomes a template; if it
lacks warmpool, or has another one, it says so in the daemon's language and goes.

This file is the daemon's and is run as a script, so the interpreter may be of any version and have nothing installed:
only the standard library, no syntax younger than 3.6, and of warmpool's language just the one message, by hand.
"""

import os
import sys

CHANNEL_FD = 3
OLDEST = (3, 11)


def boot(app: str, protocol: int, version: str, requirement: str) -> None:
    """Serves as a template for a daemon of that protocol and version, or says why not. `requirement`: what pip is to
    install to get what that has.
    """
    found = "{} (Python {})".format(sys.executable, ".".join(map(str, sys.version_info[:3])))
    remedy = f"run `{sys.executable} -m pip install {requirement}`"
    if sys.version_info < OLDEST:
        refuse(app, f"its interpreter {found} is too old: warmpool needs 3.11; make its environment with a newer one")
        return
    try:
        from warmpool.version import __version__
        from warmpool.wire.messages import PROTOCOL_VERSION
        from warmpool.worker.start import main
    except Exception as error:
        refuse(app, f"its interpreter {found} cannot import warmpool: {type(error).__name__}: {error}; {remedy}")
        return
    if protocol != PROTOCOL_VERSION:
        other = f"warmpool {__version__}, which speaks protocol {PROTOCOL_VERSION}"
        refuse(app, f"its interpreter {found} has {other}, and the daemon {version} speaks {protocol}; {remedy}")
        return
    main()


def refuse(app: str, why: str) -> None:
    import socket
    import sysconfig

    with socket.socket(fileno=CHANNEL_FD) as channel:
        channel.setblocking(True)
        channel.recv(1)  # Load: to close a socket with something unread would drop what is sent here
        channel.send(load_failed(app, why[:2000], sysconfig.get_paths()["purelib"]))


def load_failed(app: str, why: str, libraries: str) -> bytes:
    """The packet that LoadFailed is: a null byte for "in one piece", then MessagePack."""
    error = [
        (text("code"), text("APP_BROKEN")),
        (text("message"), text(f"app {app} is broken: {why}")),
        (text("session_id"), b"\xc0"),
        (text("details"), b"\x81" + text("message") + text(why)),
    ]
    entries = b"".join(key + value for key, value in error)
    return b"\0\x93" + text("LoadFailed") + b"\x84" + entries + sources(libraries)


def sources(libraries: str) -> bytes:
    """The directory in which packages are installed, as a source of the app: to install one is an edit of it."""
    try:
        status = os.stat(libraries)
    except OSError:
        return b"\x90"
    return b"\x91\x94" + text(libraries) + number(status.st_ctime_ns) + number(status.st_size) + text("")


def text(value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    return b"\xdb" + len(data).to_bytes(4, "big") + data


def number(value: int) -> bytes:
    return b"\xcf" + value.to_bytes(8, "big")


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # where this file lies
    boot(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
