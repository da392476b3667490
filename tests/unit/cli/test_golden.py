"""The JSON of each reading command is what programs of users were written for."""

import json

import pytest
from support.golden_json import ASKED, FOLDER, asked, plain


@pytest.mark.parametrize("name", ASKED)
def test_json_is_the_golden_one(cli, looked_at, name):
    done = cli(*asked(name, looked_at), "--root", looked_at, "--json")

    assert done.code in (0, 20)
    assert plain(name, done.out, looked_at) == (FOLDER / f"{name}.json").read_text("utf-8")


def test_documents_say_what_they_are_and_are_ascii():
    for path in FOLDER.glob("*.json"):
        document = json.loads(path.read_text("ascii"))
        assert list(document)[:2] == ["schema", "schema_version"]
        assert document["schema"].startswith("weightslab.cli.")
        assert document["schema_version"] == 1


def test_usage_has_its_keys(cli, looked_at):
    found = json.loads(cli("du", "--root", looked_at, "--json").out)

    assert {"num_files", "disk_bytes", "size_bytes", "kinds", "experiments"} <= set(found)
    assert set(found["experiments"][0]) >= {"exp_hash", "own_bytes", "shared_bytes", "size_bytes"}
