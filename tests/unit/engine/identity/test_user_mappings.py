"""Mappings of the user's own are described without running their code."""

import collections
import collections.abc
from typing import ClassVar

from weightslab.engine.identity.config import describe_config


class Lazy(collections.abc.Mapping):
    """Answers by code that leaves a trace."""

    calls: ClassVar[list] = []

    def __init__(self, **values):
        self.values_given = values

    def __getitem__(self, key):
        self.calls.append(key)
        return self.values_given[key]

    def __iter__(self):
        self.calls.append("iter")
        return iter(self.values_given)

    def __len__(self):
        return len(self.values_given)


class Settings(collections.UserDict):
    def __getitem__(self, key):
        raise AssertionError("run by the identity")


def test_mapping_of_a_user_counts_by_its_attributes_and_its_code_does_not_run():
    one, same, other = (describe_config({"opt": Lazy(lr=v)}) for v in (1, 1.0, 2))
    assert one.digest == same.digest
    assert one.digest != other.digest
    assert Lazy.calls == []


def test_user_dict_is_the_dict_it_holds():
    assert (
        describe_config({"opt": Settings(lr=1)}).digest
        == describe_config({"opt": {"lr": 1}}).digest
    )
