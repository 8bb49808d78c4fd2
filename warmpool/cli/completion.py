"""`warmpool completion bash|zsh|fish`: a script made from the tree of parsers, so it can never know less than they do.

What is completed is words: commands, options and choices. Everything else is left to the shell, which offers files.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from .parser import make_parser


class Place(NamedTuple):
    """A command, or a group of them."""

    path: tuple[str, ...]
    commands: dict[str, str]
    """With what they do."""
    options: dict[str, str]
    choices: dict[str, tuple[str, ...]]
    """What may follow an option; under "" what may follow the command itself."""


def completion(options: argparse.Namespace) -> None:
    places = list(_places(make_parser(), ()))
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[options.shell](places))


def _places(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[Place]:
    commands: dict[str, str] = {}
    options: dict[str, str] = {}
    choices: dict[str, tuple[str, ...]] = {}
    children: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            children = action.choices
            commands = {one.dest: one.help or "" for one in action._choices_actions}
            continue
        options |= dict.fromkeys(action.option_strings, (action.help or "").replace("%%", "%"))
        if action.choices is not None:
            choices |= dict.fromkeys(action.option_strings or [""], tuple(map(str, action.choices)))
    yield Place(path, commands, options, choices)
    for name, child in children.items():
        yield from _places(child, (*path, name))


def _bash(places: list[Place]) -> str:
    descend = "|".join(shlex.quote(" ".join(place.path)) for place in places if place.path)
    values, words = [], []
    for place in places:
        path = " ".join(place.path)
        all_words = [*place.commands, *place.choices.get("", ()), *place.options]
        words.append(f"            {shlex.quote(path)}) words={shlex.quote(' '.join(all_words))} ;;")
        values += [
            f"        {shlex.quote(f'{path} {option}')}) words={shlex.quote(' '.join(choices))} ;;"
            for option, choices in place.choices.items()
            if option
        ]
    return _BASH.format(descend=descend, values="\n".join(values), words="\n".join(words))


_BASH = """\
# eval "$(warmpool completion bash)"
_warmpool() {{
    local IFS=$' \t\n' cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" path="" word words=""
    for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD-1))}}"; do
        case "${{path:+$path }}$word" in
            {descend}) path="${{path:+$path }}$word" ;;
        esac
    done
    case "$path $prev" in
{values}
        *) case "$path" in
{words}
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _warmpool warmpool"""


def _zsh(places: list[Place]) -> str:
    head = """\
# eval "$(warmpool completion zsh)"
(( $+functions[compdef] )) || { autoload -U compinit && compinit }
autoload -U +X bashcompinit && bashcompinit"""
    return f"{head}\n{_bash(places).partition(chr(10))[2]}"


def _fish(places: list[Place]) -> str:
    lines = ["# warmpool completion fish | source"]
    for place in places:
        seen = [f"__fish_seen_subcommand_from {name}" for name in place.path]
        unseen = [f"not __fish_seen_subcommand_from {' '.join(place.commands)}"] if place.commands else []
        condition = shlex.quote("; and ".join([*seen, *unseen]) or "true")
        head = f"complete -c warmpool -n {condition}"
        lines += [f"{head} -f -a {name} -d {shlex.quote(help)}" for name, help in place.commands.items()]
        if "" in place.choices:
            lines.append(f"{head} -f -a {shlex.quote(' '.join(place.choices['']))}")
        for option, help in place.options.items():
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            values = f" -x -a {shlex.quote(' '.join(place.choices[option]))}" if option in place.choices else ""
            lines.append(f"{head} {flag}{values} -d {shlex.quote(help)}")
    return "\n".join(lines)
