"""No planted secret, home or name survives; what is code stays, so that a diff can be applied."""

import json
import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.provenance.redact import MARK, Redactor

RANDOM = random.Random(7)
LETTERS = string.ascii_letters + string.digits


def some(count, letters=LETTERS):
    return "".join(RANDOM.choice(letters) for _ in range(count))


KEY_LINES = [some(64, LETTERS + "+/") for _ in range(4)] + [some(22) + "=="]
TOKENS = {
    "github": "ghp_" + some(36),
    "github fine": "github_pat_" + some(22) + "_" + some(59),
    "gitlab": "glpat-" + some(20),
    "aws id": "AKIA" + some(16, string.ascii_uppercase + string.digits),
    "aws temporary": "ASIA" + some(16, string.ascii_uppercase + string.digits),
    "aws secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "openai": "sk-" + some(48),
    "openai project": "sk-proj-" + some(60) + "_" + some(20),
    "anthropic": "sk-ant-api03-" + some(80),
    "stripe": "sk_live_" + some(24),
    "slack bot": "xoxb-123456789012-" + some(24),
    "slack app": "xapp-1-A0-123-" + some(24),
    "slack hook": "https://hooks.slack.com/services/T000/B000/" + some(24),
    "hugging face": "hf_" + some(34),
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0." + some(43),
    "google": "AIza" + some(35),
    "pypi": "pypi-" + some(60),
    "npm": "npm_" + some(36),
    "databricks": "dapi" + some(32, "0123456789abcdef"),
    "telegram": "123456789:AA" + some(33),
    "random": some(44),
}
VALUES = {
    "password": "hunter2",
    "db_password": "correct-horse",
    "passphrase": "opensesame",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "api-key": "abc123",
    "apiKey": "abc123",
    "client_secret": "s3cr3t",
    "AWS_SECRET_ACCESS_KEY": "short",
    "HF_TOKEN": "abcdefgh12",
    "accessToken": "abcdefgh12",
}
FORMS = [
    "{name}={value}", "{name} = '{value}'", '{name} = "{value}"', '"{name}": "{value}"', "{name}: {value}",
    "export {name}={value}", "+    {name}: '{value}',", '-{{\\"{name}\\": \\"{value}\\"}}', "f({name}='{value}', x=1)",
]  # fmt: skip
PLAIN = Redactor()
MINE = Redactor(
    homes=("/home/jdoe-work", r"D:\People\jdoe"), users=("jdoe", "janedoe"), hosts=("gpu-box-17",)
)


@pytest.mark.parametrize("kind", TOKENS)
def test_token_of_a_service_is_taken_out_wherever_it_stands(kind):
    for around in ("{}", "x = '{}'", "--flag={}", "+  # {} used here", 'https://host/?q="{}"'):
        found, count = PLAIN.text(around.format(TOKENS[kind]))
        assert TOKENS[kind][-8:] not in found, around
        assert MARK in found, around
        assert count >= 1


@pytest.mark.parametrize("name", VALUES)
def test_value_of_a_secret_name_is_taken_out_in_every_notation(name):
    for form in FORMS:
        found, count = PLAIN.text(form.format(name=name, value=VALUES[name]))
        assert VALUES[name] not in found, form
        assert count == 1, form


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("https://jane:pa55word@github.com/a/b.git", "https://<redacted>@github.com/a/b.git"),
        ("https://x-access-token:abc@github.com/a", "https://<redacted>@github.com/a"),
        ("https://abcdef0123@github.com/a", "https://<redacted>@github.com/a"),
        ("postgres://u:p@ss/w0rd@db:5432/x", "postgres://<redacted>@db:5432/x"),
        ("https://h/x?a=1&access_token=abc&b=2", "https://h/x?a=1&access_token=<redacted>&b=2"),
        ("https://h/x?X-Amz-Signature=0aff", "https://h/x?X-Amz-Signature=<redacted>"),
        ("https://github.com/a/b.git", "https://github.com/a/b.git"),
        ("ssh://git@github.com/a/b.git", "ssh://git@github.com/a/b.git"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
    ],
)
def test_url_loses_its_login_and_nothing_else(url, left):
    assert PLAIN.text(url)[0] == left


@pytest.mark.parametrize(
    "shown", [slice(None), slice(0, 4), slice(3, None)], ids=["all", "begin", "end"]
)
@pytest.mark.parametrize("sign", ["", "+", "-", " "])
def test_private_key_is_taken_out_of_a_diff_line_by_line(sign, shown):
    for kind in ("RSA ", "OPENSSH ", "ENCRYPTED ", "EC ", ""):
        check_key_block(kind, sign, shown)


