"""The plugin, as a suite sees it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import APPS, MARK, processes_marked, wait_for_exit

COUNTER = str(APPS / "counter.py")


def test_a_session_in_a_test(suite, run):
    suite.makepyfile("""
        import pytest

        @pytest.mark.parametrize("turn", range(4))
        def test_total(warmpool_session, turn):
            session = warmpool_session("counter")
            assert session.call("add", amount=2) == {"total": 2}

        def test_client(warmpool):
            with warmpool.session("counter", session_timeout=60) as session:
                assert session.call("add") == {"total": 1}
            assert warmpool.sessions.list() == []
    """)
    run("-W", "error").assert_outcomes(passed=5)


def test_an_app_in_the_test_module_itself(suite, run):
    suite.makepyfile("""
        from warmpool import BaseApp

        class Greeter(BaseApp):
            def hello(self, name: str) -> str:
                return f"hello, {name}"

        class TestGreeter:
            class Loud(BaseApp):
                def hello(self, name: str) -> str:
                    return f"HELLO, {name}"

            def test_outer(self, warmpool):
                with warmpool.session(Greeter) as session:
                    assert session.call("hello", name="you") == "hello, you"

            def test_inner(self, warmpool_session):
                assert warmpool_session(self.Loud).call("hello", name="you") == "HELLO, you"
    """)
    run("-W", "error").assert_outcomes(passed=2)


def test_an_app_of_a_test_package_may_import_its_neighbours(suite, run):
    package = suite.mkpydir("checks")
    (package / "helpers.py").write_text("WORD = 'from a neighbour'\n")
    (package / "test_it.py").write_text(
        "from warmpool import BaseApp\n"
        "from .helpers import WORD\n\n\n"
        "class Speaker(BaseApp):\n"
        "    def say(self) -> str:\n"
        "        return WORD\n\n\n"
        "def test_it(warmpool_session):\n"
        "    assert warmpool_session(Speaker).call('say') == 'from a neighbour'\n"
    )
    run("-W", "error").assert_outcomes(passed=1)


def test_a_broken_edit_is_told_of_at_the_tests_own_line(suite, run):
    suite.makepyfile(
        edited="from warmpool import BaseApp\nclass Edited(BaseApp):\n    def run(self) -> int:\n        return 1"
    )
    suite.makepyfile("""
        from pathlib import Path
        import pytest
        from warmpool import AppBrokenWarning

        APP = Path(__file__).with_name("edited.py")

        @pytest.mark.asyncio
        async def test_it(warmpool, warmpool_async, warmpool_session):
            warmpool.run(app=APP)
            APP.write_text(APP.read_text() + ")")
            with pytest.warns(AppBrokenWarning) as caught:
                warmpool.session(APP).end()  # here
                warmpool_session(APP)  # here
                warmpool_session(APP, name="mine", if_exists="attach")  # here
                async with warmpool_async.session(APP):  # here
                    pass
            lines = Path(__file__).read_text().splitlines()
            asks = {number for number, line in enumerate(lines, 1) if line.endswith("  # here")}
            assert {(warning.filename, warning.lineno) for warning in caught} == {(__file__, n) for n in asks}
    """)
    run("-W", "error").assert_outcomes(passed=1)


def test_the_apps_and_settings_can_be_overridden(suite, run):
    suite.makeconftest(f"""
        import pytest

        @pytest.fixture(scope="session")
        def warmpool_apps():
            return [{str(APPS / "async_counter.py")!r}]

        @pytest.fixture(scope="session")
        def warmpool_settings():
            return {{"max_workers": 7}}
    """)
    suite.makepyfile("""
        def test_it(warmpool):
            assert [app.name for app in warmpool.apps.list()] == ["async_counter"]
            assert warmpool.status().max_workers == 7
    """)
    run("-W", "error").assert_outcomes(passed=1)


def test_time_moves_and_goes_on_in_the_next_test(suite, run):
    suite.makepyfile("""
        import pytest
        from warmpool import SessionExpiredError

        @pytest.mark.parametrize("turn", range(3))
        def test_an_hour(warmpool, warmpool_session, turn):
            before = warmpool.clock.now()
            assert warmpool.clock.now() > before, "it stands no more, whatever the test before did"
            warmpool.clock.freeze()
            session = warmpool_session("counter", session_timeout=3600)
            warmpool.clock.advance(3599)
            session.keepalive()
            warmpool.clock.advance(3600)
            with pytest.raises(SessionExpiredError):
                session.call("add")
    """)
    run("-W", "error").assert_outcomes(passed=3)


def test_a_failure_tells_what_its_sessions_lived_through(suite, run):
    suite.makepyfile("""
        def test_lost(warmpool, warmpool_session):
            session = warmpool_session("counter")
            session.call("add")
            warmpool.kill_worker(session)
            session.call("add")

        def test_alive(warmpool_session):
            warmpool_session("counter").call("add", amount="many")
    """)
    result = run()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines_random(
        [
            "*- warmpool session sess_* -*",
            "counter@* on w_*, pid *: ended (worker_lost): its worker was killed by SIGKILL*, 1 calls",
            "counter@* on w_*, pid *: active, 1 calls",
            "*- warmpool daemon's log -*",
            "*sess_* opened: counter@*",
        ]
    )


def test_a_failure_tells_what_its_session_wrote_and_where_the_app_raised(suite, run):
    suite.makepyfile("""
        from warmpool import BaseApp

        class Loud(BaseApp):
            def shout(self) -> None:
                print("this I printed")
                self.logger.warning("this I logged")
                raise ValueError("too loud")

        def test_it(warmpool, warmpool_session):
            session = warmpool_session(Loud)
            warmpool.clock.advance(30)
            session.keepalive()
            session.call("shout")
    """)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- warmpool: raised in the app -*",
            '*raise ValueError("too loud")',
            "ValueError: too loud",
            "*- warmpool session sess_* -*",
            "*slid by a keepalive*",
            "its log:",
            "*this I printed",
            "*WARNING*: this I logged",
            "*- warmpool daemon's log -*",
        ]
    )


def test_where_the_app_raised_is_told_of_groups_and_causes_and_of_no_others_errors(suite, run):
    suite.makepyfile("""
        from warmpool import AppError, BaseApp

        class Loud(BaseApp):
            def shout(self, words: str) -> None:
                raise ValueError(words)

        class Foreign(Exception):
            @property
            def traceback(self):
                raise LookupError("none was kept")

        def test_group(warmpool_session):
            session, errors = warmpool_session(Loud), []
            for words in ("one", "two"):
                try:
                    session.call("shout", words=words)
                except AppError as error:
                    errors.append(error)
            raise ExceptionGroup("both", errors)

        def test_cause(warmpool_session):
            try:
                warmpool_session(Loud).call("shout", words="three")
            except AppError as error:
                raise RuntimeError("order failed") from error

        def test_foreign(warmpool):
            raise Foreign
    """)
    result = run()
    result.assert_outcomes(failed=3)
    told = result.stdout.str().count("- warmpool: raised in the app -")
    assert told == 3
    for words in ("one", "two", "three"):
        result.stdout.fnmatch_lines([f"ValueError: {words}"])


def test_a_failure_that_has_no_session_says_nothing(suite, run):
    suite.makepyfile("""
        def test_it(warmpool):
            assert warmpool.status().max_workers == 1
    """)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*warmpool session*")


def test_a_failure_in_a_fixture_is_told_too(suite, run):
    suite.makepyfile("""
        import pytest

        @pytest.fixture
        def broken(warmpool_session):
            warmpool_session("counter").call("no_such_function")

        def test_it(broken):
            pass
    """)
    result = run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*- warmpool session sess_* -*"])


def test_a_failure_of_who_asked_for_its_client_on_the_way_is_told_too(suite, run):
    suite.makepyfile("""
        def test_it(request):
            request.getfixturevalue("warmpool").session("counter").call("no_such_function")
    """)
    result = run()
    result.assert_outcomes(failed=1, warnings=1)
    result.stdout.fnmatch_lines(["*- warmpool session sess_* -*"])


def test_only_the_sessions_of_the_failed_test_are_told_of(suite, run):
    suite.makepyfile("""
        import pytest

        @pytest.mark.parametrize("turn", range(4))
        def test_fine(warmpool_session, turn):
            warmpool_session("counter").call("add")

        def test_failing(warmpool_session):
            print("I use", warmpool_session("counter").id)
            assert False
    """)
    result = run()
    result.assert_outcomes(passed=4, failed=1)
    text = result.stdout.str()
    assert text.count("- warmpool session sess_") == 1
    (used,) = [line.split()[2] for line in text.splitlines() if line.startswith("I use sess_")]
    result.stdout.fnmatch_lines([f"*- warmpool session {used} -*"])


def test_a_session_of_a_wider_fixture_that_ends_in_a_test_is_told_of(suite, run):
    suite.makepyfile("""
        import pytest

        @pytest.fixture(scope="module")
        def lasting(warmpool):
            with warmpool.session("counter") as session:
                session.call("add")
                yield session

        def test_fine(lasting):
            pass

        def test_failing(warmpool, lasting):
            warmpool.kill_worker(lasting)
            assert False
    """)
    result = run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*- warmpool session sess_*", "*ended (worker_lost)*"])


LEAK = """
    import pytest

    def test_leaves_one_open(warmpool):
        warmpool.session("counter")

    def test_with_another_client(warmpool):
        from warmpool import Client
        with Client(warmpool.places.socket, autostart=False) as client:
            client.run(app="counter", function="add", session="new")

    def test_clean(warmpool, warmpool_session):
        assert warmpool.sessions.list() == []
        warmpool_session("counter")
