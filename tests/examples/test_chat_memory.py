import asyncio

import pytest

from warmpool.errors import InvalidInputError
from warmpool.signatures import functions_of, select


class Conversation:
    """A session with the app: it calls as a worker does, inside of one event loop that outlives the calls."""

    def __init__(self, app, loop):
        self.app, self.functions, self.loop = app, functions_of(type(app)), loop
        app.setup()

    def call(self, name, **value):
        function, value = select(self.functions, "chat", name, value)
        return function.encode(self.loop.run(function.method(self.app, *function.decode(value))))

    def say(self, message):
        return self.call("say", message=message)["response"]

    def wait_until_condensed(self):
        async def wait():
            await self.app.condensing

        self.loop.run(wait())


@pytest.fixture
def chat(load_app):
    with asyncio.Runner() as loop:
        yield Conversation(load_app("chat_memory").ChatMemory(), loop)


def test_what_was_said_in_one_call_is_known_in_the_next(chat):
    assert chat.say("My name is Ada.") == "Your name is Ada. I see."
    assert chat.say("Nice weather today!") == "Tell me more."
    assert chat.say("What is my name?") == "Your name is Ada."


@pytest.mark.parametrize("question", ["what is my name", "What's my name?", "WHO IS MY NAME?", "What is my Name?!"])
def test_a_question_may_be_put_in_many_ways(chat, question):
    chat.say("Well, my name is Ada")
    assert "Ada" in chat.say(question)


def test_what_was_never_said_is_not_known(chat):
    assert chat.say("What is my name?") == "You have not told me about your name."


def test_a_fact_can_change_and_the_change_is_noticed(chat):
    chat.say("My city is Paris.")
    assert chat.say("My city is Paris.") == "Your city is Paris. I see."
    assert chat.say("My city is London.") == "Your city is London, no longer Paris."
    assert chat.say("Where is my city?") == "Your city is London."


def test_a_fact_may_be_plural_and_of_several_words(chat):
    chat.say("My favourite colours are red and blue")
    assert chat.say("What are my favourite colours?") == "Your favourite colours are red and blue."


def test_words_are_mirrored(chat):
    assert chat.say("My dog is my best friend.") == "Your dog is your best friend. I see."
    assert chat.say("I need you to help me with my exam") == "Why do you need me to help you with your exam?"


def test_each_sentence_gets_its_answer(chat):
    assert chat.say("Hello! My name is Ada. What is my name?") == (
        "Hello, stranger. Your name is Ada. I see. Your name is Ada."
    )


def test_a_dot_inside_a_word_ends_no_sentence(chat):
    chat.say("My version is 3.11.")
    assert chat.say("What is my version?") == "Your version is 3.11."


def test_who_is_known_is_greeted_by_name(chat):
    assert chat.say("Hello") == "Hello, stranger."
    chat.say("My name is Ada")
    assert chat.say("hi there") == "Hello, Ada."


def test_turns_are_counted(chat):
    assert [chat.call("say", message="Hm")["turn"] for _ in range(3)] == [1, 2, 3]
    assert chat.call("say", message="How many turns was that?") == {"response": "This is turn 4.", "turn": 4}


def test_topics_are_remembered(chat):
    assert chat.say("What did we talk about?") == "We spoke of nothing yet."
    chat.say("Sailing is about wind")
    chat.say("Storms, and more storms")
    assert chat.say("What did we talk about?") == "We spoke of storms, sailing."
    assert chat.say("Fish") in ("What has that to do with storms?", "What has that to do with sailing?")


@pytest.mark.parametrize("message", ["???", " ", "\n", "...", "ä", "🙂", "(", "\\"])
def test_any_message_has_an_answer(chat, message):
    assert chat.say(message) == "Tell me more."


def test_the_same_conversation_gets_the_same_answers(load_app):
    messages = ["Hi", "My cat is Tom", "I love sailing", "Wind", "Waves and water", "What did we talk about?"]
    runs = []
    for _ in range(2):
        with asyncio.Runner() as loop:
            chat = Conversation(load_app("chat_memory").ChatMemory(), loop)
            runs.append([chat.say(message) for message in messages])
    assert runs[0] == runs[1]


