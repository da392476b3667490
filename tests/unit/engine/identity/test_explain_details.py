"""What stands below a change: diffs of the source, code that follows, contents of containers."""

import pytest
from support.towers import tower
from torch import nn

from weightslab.engine.identity.architecture import describe_model
from weightslab.engine.identity.explain import diff_models


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Return a function: edits -> changes against the tower without edits."""
    folder = tmp_path_factory.mktemp("towers")
    plain = tower(folder / "plain.py")
    return lambda *edits: diff_models(plain, tower(folder / "edited.py", *edits))


def test_edited_code_is_a_unified_diff_of_the_source_and_names_its_modules(told):
    (change,) = told(("softmax(-1)", "softmax(-2)"))
    assert change.detail == (
        "--- Attention.forward (old)",
        "+++ Attention.forward (new)",
        "@@ -1,2 +1,2 @@",
        " def forward(self, x):",
        "-    return self.q(x).softmax(-1) * self.v(x) / self.heads",
        "+    return self.q(x).softmax(-2) * self.v(x) / self.heads",
    )
    assert change.paths == ("blocks.0.attn", "blocks.1.attn", "blocks.2.attn")


def test_helper_that_an_edit_calls_is_shown_below_it(told):
    (change,) = told(
        ("return self.head(x)", "return tidy(self.head(x))"),
        ("class Expert", "def tidy(x):\n    return x.abs()\n\nclass Expert"),
    )
    assert change.detail[-3:] == (
        "function tidy is now used",
        "+def tidy(x):",
        "+    return x.abs()",
    )


def test_attribute_that_an_edit_begins_to_read_is_shown_below_it(told):
    (change,) = told(
        ("self.heads = heads", "self.heads = heads\n        self.temp = 7"),
        ("/ self.heads", "/ self.temp"),
    )
    assert change.detail[-2:] == ("no longer reads heads = 2", "now reads temp = 7")


def test_default_that_the_text_does_not_show_is_given(told):
    (change,) = told(("def scale(x, k=3)", "K = 4\ndef scale(x, k=K)"))
    assert change.detail[-1] == "default of k: 3 -> 4"


def test_constant_with_a_changed_comment_beside_it_is_not_an_edit_of_code(told):
    (change,) = told(
        ("GAIN = 2.0", "GAIN = 3.0"), ("x = self.attn(x) + x", "x = self.attn(x) + x  # the sum")
    )
    assert (change.path, change.old, change.new) == ("GAIN", 2.0, 3.0)


def test_constant_used_twice_is_one_change(told):
    (change,) = told(
        ("EPS = 0.1", "EPS = 0.1\nGAIN = 5"),
        ("GAIN = 2.0\n", ""),
    )
    assert change.text == "GAIN: 2.0 -> 5 (used by forward of Block)"


def test_contents_of_added_and_replaced_containers_are_below_the_change(told):
    (change,) = told("m.stem[2] = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(8, 8))")
    assert change.text == "stem.2: BatchNorm1d(num_features=8) became Sequential()"
    assert change.detail == ("+ 0: ReLU()", "+ 1: Linear(8 -> 8)")


def test_module_behind_an_insertion_that_changed_is_told_under_its_new_number(told):
    changes = told(
        (
            "nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 8, bias=False)",
            "nn.ReLU(), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 9, bias=False)",
        )
    )
    assert [change.text for change in changes] == [
        "module stem.2: Tanh() inserted, 2 modules after it renumbered",
        "stem.4: Linear(8 -> 8, bias=False) became Linear(8 -> 9, bias=False)",
    ]


def test_ties_and_frozen_flags_move_with_renumbered_modules():
    def stack(*front):
        layers = nn.Sequential(*front, nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        layers[-1].weight = layers[-3].weight
        layers[-1].bias.requires_grad_(False)
        return describe_model(layers).document

    (change,) = diff_models(stack(), stack(nn.Dropout()))
    assert change.text == "module 0: Dropout(p=0.5) inserted, 3 modules after it renumbered"


class Dense(nn.Module):
    """A layer of a user's own."""

    def __init__(self, size_in, size_out):
        super().__init__()
        self.size_out = size_out
        self.weight = nn.Parameter(nn.init.zeros_(nn.Linear(size_in, size_out).weight))
        self.bias = nn.Parameter(nn.init.zeros_(nn.Linear(size_in, size_out).bias))

    def forward(self, x):
        return (x @ self.weight.T + self.bias)[..., : self.size_out]


def test_wider_layer_of_a_users_own_is_one_change():
    old, new = (describe_model(nn.Sequential(Dense(4, n))).document for n in (2, 3))
    (change,) = diff_models(old, new)
    assert change.text == (
        "0: size_out 2 -> 3, weight float32 [2, 4] -> float32 [3, 4], bias float32 [2] -> float32 [3]"
    )
    assert change.old["size_out"] == 2


class Pupil(nn.Module):
    """Keeps a model where torch does not see it."""

    def __init__(self, width):
        super().__init__()
        self.teachers = [Dense(2, 2), nn.Sequential(nn.Linear(2, width))]

    def forward(self, x):
        return sum(teacher(x) for teacher in self.teachers)


def test_model_kept_in_a_list_is_compared_like_the_others():
    old, new = (describe_model(Pupil(n)).document for n in (3, 4))
    assert [str(change) for change in diff_models(old, new)] == [
        "teachers[1].0: Linear(2 -> 3) became Linear(2 -> 4)"
    ]


def test_description_without_sources_and_values_still_tells_what_changed(told, tmp_path):
    old, new = tower(tmp_path / "a.py"), tower(tmp_path / "b.py", ("GAIN = 2.0", "GAIN = 3.0"))
    for document in (old, new):
        del document["sources"], document["values"]
    assert [str(change) for change in diff_models(old, new)] == [
        "forward of Block changed (3 modules): byte-code, of which no source is known"
    ]


def test_part_of_an_identity_that_is_not_known_is_told_by_name(tmp_path):
    old, new = tower(tmp_path / "a.py"), tower(tmp_path / "b.py")
    new["identity"]["models"][0][1]["novelty"] = {"a": 1}
    new["identity"]["models"][0][1]["modules"][1]["flavour"] = "sweet"
    assert [str(change) for change in diff_models(old, new)] == [
        "embed.flavour: None -> 'sweet'",
        "novelty.a added: 1",
    ]
