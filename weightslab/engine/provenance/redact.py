"""Redaction: text and command lines without secrets, home paths, user names and host names. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.provenance.secrets import (
    is_secret_name,
    looks_random,
    redact_assignments,
    redact_forms,
    redact_key_blocks,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MARK", "Redactor"]

MARK: Final = "<redacted>"
HOME: Final = "~"
USER: Final = "<user>"
HOST: Final = "<host>"
# The homes of other systems, too: a diff or a config may have been written elsewhere.
_HOMES: Final = re.compile(
    r"(?:(?<![\w~.])(?:[A-Za-z]:|/mnt/[a-z]|/cygdrive/[a-z]|/[a-z])?(?:\\\\|\\|/)Users(?:\\\\|\\|/)"
    r"|(?<![\w~])(?:/var|/export|/usr|/net|/nfs|/data|/mnt|/gpfs|/lustre|/private/var)?/home/)"
    r"(?!(?:Shared|Public|Default)\b)[^\s/\\:\"'<>|,;)\]}]+"
    r"|(?<![\w~/.])/(?:private/)?var/root(?![\w-])|(?:(?<![\w~/.])|(?<=://))/root(?![\w.-])"
)
_HOME_WORDS: Final = ("home", "Users", "root")
_COMMON: Final = frozenset(
    {
        "admin", "azureuser", "build", "centos", "colab", "daemon", "debian", "docker", "ec2-user",
        "fedora", "gitlab", "guest", "home", "jenkins", "jovyan", "kaggle", "local", "localhost",
        "nobody", "opc", "root", "runner", "test", "tests", "ubuntu", "user", "users", "vagrant",
    }
)  # fmt: skip
_LEAST_NAME: Final = 3
_PLAIN_NAME: Final = 6  # characters from which a name is taken away wherever it stands as a word
_LEAST_LITERAL: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Redactor:
    """Takes out of text what must not be kept, and counts it.

    Attributes:
        homes: home folders of this machine; each becomes `~`.
        users: names of people. One of 6 characters and more goes wherever it stands as a word, a
            shorter one, which may be a word of a program (`max`), in paths, addresses and `user=`.
        hosts: names of this machine.
        literals: values known to be secret, e.g. of the environment.
    """

    homes: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    literals: tuple[str, ...] = field(default=(), repr=False)

    def text(self, text: str) -> tuple[str, int]:
        """Return `text` without them, and how many were taken out. Idempotent."""
        count = 0
        for literal in sorted(self.literals, key=len, reverse=True):
            if len(literal) >= _LEAST_LITERAL and literal in text:
                count += text.count(literal)
                text = text.replace(literal, MARK)
        for take_out in (redact_key_blocks, redact_forms, redact_assignments):
            text, n = take_out(text, MARK)
            count += n
        for start, end in reversed(looks_random(text)):
            text = text[:start] + MARK + text[end:]
            count += 1
        return self._people(text, count)

    def _people(self, text: str, count: int) -> tuple[str, int]:
        """Replace homes and names."""
        for home in sorted((h for h in self.homes if len(h) > 1), key=len, reverse=True):
            for form in {home, home.replace("\\", "\\\\"), home.replace("\\", "/")}:
                text, n = re.subn(rf"{re.escape(form)}(?![\w-])", HOME, text)
                count += n
        if any(word in text for word in _HOME_WORDS):
            lines = text.split("\n")
            for at, line in enumerate(lines):
                if any(word in line for word in _HOME_WORDS):
                    lines[at], n = _HOMES.subn(HOME, line)
                    count += n
            text = "\n".join(lines)
        for name, mark in [*((u, USER) for u in self.users), *((h, HOST) for h in self.hosts)]:
            if len(name) < _LEAST_NAME or name.lower() in _COMMON:
                continue
            text, n = re.subn(_name_pattern(name), mark, text)
            count += n
        return text, count

    def arguments(self, arguments: Sequence[str]) -> tuple[tuple[str, ...], int]:
        """Return a command line without them; the value after `--api-key` goes whatever it is."""
        found: list[str] = []
        count, is_value = 0, False
        for argument in arguments:
            if is_value and not _is_option(argument):
                found.append(MARK)
                count += argument != MARK
                is_value = False
                continue
            name, equals, value = argument.partition("=")
            is_value = _is_option(argument) and not equals and is_secret_name(name)
            if equals and value and is_secret_name(name):
                found.append(f"{name}={MARK}")
                count += value != MARK
            else:
                shown, n = self.text(argument)
                found.append(shown)
                count += n
        return tuple(found), count

    def document(self, value: Any) -> tuple[Any, int]:
        """Return plain JSON of which every text, keys too, went through `text`."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            pairs = [(self.document(str(k)), self._member(str(k), v)) for k, v in value.items()]
            return {k[0]: v[0] for k, v in pairs}, sum(k[1] + v[1] for k, v in pairs)
        if isinstance(value, (list, tuple)):
            return _sum_up(self.document(v) for v in value)
        return value, 0

    def _member(self, key: str, value: Any) -> tuple[Any, int]:
        if isinstance(value, str) and value and value != MARK and is_secret_name(key):
            return MARK, 1
        return self.document(value)


def _sum_up(parts: Iterable[tuple[Any, int]]) -> tuple[list[Any], int]:
    found = list(parts)
    return [value for value, _ in found], sum(count for _, count in found)


def _is_option(argument: str) -> bool:
    return argument.startswith("-") and len(argument) > 1 and not argument[1:2].isdigit()


def _name_pattern(name: str) -> str:
    word = re.escape(name)
    if len(name) >= _PLAIN_NAME:
        return rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])"
    return (
        rf"(?<=[/\\]){word}(?=[/\\:\s\"']|\Z)|(?<![\w.]){word}(?=@)|\A{word}(?=[/-]|\Z)|(?<=~){word}(?![\w-])"
        rf"|(?<=[uU]ser=){word}(?!\w)|(?<=USER=){word}(?!\w)|(?<=[uU]ser[nN]ame=){word}(?!\w)"
    )
