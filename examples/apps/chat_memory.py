"""A conversation with memory: what you say in one call is known in the next.

warmpool run examples/apps/chat_memory.py --session new --input '{"message": "My name is Ada."}'

Then ask "What is my name?" in the same session. Where others call a language model, this one has rules: a
pattern of words, and what to answer. Its functions are `async def`, so the worker's event loop runs on
between calls: turns that no longer fit into `max_history` are boiled down to topics while nobody waits.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from warmpool import BaseApp, BaseAppInput, BaseAppOutput


class SayInput(BaseAppInput):
    message: str = Field(min_length=1)


class SayOutput(BaseAppOutput):
    response: str
    turn: int


@dataclass
class Memory:
    """What one conversation knows. Recent turns are kept in full, older ones as counts of their topics."""

    system: str = "I listen, and I remember."
    max_history: int = 20
    turn: int = 0
    turns: deque[dict[str, str]] = field(default_factory=deque)
    older: Counter[str] = field(default_factory=Counter)
    facts: dict[str, str] = field(default_factory=dict)

    def topics(self) -> list[str]:
        """The most frequent first; of equals, the one that came up first."""
        recent = Counter(topic for turn in self.turns for topic in topics_of(turn["message"]))
        return [topic for topic, _ in (self.older + recent).most_common()]

    async def condense(self) -> None:
        """Boils down the turns beyond `max_history`. For each, a language model would be awaited here."""
        while len(self.turns) > self.max_history:
            self.older.update(topics_of(self.turns.popleft()["message"]))
            await asyncio.sleep(0)


class ChatMemory(BaseApp):
    def setup(self) -> None:
        self.memory = Memory()
        self.condensing: asyncio.Task[None] | None = None

    async def init(
        self, system: str = Memory.system, max_history: Annotated[int, Field(ge=1)] = Memory.max_history
    ) -> dict[str, Any]:
        """Starts over. `system` says who answers, `max_history` how many turns are kept in full."""
        self.memory = Memory(system, max_history)
        return {"system": system, "max_history": max_history}

    async def say(self, input: SayInput) -> SayOutput:
        """One turn of the conversation."""
        memory = self.memory
        memory.turn += 1
        response = respond(memory, input.message)
        memory.turns.append({"message": input.message, "response": response})
        if self.condensing is None or self.condensing.done():
            self.condensing = asyncio.create_task(memory.condense())
        return SayOutput(response=response, turn=memory.turn)

    run = say  # what is meant by a call that names no function

    async def history(self) -> dict[str, Any]:
        """All that is remembered."""
        now = self.memory
        return {"turn": now.turn, "turns": [*now.turns], "topics": now.topics(), "facts": {**now.facts}}

    async def forget(self, thing: str | None = None) -> dict[str, list[str]]:
        """Forgets one fact; without `thing`, the whole conversation. → the facts that are gone."""
        facts = self.memory.facts
        if thing is not None:
            return {"forgotten": [thing] if facts.pop(thing.lower(), None) else []}
        self.memory = Memory(self.memory.system, self.memory.max_history)
        return {"forgotten": [*facts]}


# The language: each sentence is answered by the first rule that it matches.

Reply = Callable[..., str]
RULES: dict[re.Pattern[str], Reply] = {}
MIRROR = {"i": "you", "me": "you", "my": "your", "am": "are", "you": "me", "your": "my"}
COMMON = {"about", "could", "hello", "messages", "there", "these", "think", "where", "which", "would"}


def hears(pattern: str) -> Callable[[Reply], Reply]:
    """Makes a rule of a function, which is given the memory and the groups of the pattern."""
    return lambda reply: RULES.setdefault(re.compile(pattern, re.IGNORECASE), reply)


def respond(memory: Memory, message: str) -> str:
    replies = []
    for sentence in re.split(r"[.!?]\s+", message.strip(" .!?")):
        match, reply = next((match, RULES[rule]) for rule in RULES if (match := rule.search(sentence)))
        replies.append(reply(memory, *match.groups()))
    return " ".join(replies)


def topics_of(message: str) -> list[str]:
    """Its long words."""
    return [word for word in re.findall(r"[^\W\d_]{5,}", message.lower()) if word not in COMMON]


def mirror(words: str) -> str:
    """Said back to the speaker: "my dog" is "your dog"."""
    return " ".join(MIRROR.get(word.lower(), word) for word in words.split())


@hears(r"^(?:what|who|where)(?: (is|are)|'s) my (.+)")
def recall(memory: Memory, verb: str | None, thing: str) -> str:
    value = memory.facts.get(thing.lower())
    return f"Your {thing} {verb or 'is'} {value}." if value else f"You have not told me about your {thing}."


@hears(r"\bmy (.+?) (is|are) (.+)")
def learn(memory: Memory, thing: str, verb: str, value: str) -> str:
    before, now = memory.facts.get(thing.lower()), mirror(value)
    memory.facts[thing.lower()] = now
    return f"Your {thing} {verb} {now}" + (". I see." if before in (None, now) else f", no longer {before}.")


@hears(r"^what (?:did|have|were) we")
def recapitulate(memory: Memory) -> str:
    return f"We spoke of {', '.join(memory.topics()[:5]) or 'nothing yet'}."


@hears(r"^how many (?:turns|messages)")
def count(memory: Memory) -> str:
    return f"This is turn {memory.turn}."


@hears(r"^who are you")
def introduce(memory: Memory) -> str:
    return re.sub(r"\byou are\b", "I am", memory.system, flags=re.IGNORECASE)


@hears(r"^(?:hello|hi)\b")
def greet(memory: Memory) -> str:
    return f"Hello, {memory.facts.get('name', 'stranger')}."


@hears(r"\bi (feel|hate|like|love|need|want) (.+)")
def wonder(memory: Memory, verb: str, what: str) -> str:
    return f"Why do you {verb} {mirror(what)}?"


@hears(r"")
def lead_on(memory: Memory) -> str:
    topics = memory.topics()
    return f"What has that to do with {topics[memory.turn % len(topics)]}?" if topics else "Tell me more."