def test_a_call_without_a_function_says_something(chat):
    assert chat.call(None, message="My name is Ada") == {"response": "Your name is Ada. I see.", "turn": 1}
    assert chat.call("run", message="What is my name?") == {"response": "Your name is Ada.", "turn": 2}
    assert chat.call("say", message="What is my name?")["turn"] == 3


def test_init_sets_who_answers_and_starts_over(chat):
    chat.say("My name is Ada")
    assert chat.call("init", system="You are a helpful assistant.", max_history=5) == {
        "system": "You are a helpful assistant.",
        "max_history": 5,
    }
    assert chat.say("Who are you?") == "I am a helpful assistant."
    assert chat.say("What is my name?") == "You have not told me about your name."


def test_init_has_defaults(chat):
    assert chat.call("init") == {"system": "I listen, and I remember.", "max_history": 20}
    assert chat.say("Who are you?") == "I listen, and I remember."


def test_history_tells_everything(chat):
    chat.say("My boat is the Beagle.")
    assert chat.call("history") == {
        "turn": 1,
        "turns": [{"message": "My boat is the Beagle.", "response": "Your boat is the Beagle. I see."}],
        "topics": ["beagle"],
        "facts": {"boat": "the Beagle"},
    }


def test_turns_beyond_the_limit_are_condensed_to_their_topics(chat):
    chat.call("init", max_history=2)
    for message in ("Sailing", "Sailing again", "Fishing", "Diving"):
        chat.say(message)
        chat.wait_until_condensed()
    history = chat.call("history")
    assert [turn["message"] for turn in history["turns"]] == ["Fishing", "Diving"]
    assert history["topics"] == ["sailing", "again", "fishing", "diving"]
    assert history["turn"] == 4


def test_condensing_happens_after_the_reply_and_forgets_no_fact(chat, monkeypatch):
    chat.call("init", max_history=1)
    chat.say("My name is Ada")
    chat.wait_until_condensed()

    async def say_and_look():
        await chat.app.say(chat.functions["say"].input_model(message="Rain"))
        return len(chat.app.memory.turns)

    assert chat.loop.run(say_and_look()) == 2  # the reply is there, the background task has yet to run
    chat.wait_until_condensed()
    assert len(chat.app.memory.turns) == 1
    assert chat.say("What is my name?") == "Your name is Ada."


def test_condensing_lets_other_calls_in_between(chat, load_app):
    memory = load_app("chat_memory").Memory(max_history=1)
    memory.turns.extend({"message": f"word{'abcde'[n]}", "response": ""} for n in range(5))

    async def watch():
        task, lengths = asyncio.create_task(memory.condense()), []
        while not task.done():
            lengths.append(len(memory.turns))
            await asyncio.sleep(0)
        return lengths

    assert chat.loop.run(watch()) == [5, 4, 3, 2, 1]


def test_one_fact_can_be_forgotten(chat):
    chat.say("My name is Ada. My city is London.")
    assert chat.call("forget", thing="Name") == {"forgotten": ["Name"]}
    assert chat.call("forget", thing="Name") == {"forgotten": []}
    assert chat.say("What is my name?") == "You have not told me about your name."
    assert chat.say("What is my city?") == "Your city is London."


def test_all_can_be_forgotten_except_who_answers(chat):
    chat.call("init", system="You are a lighthouse.", max_history=3)
    chat.say("My name is Ada. My city is London.")
    assert chat.call("forget") == {"forgotten": ["name", "city"]}
    assert chat.call("history") == {"turn": 0, "turns": [], "topics": [], "facts": {}}
    assert chat.say("Who are you?") == "I am a lighthouse."
    assert chat.app.memory.max_history == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("say", {}),
        ("say", {"message": ""}),
        ("say", {"message": 7}),
        ("init", {"max_history": 0}),
        ("init", {"sytem": ""}),
    ],
)
def test_an_input_that_makes_no_sense_is_refused(chat, name, value):
    with pytest.raises(InvalidInputError):
        chat.call(name, **value)


def test_two_conversations_share_nothing(load_app):
    with asyncio.Runner() as loop:
        one, other = (Conversation(load_app("chat_memory").ChatMemory(), loop) for _ in range(2))
        one.say("My name is Ada")
        assert other.say("What is my name?") == "You have not told me about your name."


def test_all_functions_are_async(chat):
    assert {name: function.is_async for name, function in chat.functions.items()} == dict.fromkeys(
        ["init", "say", "run", "history", "forget"], True
    )
