"""Secrets: the patterns by which text that must not be kept is recognised. Pure.

What is known by its form (tokens of services, keys in blocks, URLs that carry a password), what is known
by the name it is assigned to (`password=...`, `"api_key": "..."`), and what looks like nothing but a random
key. Rather one word too many than one too few: what is taken away is counted and told.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Final

__all__ = [
    "is_secret_name",
    "looks_random",
    "redact_assignments",
    "redact_forms",
    "redact_key_blocks",
]

# Forms that services publish for secret scanners (docs.github.com "supported secret scanning
# patterns", gitleaks' default rules); lower bounds are below the real lengths, as people cut examples.
# Each begins with literal text, which is looked for first: 20 times faster than all of them at once.
_FORMS: Final = tuple(
    (start, re.compile(rf"(?<![A-Za-z0-9]){re.escape(start)}{rest}"))
    for starts, rest in (
        ("ghp_ gho_ ghu_ ghs_ ghr_", r"[A-Za-z0-9]{16,}"),
        ("github_pat_", r"\w{16,}"),
        ("glpat- glptt- gldt- glrt- glcbt- glft- glsoat- glagent- glimt- gloas-", r"[\w-]{16,}"),
        ("AKIA ASIA ABIA ACCA AROA AIDA AGPA ANPA", r"[A-Z0-9]{12,}"),
        ("sk-", r"[\w-]{16,}"),  # OpenAI, Anthropic, OpenRouter and their like
        ("sk_live_ sk_test_ rk_live_ rk_test_ pk_live_ pk_test_", r"\w{8,}"),
        ("whsec_ lin_api_", r"\w{16,}"),
        ("xoxa- xoxb- xoxe- xoxe. xoxo- xoxp- xoxr- xoxs- xapp-", r"[\w.-]{8,}"),
        (
            "hooks.slack.com/services/ hooks.slack.com/workflows/ discord.com/api/webhooks/",
            r"[\w/-]+",
        ),
        ("hf_ api_org_", r"[A-Za-z0-9]{16,}"),
        ("eyJ", r"[\w-]{6,}\.[\w-]{4,}(?:\.[\w-]*)*"),  # JWT
        ("AIza", r"[\w-]{20,}"),
        ("ya29. GOCSPX- pypi- dckr_pat_ nvapi- hvs. hvb. hvr.", r"[\w-]{16,}"),
        ("npm_ r8_ gsk_", r"[A-Za-z0-9]{20,}"),
        ("SG.", r"[\w-]{10,}\.[\w-]{10,}"),
        ("dop_v1_ dor_v1_ doo_v1_ dapi", r"[0-9a-f]{32,}"),
        ("wandb_v1_ local-", r"\w{32,}"),
        ("AGE-SECRET-KEY-1", r"[0-9A-Z]{20,}"),
        ("Bearer bearer BEARER", r"\s+[\w.~+/-]{12,}=*"),
    )
    for start in starts.split()
)
# user:password@, or a token alone before the @; `ssh://git@` is no secret
_LOGIN: Final = re.compile(
    r"""(?<=://)(?:[^\s/?#"'<>@:]*:(?:[^\s"'<>]|<redacted>)+|(?!git@)[^\s/?#"'<>@:]{2,})(?=@)"""
)
_QUERY: Final = re.compile(
    r"""[?&][\w.-]*(?:token|key|sig|signature|secret|password|passwd|auth|credential)[\w.-]*=([^&\s"'<>#]+)""",
    re.IGNORECASE,
)
_TELEGRAM: Final = re.compile(r"(?<!\d)\d{8,10}:AA[\w-]{30,}")
_WORD: Final = (
    r"passwords?|passwd|pass|passphrase|pwd|secrets?|api[_-]?keys?|apikeys?|access[_-]?keys?"
    r"|secret[_-]?keys?|private[_-]?keys?|account[_-]?keys?|auth[_-]?keys?|encryption[_-]?keys?"
    r"|credentials?|authorization|client[_-]?secret|signature|sig"
)
_STRICT_NAME: Final = re.compile(
    rf"(?:[\w.-]*[_.-])?(?:{_WORD})(?:[_-]?(?:id|value|text|string|b64|base64|v\d))?", re.IGNORECASE
)
_TOKEN_NAME: Final = re.compile(r"(?:[\w.-]*[_.-])?(?:token|pat|auth)", re.IGNORECASE)
_CAMEL_NAME: Final = re.compile(
    r"\w*(?:[Pp]assword|[Pp]assphrase|[Ss]ecret|[Aa]piKey|APIKey|[Aa]ccessKey|[Pp]rivateKey|[Aa]ccountKey"
    r"|(?:access|auth|refresh|bearer|api|Access|Auth|Refresh|Bearer|Api)Token)"
)
# name, then `=`, `:`, `=>` or `:=`, then a quoted or a bare value; the quotes may be escaped
_ASSIGNED: Final = re.compile(
    r"""(?<![\w.-])(?P<name>[A-Za-z_][\w.-]*)(?P<between>\\*["']?[^\S\n]*(?:=>|:=|=|:)[^\S\n]*)(?P<scheme>(?:[Bb]earer|[Bb]asic|[Tt]oken)\s+)?"""
    r"""(?P<value>[rbfu]*\\*"(?:[^"\\\n]|\\[^\n])*\\*"?|[rbfu]*\\*'(?:[^'\\\n]|\\[^\n])*\\*'?|[^\s,;&)\]}"']+)"""
)
_CODE: Final = re.compile(
    r"(?:None|True|False|null|nil|true|false|str|int|bytes|Any|Optional|Union|Literal|self|cls|args|cfg|config)\b(?![\w-])"
    r"|[A-Za-z_]\w*(?:\.\w+)*[(\[]|os\.|\$[({A-Za-z_]|\{\{|<|\[|\{|\(|[|>][+-]?$|\d{1,3}$"
)
_EMPTY: Final = re.compile(r"""[rbfu]*\\*(["'])\\*\1?""")
_FOLDERS: Final = ("pwd", "oldpwd")
_TOKEN_LEAST: Final = 8  # characters: shorter "tokens" are words of a vocabulary, such as [PAD]
_HINT: Final = re.compile(r"pass|secret|token|key|auth|cred|pwd|sig|pat", re.IGNORECASE)


