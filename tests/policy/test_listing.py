"""Lists of sessions: what matches, and pages that stay where they are while others come and go."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from policy.story import Story

from warmpool.constants import RECORDS_AGE
from warmpool.policy.listing import Query, page
from warmpool.policy.sessions import Session

APPS = ("counter", "chat")
STATUSES = ("active", "ended", "expired")


def a_session(
    serial: int,
    *,
    app: str = "counter",
    status: str = "active",
    name: str | None = None,
    labels: dict[str, str] | None = None,
) -> Session:
    return Session(
        f"s{serial}", f"/apps/{app}.py", app, "v1", "w_1", 0, 1, 60.0, 1000.0, "/home", labels or {},
        serial=serial, name=name, end_reason={"expired": "idle", "ended": "client"}.get(status),
    )  # fmt: skip


labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)
names = st.none() | st.sampled_from(["vision", "vision/resnet50", "text", "v"])
sessions = st.lists(
    st.builds(
        lambda app, status, name, labels: (app, status, name, labels),
        st.sampled_from(APPS), st.sampled_from(STATUSES), names, labels,
    ),
    max_size=40,
).map(lambda made: [
    a_session(serial, app=app, status=status, name=name, labels=labels)
    for serial, (app, status, name, labels) in enumerate(made, 1)
])  # fmt: skip
queries = st.builds(
    Query,
    app=st.sampled_from([None, *APPS]),
    app_key=st.sampled_from([None, None, "/apps/chat.py"]),
    version=st.sampled_from([None, None, "v1", "v2"]),
    status=st.sampled_from(["all", *STATUSES]),
    labels=labels,
    name_prefix=st.none() | st.sampled_from(["v", "vision/", "nobody"]),
    limit=st.integers(1, 7),
)


def matches(query: Query, session: Session) -> bool:
    """As a user would say it."""
    return (
        query.app in (None, session.app)
        and query.app_key in (None, session.app_key)
        and query.version in (None, session.version)
        and query.status in ("all", session.status)
        and all(session.labels.get(key) == value for key, value in query.labels.items())
        and (query.name_prefix is None or (session.name is not None and session.name.startswith(query.name_prefix)))
    )


@given(sessions, queries, st.randoms(use_true_random=False))
def test_the_pages_together_are_what_matches_newest_first(made, query, chance):
    wanted = [session for session in reversed(made) if matches(query, session)]
    shuffled = chance.sample(made, len(made))
    found: list[Session] = []
    while True:
        part = page(query, shuffled)
        assert part.total == len(wanted)
        assert len(part.sessions) <= query.limit
        found += part.sessions
        if part.before is None:
            break
        assert part.sessions, "an empty page is the last"
        query = replace(query, before=part.before)
    assert found == wanted


@settings(max_examples=40)
@given(st.data())
def test_a_page_stays_where_it_is_while_sessions_are_opened_and_ended(data):
    """Whoever was there from the first page to the last is seen once; nobody is seen twice."""
    story = Story(max_workers=40, warm=0)
    opened = [str(story.session(timeout=3600).session) for _ in range(data.draw(st.integers(0, 12)))]
    stayed, seen = set(opened), list[str]()
    query = Query(limit=data.draw(st.integers(1, 4)))
    while True:
        part = story.broker.leases.page(query, story.now)
        assert part.total == len(story.sessions())
        seen += [session.id for session in part.sessions]
        if part.before is None:
            break
        query = replace(query, before=part.before)
        for _ in range(data.draw(st.integers(0, 3))):
            story.session(timeout=3600)
        going = data.draw(st.sets(st.sampled_from(sorted(stayed)), max_size=3)) if stayed else set()
        for session in sorted(going):
            story.end(session)
        stayed -= going
        story.rest()
    assert len(seen) == len(set(seen))
    assert set(seen) <= set(opened), "what is opened meanwhile is newer than the first page"
    assert stayed <= set(seen)
    assert seen == sorted(seen, key=opened.index, reverse=True)


def test_those_that_are_over_are_found_by_how_they_ended_until_they_are_forgotten():
    story = Story()
    ended, expired, living = story.session(), story.session(timeout=60), story.session(timeout=3600)
    story.end(ended.session)
    story.rest()
    story.wait(60)
    story.rest()

    def found(**how: str) -> list[str]:
        return [session.id for session in story.broker.leases.page(Query(**how), story.now).sessions]

    assert found() == [living.session]
    assert found(status="ended") == [ended.session]
    assert found(status="expired") == [expired.session]
    assert found(status="all") == [living.session, expired.session, ended.session]
    story.calls(living)
    for _ in range(24):
        story.wait(RECORDS_AGE / 24)
        story.calls(living)
    assert found(status="all") == [living.session]


def test_one_whose_worker_still_runs_its_hooks_is_over_already():
    story = Story()
    client = story.session()
    story.end(client.session)
    assert story.broker.leases.page(Query(), story.now).total == 0
    assert story.broker.leases.page(Query(status="ended"), story.now).total == 1