"""


def test_a_session_that_is_left_open_is_warned_of_and_ended(suite, run):
    suite.makepyfile(LEAK)
    result = run()
    result.assert_outcomes(passed=3, warnings=2)
    result.stdout.fnmatch_lines(["*test_leaves_one_open*", "*SessionLeftOpenWarning: left open: sess_* of counter*"])


@pytest.mark.parametrize("how", ["option", "ini"])
def test_in_strict_mode_it_fails(suite, run, how):
    suite.makepyfile(LEAK)
    if how == "ini":
        suite.makeini(
            f"[pytest]\nwarmpool_apps = {COUNTER}\nasyncio_default_fixture_loop_scope = function\nwarmpool_strict = true\n"
        )
    result = run(*(["--warmpool-strict"] if how == "option" else []))
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["*left open: sess_* of counter; end it, or open it by the fixture warmpool_session*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    ("chosen", "outcomes"),
    [
        ("", {"passed": 7, "errors": 3}),
        ("clean", {"passed": 2, "deselected": 5}),
        ("shared", {"passed": 1, "deselected": 6}),
    ],
)
def test_a_test_may_ask_for_the_client_on_its_way(suite, run, chosen, outcomes):
    """The first one begins the daemon by that, the next one finds it."""
    suite.makepyfile("""
        import pytest

        @pytest.fixture
        def ended_later():
            sessions = []
            yield sessions
            for session in sessions:
                session.end()

        @pytest.fixture
        def client(request):
            return request.getfixturevalue("warmpool")

        @pytest.fixture(scope="module")
        def shared(request):
            with request.getfixturevalue("warmpool").session("counter") as session:
                yield session

        @pytest.mark.parametrize("turn", range(2))
        def test_leaves_one_open(request, turn):
            request.getfixturevalue("warmpool").session("counter")

        def test_leaves_one_open_by_a_fixture(client):
            client.session("counter")

        @pytest.mark.parametrize("turn", range(2))
        def test_clean(request, ended_later, turn):
            ended_later.append(request.getfixturevalue("warmpool").session("counter"))

        def test_shared(shared):
            assert shared.call("add") == {"total": 1}

        def test_without(request):
            pass
    """)
    run("--warmpool-strict", "-k", chosen).assert_outcomes(**outcomes)


def test_a_daemon_that_is_gone_is_no_matter_to_who_does_not_use_it(suite, run):
    suite.makepyfile("""
        import pytest

        def test_stops_it(warmpool):
            warmpool.clock.freeze()
            warmpool.stop()

        @pytest.fixture(scope="module")
        def number():
            return 1

        def test_without(request, number):
            assert number == 1

        def test_with(warmpool):
            warmpool.session("counter")
    """)
    run("--warmpool-strict").assert_outcomes(passed=2, failed=1)


def test_what_a_wider_fixture_opens_is_no_tests(suite, run):
    suite.makepyfile("""
        import pytest

        @pytest.fixture(scope="module")
        def shared(warmpool):
            with warmpool.session("counter") as session:
                yield session

        def test_first(shared):
            assert shared.call("add") == {"total": 1}

        def test_second(shared, warmpool_session):
            assert shared.call("add")["total"] in (1, 2)
            warmpool_session("counter")
    """)
    run("--warmpool-strict").assert_outcomes(passed=2)


def test_one_that_a_test_attaches_to_stays_open(suite, run):
    suite.makepyfile("""
        import pytest

        @pytest.fixture(scope="module")
        def shared(warmpool):
            with warmpool.session("counter", name="shared") as session:
                yield session

        @pytest.mark.parametrize("turn", range(2))
        def test_it(shared, warmpool_session, turn):
            session = warmpool_session("counter", name="shared", if_exists="attach")
            assert session.call("add") == {"total": turn + 1}
            warmpool_session("counter", name="mine", if_exists="attach")
    """)
    run("--warmpool-strict").assert_outcomes(passed=2)


def test_a_test_that_ends_its_session_itself_is_fine(suite, run):
    suite.makepyfile("""
        def test_it(warmpool, warmpool_session):
            warmpool_session("counter").end()
            warmpool.kill_worker(warmpool_session("counter"))
            warmpool.expire_now(warmpool_session("counter"))
    """)
    run("--warmpool-strict").assert_outcomes(passed=1)


def test_the_log_can_be_kept(suite, run, tmp_path):
    suite.makepyfile("""
        def test_it(warmpool_session):
            warmpool_session("counter").call("add")
    """)
    run(f"--warmpool-log={tmp_path}/kept.log").assert_outcomes(passed=1)
    (log,) = tmp_path.glob("kept.log*")
    assert "opened: counter@" in log.read_text()


def test_a_log_that_is_kept_is_found_from_anywhere(suite, run, tmp_path):
    suite.makepyfile("""
        def test_it(warmpool_session, monkeypatch, tmp_path):
            warmpool_session("counter").call("add")
            monkeypatch.chdir(tmp_path)
            assert False
    """)
    result = run("--warmpool-log=kept.log")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- warmpool daemon's log -*", "*opened: counter@*"])


def test_a_log_that_cannot_be_kept_is_named(suite, run, tmp_path):
    suite.makepyfile("""
        def test_it(warmpool):
            pass
    """)
    result = run(f"--warmpool-log={tmp_path}/nowhere/kept.log")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [f"E *InvalidRequestError: no log can be kept in {tmp_path}/nowhere/kept.log: No such*"]
    )


def test_a_running_daemon_stays_warm_between_runs(suite, run, daemon, monkeypatch):
    suite.makepyfile("""
        import os, pytest
        from warmpool import InvalidRequestError

        def test_it(warmpool, warmpool_session):
            warmpool_session("counter").call("add")
            assert warmpool.status().pid == int(os.environ["THE_DAEMON"])

        def test_its_time_is_not_ours(warmpool):
            with pytest.raises(InvalidRequestError, match="without --warmpool-socket"):
                warmpool.clock.advance(1)

        def test_leak(warmpool):
            warmpool.session("counter")
    """)
    others = daemon.client.session(COUNTER)
    monkeypatch.setenv("THE_DAEMON", str(daemon.pid))
    for _ in range(2):
        result = run(f"--warmpool-socket={daemon.socket}", "--warmpool-strict")
        result.assert_outcomes(passed=3, errors=1)
    assert others.call("add") == {"total": 1}, "what others have open there is not ours to end"
    assert [info.id for info in daemon.client.sessions.list()] == [others.id]
    others.end()


def test_there_what_the_async_client_opens_is_a_tests_as_well(suite, run, daemon):
    suite.makepyfile("""
        import pytest

        pytestmark = pytest.mark.asyncio

        async def test_leaves_one_open(warmpool_async):
            await warmpool_async.session("counter")

        async def test_clean(warmpool_async):
            assert (await warmpool_async.sessions.list()).total == 1
            async with warmpool_async.session("counter") as session:
                await session.call("add")

        async def test_attaches(warmpool_async):
            await warmpool_async.session("counter", name="shared", if_exists="attach").call("add")

        async def test_failing(warmpool_async):
            async with warmpool_async.session("counter") as session:
                await session.call("add", amount="many")
    """)
    others = daemon.client.session(COUNTER, name="shared")
    result = run(f"--warmpool-socket={daemon.socket}", "--warmpool-strict")
    result.assert_outcomes(passed=3, failed=1, errors=1)
    result.stdout.fnmatch_lines_random(["*left open: sess_* of counter*", "*- warmpool session sess_* -*"])
    assert others.call("add") == {"total": 2}
    assert [info.id for info in daemon.client.sessions.list()] == [others.id]
    others.end()


def test_what_a_test_only_attaches_to_is_not_its_own(suite, run, daemon):
    suite.makepyfile("""
        import pytest

        @pytest.mark.parametrize("turn", range(2))
        def test_by_the_client(warmpool, turn):
            warmpool.session("counter", name="shared", if_exists="attach").call("add")

        @pytest.mark.parametrize("turn", range(2))
        def test_by_the_fixture(warmpool_session, turn):
            warmpool_session("counter", name="shared", if_exists="attach").call("add")

        def test_a_new_one_by_the_fixture(warmpool_session):
            warmpool_session("counter", name="mine", if_exists="attach").call("add")

        def test_a_new_one_that_is_left_open(warmpool):
            assert warmpool.sessions.list(name_prefix="mine") == []
            warmpool.session("counter", name="mine", if_exists="attach")

        def test_failing(warmpool):
            assert warmpool.sessions.list(name_prefix="mine") == []
            assert warmpool.session("counter", name="shared", if_exists="attach").call("add") is None
    """)
    shared = daemon.client.session(COUNTER, name="shared")
    result = run(f"--warmpool-socket={daemon.socket}", "--warmpool-strict")
    result.assert_outcomes(passed=6, failed=1, errors=1)
    result.stdout.fnmatch_lines([f"*- warmpool session {shared.id} -*"])
    assert shared.call("add") == {"total": 6}
    assert [info.id for info in daemon.client.sessions.list()] == [shared.id]
    shared.end()


def test_a_daemon_that_stays_is_started_if_none_runs(suite, run, directory):
    socket = directory / "d.sock"
    suite.makepyfile("""
        def test_it(warmpool_session):
            assert warmpool_session("counter").call("add") == {"total": 1}
    """)
    try:
        for _ in range(2):
            run(f"--warmpool-socket={socket}", "-W", "error").assert_outcomes(passed=1)
    finally:
        subprocess.run([sys.executable, "-m", "warmpool", "stop", "--socket", str(socket)], check=True)


@pytest.mark.parametrize("death", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)"], ids=["killed", "leaves"])
def test_nothing_is_left_of_a_run_that_died(suite, run_apart, death):
    suite.makepyfile(f"""
        import os, signal

        def test_it(warmpool_session):
            warmpool_session("counter").call("add")
            {death}
    """)
    run_apart("-x")
    assert all(wait_for_exit(process.pid, 1) for process in processes_marked(os.environ[MARK]))


@pytest.mark.parametrize("flavour", ["asyncio", "anyio"])
def test_async_tests(suite, run, flavour):
    suite.makepyfile(f"""
        import asyncio, pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.{flavour}
        async def test_it(warmpool, warmpool_session):
            session = warmpool_session("counter", session_timeout=60)
            assert await asyncio.to_thread(session.call, "add") == {{"total": 1}}
            await asyncio.to_thread(warmpool.clock.advance, 61)
            assert session.info().status == "expired"

        @pytest.mark.{flavour}
        @pytest.mark.parametrize("turn", range(2))
        async def test_awaited(warmpool_async, turn):
            before = await warmpool_async.clock.freeze()
            session = await warmpool_async.session("counter", session_timeout=60)
            assert await session.call("add") == {{"total": 1}}
            await warmpool_async.clock.advance(60)
            assert (await session.info()).status == "expired"
    """)
    run("-W", "error").assert_outcomes(passed=3)


def test_a_clock_that_a_wider_fixture_stops_stands_for_all_its_tests(suite, run):
    suite.makepyfile(
        test_a="""
        import pytest

        @pytest.fixture(scope="module", autouse=True)
        def frozen(warmpool):
            with warmpool.clock.frozen():
                yield

        @pytest.mark.parametrize("turn", range(3))
        def test_it_stands(warmpool, warmpool_session, turn):
            session = warmpool_session("counter", session_timeout=3600)
            warmpool.clock.advance(10)
            assert warmpool.request("testing.now")["stood"]
            assert session.info().status == "active"
        """,
        test_b="""
        def test_it_goes_on(warmpool):
            assert not warmpool.request("testing.now")["stood"]
            warmpool.clock.freeze()

        def test_it_goes_on_again(warmpool):
            assert not warmpool.request("testing.now")["stood"]
        """,
    )
    run().assert_outcomes(passed=5)


def test_under_xdist_each_worker_has_a_daemon_of_its_own(suite, tmp_path):
    suite.makepyfile("""
        import pytest
        from warmpool import BaseApp

        class Counter(BaseApp):
            def setup(self):
                self.total = 0

            def add(self, amount: int) -> int:
                self.total += amount
                return self.total

        @pytest.fixture(scope="module")
        def shared(warmpool):
            with warmpool.session(Counter, session_timeout=3600) as session:
                yield session

        @pytest.mark.parametrize("turn", range(6))
        def test_it(warmpool, warmpool_session, shared, worker_id, tmp_path_factory, turn):
            (tmp_path_factory.getbasetemp().parent / f"{worker_id}-{warmpool.status().pid}").touch()
            warmpool.clock.freeze()
            session = warmpool_session(Counter, session_timeout=60)
            assert session.call("add", amount=2) == 2
            warmpool.clock.advance(60)
            assert session.info().status == "expired"
            assert shared.call("add", amount=1)

        def test_failing(warmpool_session):
            warmpool_session(Counter).call("add", amount="many")

        def test_leaving(warmpool):
            warmpool.session(Counter)
    """)
    options = ("-n", "2", "-p", "no:cacheprovider", "--warmpool-strict", f"--warmpool-log={tmp_path}/kept.log")
    result = suite.runpytest_subprocess(*options, timeout=50)
    result.assert_outcomes(passed=7, failed=1, errors=1)
    result.stdout.fnmatch_lines_random(["*- warmpool session sess_* -*", "*left open: sess_* of *Counter*"])
    daemons = {path.name.split("-")[0]: path for path in suite.path.parent.rglob("gw?-*")}
    assert sorted(daemons) == ["gw0", "gw1"]
    assert len(list(tmp_path.glob("kept.log.gw?"))) == 2


def test_the_options_are_explained(suite):
    result = suite.runpytest_inprocess("--help")
    result.stdout.fnmatch_lines(
        ["warmpool: stateful sessions:", "*--warmpool-socket=PATH*", "*--warmpool-log=FILE*", "*--warmpool-strict*"]
    )
    assert "warmpool_session" in suite.runpytest_inprocess("--fixtures").stdout.str()


def test_it_costs_a_suite_that_does_not_use_it_nothing(suite):
    suite.makepyfile("""
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.split(".")[0] in ("warmpool", "msgpack", "uvloop", "psutil")}
            assert ours == {"warmpool", "warmpool.pytest_plugin", "warmpool.version"}
    """)
    suite.runpytest_subprocess("-p", "no:xdist").assert_outcomes(passed=1)


def test_its_import_loads_nothing_that_pytest_has_not():
    """It is imported in every run of pytest, also in those that have nothing to do with it."""
    script = (
        "import pytest, sys\n"
        "before = set(sys.modules)\n"
        "import warmpool.pytest_plugin\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["warmpool", "warmpool.pytest_plugin", "warmpool.version"]
