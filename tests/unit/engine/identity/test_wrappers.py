import pytest
import torch
from torch import nn

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.wrappers import clean_module_names, inner_of, real_class, unwrap


class Own(nn.Module):
    def __init__(self, child):
        super().__init__()
        self.module = child

    def forward(self, x):
        return self.module(x)


def test_unwrap_removes_all_known_wrappers():
    inner = nn.Linear(2, 2)
    compiled = torch.compile(nn.DataParallel(inner), backend="eager")
    assert unwrap(torch.optim.swa_utils.AveragedModel(compiled)) is not compiled
    assert unwrap(compiled) is inner
    assert unwrap(inner) is inner


def test_inner_of_names_the_attribute_segment():
    inner = nn.Linear(2, 2)
    assert inner_of(torch.compile(inner, backend="eager")) == ("_orig_mod", inner)
    assert inner_of(nn.DataParallel(inner)) == ("module", inner)
    assert inner_of(inner) is None


def test_a_users_submodule_called_module_keeps_its_name():
    model = nn.DataParallel(Own(nn.Sequential(nn.Linear(2, 2))))
    assert clean_module_names(model) == {
        "": "",
        "module": "",
        "module.module": "module",
        "module.module.0": "module.0",
    }


def test_wrappers_inside_the_tree_are_cleaned():
    model = nn.Sequential(torch.compile(nn.Sequential(nn.ReLU()), backend="eager"), nn.ReLU())
    assert clean_module_names(model) == {
        "": "",
        "0": "0",
        "0._orig_mod": "0",
        "0._orig_mod.0": "0.0",
        "1": "1",
    }


def test_a_state_dict_is_cleaned_by_owner():
    model = torch.compile(Own(nn.Linear(2, 2)), backend="eager")
    clean = clean_module_names(model)
    names = []
    for key in model.state_dict():
        owner, _, name = key.rpartition(".")
        names.append(f"{clean[owner]}.{name}")
    assert names == ["module.weight", "module.bias"]


def test_a_shared_module_has_all_its_paths():
    layer = nn.ReLU()
    assert clean_module_names(nn.Sequential(layer, layer)) == {"": "", "0": "0", "1": "1"}


def test_a_wrapper_subclass_with_its_own_forward_is_no_wrapper():
    class Doubling(nn.DataParallel):
        def forward(self, x):
            return self.module(x) * 2

    class Named(nn.DataParallel):
        pass

    assert inner_of(Doubling(nn.ReLU())) is None
    assert inner_of(Named(nn.ReLU())) is not None


def test_a_module_that_contains_itself_is_refused():
    model = nn.Sequential(nn.ReLU())
    model.add_module("again", model)
    with pytest.raises(IdentityError, match="contains itself"):
        clean_module_names(model)


def test_real_class_looks_through_parametrizations():
    model = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    assert type(model) is not nn.Linear
    assert real_class(model) is nn.Linear
    assert real_class(model.parametrizations["weight"]).__name__ == "ParametrizationList"