def check_key_block(kind, sign, shown):
    block = [f"-----BEGIN {kind}PRIVATE KEY-----", *KEY_LINES, f"-----END {kind}PRIVATE KEY-----"][
        shown
    ]
    text = "\n".join([f"{sign}before", *(sign + line for line in block), f"{sign}after = 1"])
    found, _ = PLAIN.text(text)
    assert not any(line in found for line in KEY_LINES)
    assert found.count("\n") == text.count("\n")
    assert all(line.startswith(sign) for line in found.split("\n"))
    assert found.endswith(f"{sign}after = 1")


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--api-key", "abc", "--lr", "0.1"], ["--api-key", MARK, "--lr", "0.1"]),
        (["--hf_token", "x y z"], ["--hf_token", MARK]),
        (["--password=x"], [f"--password={MARK}"]),
        (["+wandb.api_key=x", "lr=0.1"], [f"+wandb.api_key={MARK}", "lr=0.1"]),
        (["--token", "--lr", "1"], ["--token", "--lr", "1"]),
        (["-c", "login(password='x1')"], ["-c", f"login(password='{MARK}')"]),
        (
            ["--num-tokens", "512", "--tokenizer", "gpt2"],
            ["--num-tokens", "512", "--tokenizer", "gpt2"],
        ),
    ],
)
def test_command_line_loses_values_of_secret_options_alone(arguments, left):
    assert list(PLAIN.arguments(arguments)[0]) == left


@pytest.mark.parametrize(
    "home",
    [
        "/home/jane", "/Users/jane", "/var/home/jane", "/export/home/jane", "/usr/home/jane", "/root",
        r"C:\Users\jane", r"C:\\Users\\jane", "C:/Users/jane", "/c/Users/jane", "/mnt/c/Users/jane",
        "/home/jdoe-work", r"D:\People\jdoe", r"D:\\People\\jdoe", "D:/People/jdoe", "/cygdrive/c/Users/jane",
    ],
)  # fmt: skip
def test_home_of_every_system_becomes_a_tilde(home):
    for around in ("{}", "{}/data/x.csv", "path='{}'", "PATH=/bin:{}/bin", "file://{}/x"):
        found, count = MINE.text(around.format(home))
        assert not {word for word in (home, "jane", "jdoe") if word in found}, around
        assert "~" in found
        assert count >= 1


def test_names_of_people_and_machines_are_taken_out_where_they_name_one():
    text = (
        "janedoe said jdoe@host and /scratch/jdoe/run on gpu-box-17.local, USER=jdoe, not jdoexyz"
    )
    found, _ = MINE.text(text)
    assert (
        found
        == "<user> said <user>@host and /scratch/<user>/run on <host>.local, USER=<user>, not jdoexyz"
    )


def test_short_name_that_is_a_word_of_the_program_stays_there():
    assert Redactor(users=("max", "root", "ubuntu")).text("x = max(a, b)  # root ubuntu") == (
        "x = max(a, b)  # root ubuntu",
        0,
    )


def test_known_value_of_the_environment_is_taken_out_wherever_it_is_copied():
    found, count = Redactor(literals=("tiny", "plain-looking-words")).text(
        "a plain-looking-words b tiny"
    )
    assert (found, count) == ("a <redacted> b tiny", 1)


CODE = """\
diff --git a/train.py b/train.py
index 83db48f84ec878fbfb30b46d16630e944e34f205..bf269f4ee2e6c2a1b0b5b0a8e5a1f2c3d4e5f607 100644
--- a/train.py
+++ b/train.py
@@ -1,9 +1,9 @@ def forward(self, token: str) -> None:
 tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased", pad_token="[PAD]")
-token = next(tokens)
+token: Optional[str] = None
 def login(user, password=None, api_key=os.environ["API_KEY"], secret=args.secret): ...
 password = getpass()
 eos_token = "</s>"
+key = jax.random.PRNGKey(0)
+author = "someone"; keys = ["a"]; monkey = 12
+digest = "0123456789abcdef0123456789abcdef01234567"
+from transformers.models.bert.modeling_bert import BertForSequenceClassificationWithPooling
+login(api_key=api_key, token=token)
 max_new_tokens: 512
 num_attention_heads = 12  # see https://arxiv.org/abs/1706.03762
"""


def test_code_that_holds_no_secret_stays_as_it_is():
    assert MINE.text(CODE) == (CODE, 0)


SECRETS = sorted({*TOKENS.values(), "https://u:s3cr3tpw@h/x"})
PIECES = st.one_of(
    st.sampled_from(SECRETS),
    st.sampled_from([f"{n}={v}" for n, v in VALUES.items()]),
    st.sampled_from(
        ["/home/jdoe/x", r"C:\Users\jdoe\x", "lr=0.1", "\n+", " ", "token", "'", '"', "{", ":", "@"]
    ),
    st.text(max_size=12),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(PIECES, max_size=8), st.sampled_from(["\n", "\n+    ", "\n- x = 1; "]))
def test_nothing_planted_survives_in_any_document_and_a_second_time_changes_nothing(
    pieces, between
):
    text = between.join(pieces)
    document = {"a": [text, {"b": text}], "n": 1, "none": None}
    found, _ = MINE.document(document)
    written = json.dumps(found, ensure_ascii=False)
    for piece in pieces:
        if piece in SECRETS:
            assert piece not in written
            assert "s3cr3tpw" not in written
    assert "jdoe\\" not in written
    assert "/jdoe" not in written
    assert MINE.document(found)[0] == found


def test_value_under_a_secret_key_of_a_document_goes_whatever_it_is():
    assert PLAIN.document({"api_key": "a b", "seed": "1"}) == ({"api_key": MARK, "seed": "1"}, 1)
