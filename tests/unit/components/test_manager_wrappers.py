"""Wrappers change how a model runs, not what is saved; a user's own `module` is not one."""

import pytest
import torch
from safetensors.torch import load_file
from support.training import bits, make, state_of, train
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import NotStorableError, StateMismatchError

PLAIN_KEYS = sorted(make()[0].state_dict())


@pytest.fixture
def gloo(tmp_path):
    init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    destroy_process_group()


def compiled(model):
    return torch.compile(model, backend="eager")


WRAPPERS = [compiled, DistributedDataParallel, DataParallel, AveragedModel]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_wrapped_model_has_the_hash_and_keys_of_the_plain_one(manager, gloo, wrap):
    model = make()[0]
    plain = manager.update_experiment_hash(model).exp_hash
    assert manager.update_experiment_hash(wrap(model)).exp_hash == plain
    path = manager.save_model_checkpoint(wrap(model), step=1, save_optimizer=False)
    assert sorted(load_file(path)) == PLAIN_KEYS


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_wrapped_model_is_loaded_into_a_plain_one_and_back(manager, gloo, wrap):
    model, optimizer = make(seed=1)
    train(model, optimizer)
    manager.update_experiment_hash(model)
    manager.save_model_checkpoint(wrap(model), step=1, optimizer=optimizer)
    plain, plain_optimizer = make(seed=2)
    manager.load_checkpoint(1, model=plain, optimizer=plain_optimizer)
    assert state_of(plain, plain_optimizer) == state_of(model, optimizer)
    train(plain, plain_optimizer)
    manager.save_model_checkpoint(plain, step=2, optimizer=plain_optimizer)
    inner, inner_optimizer = make(seed=3)
    manager.load_checkpoint(2, model=wrap(inner), optimizer=inner_optimizer)
    if wrap is AveragedModel:  # it holds a copy of its own
        return
    assert state_of(inner, inner_optimizer) == state_of(plain, plain_optimizer)


def test_compiled_submodule_does_not_show(manager):
    model = make()[0]
    plain = manager.update_experiment_hash(model).exp_hash
    model[0] = compiled(model[0])
    assert manager.update_experiment_hash(model).exp_hash == plain
    path = manager.save_model_checkpoint(model, step=1, save_optimizer=False)
    assert sorted(load_file(path)) == PLAIN_KEYS


class Own(torch.nn.Module):
    """A user's model whose submodules have the names that wrappers use."""

    def __init__(self):
        super().__init__()
        self.module = torch.nn.Linear(2, 2)
        self._orig_mod = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self._orig_mod(self.module(x))


@pytest.mark.parametrize("wrap", [lambda m: m, compiled, DataParallel])
def test_submodule_of_the_user_named_module_keeps_its_name(manager, wrap):
    model = Own()
    manager.update_experiment_hash(model)
    path = manager.save_model_checkpoint(wrap(model), step=1, save_optimizer=False)
    assert sorted(load_file(path)) == [
        "_orig_mod.bias",
        "_orig_mod.weight",
        "module.bias",
        "module.weight",
    ]
    fresh = Own()
    manager.load_checkpoint(1, model=wrap(fresh), load_optimizer=False)
    assert state_of(fresh) == state_of(model)


# ---------------------------------------------------------------- AveragedModel
def averaged(seed=0, updates=0):
    model, optimizer = make(seed=seed)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for number in range(updates):
        train(model, optimizer, seed=number)
        average.update_parameters(model)
    return average, optimizer


@pytest.mark.parametrize("with_optimizer", [True, False])
@pytest.mark.parametrize("wrap", [lambda m: m, compiled])
def test_number_of_averages_comes_back(manager, with_optimizer, wrap):
    average, optimizer = averaged(updates=3)
    manager.update_experiment_hash(average)
    more = {"optimizer": optimizer} if with_optimizer else {}
    manager.save_model_checkpoint(wrap(average), step=1, **more)
    fresh, fresh_optimizer = averaged(seed=4)
    manager.load_checkpoint(1, model=fresh, optimizer=fresh_optimizer if with_optimizer else None)
    assert fresh.n_averaged.item() == 3
    assert state_of(fresh) == state_of(average)


def test_save_without_training_state_leaves_the_number_of_averages_out(manager):
    average, _ = averaged(updates=3)
    manager.update_experiment_hash(average)
    path = manager.save_model_checkpoint(average, step=1, save_optimizer=False)
    assert not path.with_name(path.name.replace(".safe", ".training.safe")).exists()
    fresh, _ = averaged(seed=4)
    manager.load_checkpoint(1, model=fresh)
    assert fresh.n_averaged.item() == 0


# ---------------------------------------------------------------- what else a model has
def test_frozen_parameters_and_buffers_come_back(manager):
    model = make()[0]
    model[0].weight.requires_grad_(False)
    model[1].running_mean += 3
    model[1].num_batches_tracked += 9
    manager.update_experiment_hash(model)
    manager.save_model_checkpoint(model, step=1, save_optimizer=False)
    fresh = make(seed=6)[0]
    fresh[0].weight.requires_grad_(False)
    manager.load_checkpoint(1, model=fresh, load_optimizer=False)
    assert state_of(fresh) == state_of(model)
    assert not fresh[0].weight.requires_grad