def redact_forms(text: str, mark: str) -> tuple[str, int]:
    """Replace what is a secret by its form; returns the text and how many."""
    count = 0
    if "://" in text:  # first: what is in a login may have a form, too
        text, n = _LOGIN.subn(mark, text)
        text, m = _QUERY.subn(lambda found: found[0][: -len(found[1])] + mark, text)
        count += n + m
    for start, form in _FORMS:
        if start in text:
            text, n = form.subn(mark, text)
            count += n
    if ":AA" in text:
        text, n = _TELEGRAM.subn(mark, text)
        count += n
    return text, count


def is_secret_name(name: str) -> bool:
    """Tell whether a value with this name (`--api-key`, `HF_TOKEN`, `db.password`) is a secret."""
    bare = name.strip("-+ ").replace("/", ".")
    return any(p.fullmatch(bare) for p in (_STRICT_NAME, _TOKEN_NAME, _CAMEL_NAME))


def redact_assignments(text: str, mark: str) -> tuple[str, int]:
    """Replace the values of names that tell a secret; returns the text and how many.

    What is plainly code stays (`token = next(it)`, `password=None`), or no diff could be applied.
    """
    count = 0

    def replaced(found: re.Match[str]) -> str:
        nonlocal count
        name, value = found["name"], found["value"]
        if not is_secret_name(name) or _is_harmless(name, value):
            return found[0]
        count += 1
        return f"{name}{found['between']}{_in_quotes(value, mark)}"

    lines = text.split("\n")
    for at, line in enumerate(lines):
        if _HINT.search(line):
            lines[at] = _ASSIGNED.sub(replaced, line)
    return "\n".join(lines), count


