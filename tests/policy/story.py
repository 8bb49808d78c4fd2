"""The broker's other half, for tests: clients, templates, workers and a clock that do only what a test tells them.

A `Story` hands events to a real `Broker`, as the daemon does, and performs its effects on a world made of dicts. Each
effect is checked against the laws of that world as it is performed, whatever the test is about: who waits is
answered once and not after leaving, a worker belongs to one session, a dead process is asked for nothing.

A test names what happens (`open`, `loads`, `ready`, `exits`, `wait`), in any order; `rest` lets everybody who still
owes an answer give it, honestly and at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from warmpool.activity import IDLE, Activity
from warmpool.constants import CANCEL_GRACE, MEMORY_RECHECK, PAGE_MAX, STOP_GRACE
from warmpool.errors import AppBrokenError, WarmpoolError
from warmpool.policy import effects as fx
from warmpool.policy import events as ev
from warmpool.policy.broker import Broker
from warmpool.policy.listing import Query
from warmpool.policy.sessions import SessionView
from warmpool.settings import Settings
from warmpool.wire.process_messages import Attach, Cancel, Expire, Relabel, Stop
from warmpool.wire.shapes import Message

PLENTY = 2**40
NOTHING = 0
BLINK = 1e-6
"""Less than a clock can tell: what binary fractions make of a sum."""


@dataclass(eq=False)
class Client:
    """Whoever holds a ticket, and what it has been told."""

    ticket: ev.Ticket
    session: str | None = None
    heard: list[fx.Effect] = field(default_factory=list)
    heard_at: float | None = None
    left: bool = False
    has_opened: bool = False
    """Its session began with it; else it was attached."""

    @property
    def waits(self) -> bool:
        return not self.heard and not self.left

    def _told(self, kind: type) -> fx.Effect:
        (effect,) = self.heard
        assert isinstance(effect, kind), f"{self} was told {effect}"
        return effect

    @property
    def worker(self) -> str:
        """The worker that it was handed to."""
        return self._told(fx.HandOver).worker

    @property
    def attach(self) -> Attach:
        return self._told(fx.HandOver).attach

    @property
    def notice(self) -> str | None:
        return self._told(fx.HandOver).opened.notice

    @property
    def error(self) -> WarmpoolError:
        """The error that it was refused with."""
        return self._told(fx.Refuse).error

    @property
    def view(self) -> SessionView:
        return self._told(fx.Answer).view

    @property
    def report(self) -> dict[str, object]:
        return self._told(fx.Reply).value

    @property
    def described_by(self) -> str:
        """The pool whose template was asked for the functions."""
        return self._told(fx.Describe).pool


@dataclass(eq=False)
class Process:
    """A worker of the world, from the wish for it to its exit."""

    id: str
    pool: str
    row: int
    forked: bool = False
    is_ready: bool = False
    failed: bool = False
    asked: Expire | None = None
    """The question that it has not answered."""
    stop: str | None = None
    """Why it was told to go."""
    cancelled: list[int] = field(default_factory=list)
    labels: dict[str, str] | None = None
    dumped: bool = False
    terminated: bool = False
    killed: bool = False
    leaving: bool = False
    is_dead: bool = False
    """It has died, and nobody has seen it yet."""
    session: str | None = None
    """The one session that it has ever served."""
    serving: Client | None = None
    """The stateless client that it serves now."""
    stateless: bool = False
    """It has served a stateless client."""

    @property
    def is_used(self) -> bool:
        return self.session is not None or self.serving is not None


class Story:
    def __init__(self, *, now: float = 1000.0, **settings: float) -> None:
        self.now = now
        self.settings = Settings(**{"min_free_bytes": 1, **settings})
        self.free_memory = PLENTY
        self.board: dict[int, Activity] = {}
        self.broker = Broker(
            self.settings,
            now=now,
            activity_of=lambda row: self.board.get(row, IDLE),
            free_memory=lambda: self.free_memory,
        )
        self.clients: dict[ev.Ticket, Client] = {}
        self.templates: dict[str, bool] = {}
        """Pools with a live template: whether it has loaded."""
        self.app_of: dict[str, str] = {}
        """The app of each pool that there ever was."""
        self.workers: dict[str, Process] = {}
        self.dead: list[Process] = []
        self.refused: dict[str, float] = {}
        """When there was no room for a worker of a pool."""
        self.starts: list[str] = []
        """The app of each template ever started."""
        self.logs: list[str] = []
        self.forgotten_logs: list[str] = []
        self._failed: list[ev.HandOverFailed] = []
        self.stop_due: float | None = None
        self.exited = False
        self._connections = 0
        self._sessions = 0
        self._pids = 100
        self._calls = 0

    # --- the daemon's part ------------------------------------------------------------------------------------

    def happens(self, event: ev.Event) -> list[fx.Effect]:
        return self._settled(self.broker.handle(event, self.now))

    def wait(self, seconds: float) -> list[fx.Effect]:
        """Time goes by, and the daemon wakes at each deadline."""
        until, effects = self.now + seconds, []
        wakes = 0
        while (deadline := self.broker.next_deadline()) is not None and deadline <= until:
            effects += self.wake()
            wakes += 1
        assert wakes <= 100 + 30 * seconds, "the daemon hardly sleeps"
        self.now = until
        return effects

    def wake(self) -> list[fx.Effect]:
        """Time goes by until the daemon wants to wake."""
        deadline = self.broker.next_deadline()
        if deadline is None:
            return []
        assert deadline > self.now, "the daemon wakes for what it has met already: it spins"
        self.now = deadline
        return self._settled(self.broker.advance(deadline))

    def stall(self, seconds: float) -> list[fx.Effect]:
        """Time goes by while the daemon is stopped: all deadlines that are over are met at once."""
        self.now += seconds
        return self._settled(self.broker.advance(self.now))

    def _settled(self, effects: list[fx.Effect]) -> list[fx.Effect]:
        """What was decided, and what comes of it, is performed."""
        return self._perform(effects + self.broker.settle(self.now))

    def _perform(self, effects: list[fx.Effect]) -> list[fx.Effect]:
        if self.broker.fleet.stopping and self.stop_due is None:
            self.stop_due = self.now + STOP_GRACE + 1
        for effect in effects:
            self._check_and_do(effect)
        self.broker.check()
        while self._failed:
            effects = effects + self.happens(self._failed.pop(0))
        return effects

    def _check_and_do(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Answer() | fx.Reply() | fx.Refuse() | fx.Describe():
                self._tell_client(effect)
            case fx.HandOver():
                self._hand_over(effect)
            case fx.StartTemplate(pool, app_key):
                assert pool not in self.templates, f"{pool} has a template already"
                self.templates[pool] = False
                self.app_of[pool] = app_key
                self.starts.append(app_key)
            case fx.StopTemplate(pool):
                self.templates.pop(pool, None)
            case fx.Fork(pool, _, worker, row, _):
                assert self.templates.get(pool), f"{pool} has no template that could fork"
                assert worker not in self.workers
                assert row not in {w.row for w in self.workers.values()}, "two workers have one row"
                assert 0 <= row < self.settings.max_workers
                assert self.free_memory >= self.settings.min_free_bytes, "a fork while memory is short"
                assert not self.is_refused(pool), "a fork just after one was refused"
                self.workers[worker] = Process(worker, pool, row)
                self.board[row] = IDLE
                assert len(self.workers) <= self.settings.max_workers
            case fx.Tell(worker, message):
                self._tell_worker(self.workers[worker], message)
            case fx.Cancel(worker, row, call_id):
                assert self.workers[worker].row == row
                self.workers[worker].cancelled.append(call_id)
            case fx.DumpStack(worker):
                self.workers[worker].dumped = True
            case fx.Terminate(worker):
                self.workers[worker].terminated = True
            case fx.Kill(worker, _):
                self.workers[worker].killed = True
            case fx.ForgetLog(worker):
                assert worker not in self.forgotten_logs
                self.forgotten_logs.append(worker)
            case fx.Log(text):
                self.logs.append(text)
            case fx.Exit():
                self._exit()

    def _tell_client(self, effect: fx.Answer | fx.Reply | fx.Refuse | fx.Describe | fx.HandOver) -> None:
        client = self.clients[effect.ticket]
        assert not client.heard, f"{client} is told twice: {effect}"
        assert not client.left, f"{client} has left and is told {effect}"
        client.heard.append(effect)
        client.heard_at = self.now

    def _hand_over(self, effect: fx.HandOver) -> None:
        worker, client = self.workers[effect.worker], self.clients[effect.ticket]
        if worker.is_dead:
            self._failed.append(ev.HandOverFailed(effect.worker, effect.request))
            return
        self._tell_client(effect)
        assert worker.is_ready
        assert worker.stop is None, "a worker that is to go gets no more clients"
        assert not worker.failed
        if effect.attach.session_id is None:
            assert worker.session is None, "a stateless call gets the worker of a session"
            assert worker.serving is None, "two stateless clients share a worker"
            worker.serving, worker.stateless = client, True
        else:
            assert not worker.stateless, "a session gets a used worker"
            assert worker.session in (None, effect.attach.session_id), "two sessions share a worker"
            holders = [w for w in [*self.workers.values(), *self.dead] if w.session == effect.attach.session_id]
            assert holders in ([], [worker]), "a session changes its worker"
            client.has_opened = worker.session is None
            worker.session = client.session = effect.attach.session_id

    @staticmethod
    def _tell_worker(worker: Process, message: Message) -> None:
        assert worker.stop is None or isinstance(message, Cancel), f"{worker} was told to stop already"
        match message:
            case Expire():
                assert worker.session is not None
                worker.asked = message
            case Stop(reason):
                worker.stop = reason
            case Cancel(call_id):
                worker.cancelled.append(call_id)
            case Relabel(labels):
                worker.labels = labels
            case _:
                raise AssertionError(f"the broker says {message} to a worker")

    def _exit(self) -> None:
        assert self.broker.fleet.stopping
        if self.workers or self.templates:
            assert self.stop_due is not None
            assert self.now > self.stop_due - 1e-6, "the daemon leaves while there is something left"
        self.exited = True

    # --- clients ----------------------------------------------------------------------------------------------

    def edition(self, app: str, revision: int = 1) -> ev.AppEdition:
        return ev.AppEdition(f"/apps/{app}.py", app, revision)

    def client(self, *, request: int = 0, connection: int | None = None) -> Client:
        """A new ticket, on a new connection unless one is named."""
        if connection is None:
            self._connections += 1
            connection = self._connections
        client = self.clients[(connection, request)] = Client((connection, request))
        return client

    def open(
        self,
        app: str = "counter",
        revision: int = 1,
        *,
        timeout: float = 60.0,
        patience: float = 30.0,
        version: str | None = None,
        stateless: bool = False,
        labels: dict[str, str] | None = None,
        name: str | None = None,
        if_exists: str = "error",
        worker: str | None = None,
        client: Client | None = None,
    ) -> Client:
        """Asks for a new session, or for a stateless worker."""
        client = client or self.client(request=1)
        session_id = None
        if not stateless:
            self._sessions += 1
            session_id = f"s{self._sessions}"
        self.happens(
            ev.OpenRequested(
                client.ticket,
                self.edition(app, revision),
                session_id,
                timeout,
                patience,
                version,
                "/home",
                labels or {},
                name,
                if_exists,
                worker=worker,
            )
        )
        return client

    def stateless(self, app: str = "counter", revision: int = 1, **how: object) -> Client:
        return self.open(app, revision, stateless=True, **how)

    def session(self, app: str = "counter", revision: int = 1, **how: object) -> Client:
        """A session that has been opened, with everybody at rest."""
        client = self.open(app, revision, **how)
        self.rest()
        assert client.session is not None, f"{client} was not served: {self.broker}"
        return client

    def attach(
        self, session: str | None, app: str | None = None, version: str | None = None, client: Client | None = None
    ) -> Client:
        client = client or self.client(request=1)
        key = None if app is None else self.edition(app).key
        self.happens(ev.AttachRequested(client.ticket, str(session), app, key, version))
        return client

    def await_end(self, session: str | None) -> Client:
        client = self.client(request=1)
        self.happens(ev.EndAwaited(client.ticket, str(session)))
        return client

    def look(self, session: str | None) -> SessionView:
        """Raises SESSION_NOT_FOUND."""
        leases = self.broker.leases
        return leases.view(leases.known(str(session), self.now), self.now)

    def keepalive(self, session: str | None) -> Client:
        client = self.client(request=1)
        self.happens(ev.KeepaliveRequested(client.ticket, str(session)))
        return client

    def end(self, session: str | None, *, force: bool = False) -> Client:
        client = self.client(request=1)
        self.happens(ev.EndRequested(client.ticket, str(session), force=force))
        return client

    def cancel(self, session: str | None, call_id: int | None = None, *, force: bool = False) -> Client:
        client = self.client(request=1)
        self.happens(ev.CancelRequested(client.ticket, str(session), call_id, force))
        return client

    def cancel_stateless(self, worker: str, call_id: int) -> Client:
        client = self.client(request=1)
        self.happens(ev.StatelessCancelRequested(client.ticket, worker, call_id))
        return client

    def set_labels(self, session: str | None, labels: dict[str, str] | None = None) -> Client:
        client = self.client(request=1)
        self.happens(ev.LabelsRequested(client.ticket, str(session), labels or {}))
        return client

    def describe(self, app: str = "counter", revision: int = 1, version: str | None = None) -> Client:
        client = self.client(request=1)
        self.happens(ev.DescribeRequested(client.ticket, self.edition(app, revision), version))
        return client

    def warm_up(self, app: str = "counter", revision: int = 1) -> None:
        self.happens(ev.WarmUpRequested(self.edition(app, revision)))

    def leave(self, client: Client) -> list[fx.Effect]:
        """Its connection closes, with all that was asked on it."""
        for other in self.clients.values():
            if other.ticket[0] == client.ticket[0]:
                other.left = True
        return self.happens(ev.ConnectionClosed(client.ticket[0]))

    def abandon(self, client: Client) -> list[fx.Effect]:
        """It does not wait any more for what it asked to be opened; its connection stays."""
        client.left = True
        return self.happens(ev.OpenAbandoned(client.ticket))

    def stop(self) -> list[fx.Effect]:
        return self.happens(ev.StopRequested())

    # --- templates --------------------------------------------------------------------------------------------

    def loading(self, app: str | None = None) -> list[str]:
        """Pools whose template has not said whether it can import the app."""
        return [p for p, loaded in self.templates.items() if not loaded and self._is_of(p, app)]

    def loaded(self, app: str | None = None) -> list[str]:
        return [p for p, loaded in self.templates.items() if loaded and self._is_of(p, app)]

    def _is_of(self, pool: str, app: str | None) -> bool:
        return app is None or self.app_of[pool] == self.edition(app).key

    def loads(
        self,
        pool: str | None = None,
        *,
        app: str | None = None,
        version: str | None = None,
        warm: int | None = None,
        max_workers: int | None = None,
        cancel_grace: float = CANCEL_GRACE,
        max_lifetime: float | None = None,
        threads: tuple[str, ...] = (),
    ) -> str:
        """A template, the only one that is loading unless named, has imported its app."""
        if pool is None:
            (pool,) = self.loading(app)
        assert self.templates[pool] is False
        self.templates[pool] = True
        if version is None:
            version = f"v{self.broker.fleet.editions.pools[pool].revision}"
        self.happens(ev.TemplateLoaded(pool, version, warm, max_workers, cancel_grace, max_lifetime, threads))
        return pool

    def does_not_load(self, pool: str | None = None, *, app: str | None = None, text: str = "bad syntax") -> str:
        """A template could not import its app. It is still there until the daemon stops it."""
        if pool is None:
            (pool,) = self.loading(app)
        assert self.templates[pool] is False
        self.happens(ev.TemplateFailed(pool, broken(text)))
        return pool

    def has_no_room_to_load(self, pool: str | None = None, *, app: str | None = None) -> str:
        """The machine could not make the process of a template."""
        if pool is None:
            (pool,) = self.loading(app)
        assert self.templates[pool] is False
        del self.templates[pool]
        self.refused[pool] = self.now
        self.happens(ev.NoRoomForTemplate(pool, "no process is to be had"))
        return pool

    def template_dies(self, pool: str | None = None, *, app: str | None = None) -> str:
        if pool is None:
            (pool,) = [p for p in self.templates if self._is_of(p, app)]
        del self.templates[pool]
        self.happens(ev.TemplateExited(pool, "was killed by SIGSEGV"))
        return pool

    # --- workers ----------------------------------------------------------------------------------------------

    def unborn(self, app: str | None = None) -> list[str]:
        """Workers that the broker has wished for and that are not ready."""
        return [w.id for w in self.workers.values() if not w.is_ready and not w.failed and self._is_of(w.pool, app)]

    def told_to_stop(self) -> list[str]:
        return [w.id for w in self.workers.values() if w.stop is not None]

    def of_app(self, app: str) -> list[str]:
        return [w.id for w in self.workers.values() if self._is_of(w.pool, app)]

    def imports(self, worker: str, version: str, *, app: str = "counter", revision: int) -> None:
        """A worker that is no fork finds this version, while the app's files are of this revision."""
        self.happens(ev.WorkerLoaded(worker, version, self.edition(app, revision)))

    def forked(self, worker: str) -> None:
        self._pids += 1
        self.workers[worker].forked = True
        self.happens(ev.WorkerForked(worker, self._pids))

    def ready(self, *workers: str) -> None:
        """These workers, or all that are being born, have been forked and set up."""
        for worker in workers or self.unborn():
            process = self.workers[worker]
            if not process.forked:
                self.forked(worker)
            process.is_ready = True
            self.happens(ev.WorkerReady(worker))

    def setup_fails(self, worker: str | None = None, *, text: str = "no model file") -> str:
        """Its setup raised: it says so and exits."""
        if worker is None:
            (worker,) = self.unborn()
        if not self.workers[worker].forked:
            self.forked(worker)
        self.workers[worker].failed = True
        self.happens(ev.WorkerFailed(worker, broken(text)))
        return worker

    def refuse_fork(self, worker: str, *, why: str = "the daemon is out of file descriptors") -> None:
        """The machine has no room for it."""
        process = self.workers.pop(worker)
        self.dead.append(process)
        self.refused[process.pool] = self.now
        self.happens(ev.NoRoomForWorker(worker, why))

    def is_refused(self, pool: str) -> bool:
        """There was no room for a process of it a moment ago."""
        return self.now < self.refused.get(pool, -MEMORY_RECHECK) + MEMORY_RECHECK - BLINK

    def busy(self, worker: str) -> None:
        assert self.workers[worker].asked is not None
        self.workers[worker].asked = None
        self.happens(ev.WorkerBusy(worker))

    def leaves(self, worker: str, reason: str = "idle") -> None:
        """It says goodbye: to Expire, to Stop, or of its own accord."""
        self.workers[worker].leaving = True
        self.happens(ev.WorkerLeaving(worker, reason))

    def dies_unseen(self, worker: str) -> None:
        """It is dead, and the daemon has not noticed: who is handed to it gets no further."""
        self.workers[worker].is_dead = True

    def released(self, client: Client) -> str:
        """A stateless client goes, and its worker is idle."""
        (worker,) = [w for w in self.workers.values() if w.serving is client]
        worker.serving = None
        self.happens(ev.WorkerReleased(worker.id))
        return worker.id

    def exits(self, *workers: str, status: str = "exited with status 0", last_lines: tuple[str, ...] = ()) -> None:
        """These workers, or all that were told to stop, are gone."""
        for worker in workers or self.told_to_stop():
            process = self.workers.pop(worker)
            self.dead.append(process)
            self.happens(ev.WorkerExited(worker, status, last_lines=last_lines))

    def is_alive(self, client: Client) -> bool:
        return client.worker in self.workers

    # --- calls ------------------------------------------------------------------------------------------------

    def begins(self, client: Client) -> int:
        """A call begins, of which nobody but the board is told. Gives its id."""
        row = self.workers[client.worker].row
        started, finished = self.board[row].started, self.board[row].finished
        self._calls += 1
        self.board[row] = Activity(self.now, started + 1, finished, call_id=self._calls)
        return self._calls

    def finishes(self, client: Client) -> None:
        row = self.workers[client.worker].row
        started = self.board[row].started
        assert self.board[row].busy
        self.board[row] = Activity(self.now, started, started, self.board[row].call_id)

    def calls(self, client: Client) -> None:
        """A call that takes no time."""
        self.begins(client)
        self.finishes(client)

    # --- everybody --------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Everybody who owes an answer gives it, as if all were well, until nobody does. Takes no time."""
        for _ in range(1000):
            if not self._somebody_answers():
                return
        raise AssertionError(f"the fleet never comes to rest: {self.broker}")

    def _somebody_answers(self) -> bool:
        if loading := self.loading():
            self.loads(loading[0])
        elif unborn := [w.id for w in self.workers.values() if not w.is_ready and not w.failed and w.stop is None]:
            self.ready(unborn[0])
        elif asked := [w.id for w in self.workers.values() if w.asked and w.stop is None and not w.leaving]:
            self._answers_expire(asked[0])
        elif going := [w.id for w in self.workers.values() if is_going(w)]:
            self.exits(going[0])
        else:
            return False
        return True

    def _answers_expire(self, worker: str) -> None:
        process = self.workers[worker]
        asked = process.asked
        assert asked is not None
        activity = self.board[process.row]
        if activity.busy or activity.started != asked.started:
            self.busy(worker)
        else:
            process.asked = None
            self.leaves(worker, asked.reason)

    def pool(self, app: str = "counter") -> str:
        """The pool that serves an app, or that is to, as its repr tells it."""
        known = self.broker.fleet.editions.apps[self.edition(app).key]
        return repr(known.current or known.candidate)

    def sessions(self, *, over: bool = False) -> list[SessionView]:
        """The open sessions, newest first; with `over` also those that are remembered."""
        leases = self.broker.leases
        page = leases.page(Query(status="all" if over else "active", limit=PAGE_MAX), self.now)
        assert page.before is None
        return [leases.view(session, self.now) for session in page.sessions]

    def state(self, worker: str) -> str:
        return self.broker.fleet.workers[worker].state.value


def is_going(worker: Process) -> bool:
    return worker.stop is not None or worker.leaving or worker.killed or worker.is_dead


def broken(text: str) -> dict[str, object]:
    """APP_BROKEN in its wire form, as a template or worker sends it."""
    details = {"type": "RuntimeError", "message": text, "traceback": f"app.py, line 1\nRuntimeError: {text}"}
    return AppBrokenError(f"app is broken: {text}", details=details).to_wire()


def kinds(effects: Iterable[fx.Effect]) -> list[str]:
    """What was wished for, in short; lines for people aside."""
    return [type(effect).__name__ for effect in effects if not isinstance(effect, fx.Log)]
