"""An app of one's own, tested through sessions as its users hold them."""

from __future__ import annotations

import pytest

from warmpool import InvalidInputError, SessionExpiredError


@pytest.fixture
def chat(warmpool_session):
    return warmpool_session("chat_memory", session_timeout=3600)


def say(chat, message: str) -> str:
    return chat.call("say", message=message)["response"]


def test_it_remembers(chat):
    say(chat, "My name is Ada.")
    assert say(chat, "What is my name?") == "Your name is Ada."


def test_two_conversations_know_nothing_of_each_other(chat, warmpool_session):
    say(chat, "My name is Ada.")
    other = warmpool_session("chat_memory")
    assert say(other, "What is my name?") == "You have not told me about your name."


def test_a_conversation_of_many_hours(warmpool, chat):
    warmpool.clock.freeze()
    say(chat, "My name is Ada.")
    for _ in range(3):
        warmpool.clock.advance(3599)
        chat.keepalive()
    assert say(chat, "What is my name?") == "Your name is Ada."
    warmpool.clock.advance(3600)
    with pytest.raises(SessionExpiredError):
        say(chat, "What is my name?")


def test_a_message_without_words_is_refused_and_the_conversation_goes_on(chat):
    with pytest.raises(InvalidInputError):
        say(chat, "")
    assert chat.call("say", message="Hello")["turn"] == 1


def test_each_test_begins_with_a_memory_of_its_own_that_was_made_once(warmpool_session):
    chat = warmpool_session("chat_memory", primed=True)
    assert chat.call("history")["turn"] == 0