def _is_harmless(name: str, value: str) -> bool:
    bare = value.strip("\"'\\rbfu") if value[:1] in "rbfu\\\"'" else value
    if name.lower() in _FOLDERS and (bare[:1] in "/~.\\" or bare[1:2] == ":"):
        return True
    if not bare or _EMPTY.fullmatch(value) or bare.startswith("<redacted"):
        return True
    is_quoted = bare != value
    if not is_quoted and (_CODE.match(value) or value.lower() == name.lower()):
        return True
    if _STRICT_NAME.fullmatch(name) or _CAMEL_NAME.fullmatch(name):
        return is_quoted and bare[:1] in "$<{" and bare[-1:] in "}>" and " " not in bare
    return len(bare) < _TOKEN_LEAST or bare[:1] in "<[{$" or (is_quoted and " " in bare)


def _in_quotes(value: str, mark: str) -> str:
    found = re.match(r"""[rbfu]*\\*["']""", value)
    if found is None:
        return mark
    end = re.search(r"""\\*["']\Z""", value[found.end() :])
    return f"{found[0]}{mark}{end[0] if end else ''}"


_BEGIN: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|PuTTY-User-Key-File-\d|Private-Lines:"
)
_END: Final = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|Private-MAC:")
_BODY: Final = re.compile(r"""[+\- ]?[\s"'#*/]*[A-Za-z0-9+/=]{4,}[\s"'\\n,)+]*\Z""")
_HEADER: Final = re.compile(r"[+\- ]?\s*[A-Za-z][\w-]*: \S.*\Z")


def redact_key_blocks(text: str, mark: str) -> tuple[str, int]:
    """Replace private keys, also of which a diff shows only the beginning or the end.

    The number of lines, and a diff's sign before each, stay.
    """
    if "PRIVATE KEY" not in text and "Private-" not in text:
        return text, 0
    lines = text.split("\n")
    hit: set[int] = set()
    inside = False
    for at, line in enumerate(lines):
        begins, ends = _BEGIN.search(line), _END.search(line)
        if begins:
            inside = not (ends and ends.start() > begins.start())
            hit.add(at)
        elif ends:
            hit.add(at)
            if not inside:
                hit.update(_body_before(lines, at))
            inside = False
        elif inside:
            inside = bool(_BODY.match(line) or _HEADER.match(line) or not line.strip(" +-\r"))
            hit.update([at] if inside else [])
    for at in hit:
        line = lines[at]
        is_signed = line[:1] in ("+", "-", " ") and line.startswith("-----") == line.startswith(
            "------"
        )
        sign = line[:1] if is_signed else ""
        lines[at] = sign + mark
    return "\n".join(lines), len(hit)


def _body_before(lines: list[str], end: int) -> list[int]:
    found = []
    for at in range(end - 1, -1, -1):
        if not _BODY.match(lines[at]):
            break
        found.append(at)
    return found


_CANDIDATE: Final = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{32,}={0,2}(?![A-Za-z0-9+/_-])")
_LEAST_ENTROPY: Final = 4.3  # bits a character; 40 random of 64 have 4.7, paths and names below 4.2
_AWS_LENGTH: Final = 40  # of a secret access key, which often has a single digit
_AWS_ENTROPY: Final = 4.5


def looks_random(text: str) -> list[tuple[int, int]]:
    """Return where `text` has long words that are most likely random keys.

    Hex digests are not: upper case, lower case and digits have to be mixed.
    """
    return [found.span() for found in _CANDIDATE.finditer(text) if _is_random(found[0])]


def _is_random(word: str) -> bool:
    fewest = min(sum(map(kind, word)) for kind in (str.isdigit, str.isupper, str.islower))
    total = len(word)
    bits = -sum(n / total * math.log2(n / total) for n in Counter(word).values())
    if fewest >= 3:  # noqa: PLR2004 - of 32 random ones fewer digits are rare: 1 in 7; longer: never
        return bits >= _LEAST_ENTROPY
    return fewest >= 1 and total == _AWS_LENGTH and bits >= _AWS_ENTROPY