class Counting(torch.nn.Linear):
    """A layer with state that is no tensor."""

    seen = (0, None)

    def get_extra_state(self):
        return {"seen": self.seen, "by": {3: float("inf")}}

    def set_extra_state(self, state):
        self.seen, self.by = state["seen"], state["by"]


def test_extra_state_comes_back_with_its_types(manager):
    model, fresh = (torch.nn.Sequential(Counting(2, 2)) for _ in range(2))
    model[0].seen = (7, "x")
    manager.update_experiment_hash(model)
    manager.save_model_checkpoint(model, step=1, save_optimizer=False)
    manager.load_checkpoint(1, model=fresh, load_optimizer=False)
    assert (fresh[0].seen, fresh[0].by) == ((7, "x"), {3: float("inf")})


def test_non_contiguous_and_half_precision_parameters_come_back(manager):
    def build(seed):
        torch.manual_seed(seed)
        model = torch.nn.Linear(3, 4, bias=False)
        model.weight = torch.nn.Parameter(torch.randn(3, 4).t())
        return torch.nn.Sequential(model, torch.nn.Linear(4, 2).bfloat16())

    model, fresh = build(0), build(1)
    manager.update_experiment_hash(model)
    manager.save_model_checkpoint(model, step=1, save_optimizer=False)
    manager.load_checkpoint(1, model=fresh, load_optimizer=False)
    assert state_of(fresh) == state_of(model)


def test_checkpoint_of_an_untied_model_does_not_go_into_a_tied_one(manager):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    manager.update_experiment_hash(model)
    manager.save_model_checkpoint(model, step=1, save_optimizer=False)
    tied = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    before = state_of(tied)
    with pytest.raises(StateMismatchError, match=r"0\.weight and 1\.weight are one tensor"):
        manager.load_checkpoint(1, model=tied, load_optimizer=False)
    assert state_of(tied) == before


def test_sharded_model_is_refused_by_name_at_save_and_load(manager, gloo):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    plain = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False))
    manager.update_experiment_hash(plain)
    manager.save_model_checkpoint(plain, step=1, save_optimizer=False)
    sharded = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False))
    weight = distribute_tensor(sharded[0].weight, init_device_mesh("cpu", (1,)), [Shard(0)])
    sharded[0].weight = torch.nn.Parameter(weight)
    with pytest.raises(StateMismatchError, match=r"0\.weight is sharded"):
        manager.load_checkpoint(1, model=sharded, load_optimizer=False)
    with pytest.raises((NotStorableError, StateMismatchError, TypeError), match=r"shard|DTensor"):
        manager.save_model_checkpoint(sharded, step=2, save_optimizer=False)
    assert manager.get_checkpoint_info()["steps"] == [1]


# ---------------------------------------------------------------- optimizers
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), amsgrad=True, capturable=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.5),
    "adagrad": torch.optim.Adagrad,
    "rprop": torch.optim.Rprop,
    "nadam": torch.optim.NAdam,
    "adafactor": torch.optim.Adafactor,
    "asgd": torch.optim.ASGD,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_bit_for_bit(manager, name):
    model = make()[0]
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, steps=2)
    manager.update_experiment_hash(model)
    manager.save_model_checkpoint(model, step=2, optimizer=optimizer)
    fresh = make(seed=5)[0]
    fresh_optimizer = OPTIMIZERS[name](fresh.parameters())
    manager.load_latest_checkpoint(fresh, optimizer=fresh_optimizer)
    assert state_of(fresh, fresh_optimizer) == state_of(model, optimizer)
    for pair in ((model, optimizer), (fresh, fresh_optimizer)):
        train(*pair, steps=2, seed=3)
    assert state_of(fresh, fresh_optimizer) == state_of(model, optimizer)


def test_parameter_groups_with_their_options_come_back(manager):
    def build(seed):
        model = make(seed=seed)[0]
        groups = [
            {"params": model[0].parameters(), "lr": 0.1, "note": ("a", seed)},
            {"params": list(model[1].parameters()) + list(model[3].parameters())},
        ]
        return model, torch.optim.AdamW(groups, lr=0.01)

    model, optimizer = build(0)
    train(model, optimizer)
    manager.update_experiment_hash(model)
    manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
    fresh, fresh_optimizer = build(1)
    manager.load_checkpoint(1, model=fresh, optimizer=fresh_optimizer)
    assert fresh_optimizer.param_groups[0]["note"] == ("a", 0)
    assert state_of(fresh, fresh_optimizer) == state_of(model, optimizer)


def test_loaded_tensors_belong_to_the_live_objects_not_to_the_file(run):
    train(run.model, run.optimizer)
    run.save(1)
    model, optimizer = make(seed=5)
    with CheckpointManagerV2(run.manager.root.path, read_only=True) as other:
        other.load_checkpoint(1, model=model, optimizer=optimizer)
    content = run.weights(1, ".training.safetensors").read_bytes()
    train(model, optimizer, steps=2)
    assert run.weights(1, ".training.safetensors").read_bytes() == content
    assert bits(load_file(run.weights(1))) == bits(dict(run.model.state_dict()))
