"""Each realistic edit of a model is told once, in words that a person would use."""

import pytest
from support.towers import tower

from weightslab.engine.identity.explain import diff_models

# name of the edit; replacements in the source, or statements on the built model `m`; what is told
EDITS = [
    (
        "wider_layers_of_a_sequential",
        [
            (
                "nn.Linear(8, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 8, bias=False)",
                "nn.Linear(8, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, 8, bias=False)",
            )
        ],
        [
            "stem.0: Linear(8 -> 8) became Linear(8 -> 32)",
            "stem.2: BatchNorm1d(num_features=8) became BatchNorm1d(num_features=32)",
            "stem.3: Linear(8 -> 8, bias=False) became Linear(32 -> 8, bias=False)",
        ],
    ),
    (
        "wider_layers_of_every_block",
        [
            (
                "nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 8)",
                "nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 8)",
            )
        ],
        [
            "blocks.*.ff.0 (3 places): Linear(8 -> 16) became Linear(8 -> 32)",
            "blocks.*.ff.3 (3 places): Linear(16 -> 8) became Linear(32 -> 8)",
        ],
    ),
    (
        "two_layers_swapped",
        [("nn.ReLU(), nn.BatchNorm1d(8)", "nn.BatchNorm1d(8), nn.ReLU()")],
        ["stem.1 and stem.2 changed places (ReLU, BatchNorm1d)"],
    ),
    (
        "layer_inserted",
        [("nn.ReLU(), nn.BatchNorm1d(8)", "nn.ReLU(), nn.Dropout(0.2), nn.BatchNorm1d(8)")],
        ["module stem.2: Dropout(p=0.2) inserted, 2 modules after it renumbered"],
    ),
    (
        "layer_inserted_at_the_beginning",
        [
            (
                "nn.Sequential(nn.Linear(8, 8), nn.ReLU()",
                "nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU()",
            )
        ],
        ["module stem.0: LayerNorm(normalized_shape=(8)) inserted, 4 modules after it renumbered"],
    ),
    (
        "layer_removed",
        [("nn.ReLU(), nn.BatchNorm1d(8), ", "nn.ReLU(), ")],
        ["module stem.2: BatchNorm1d(num_features=8) removed, 1 module after it renumbered"],
    ),
    (
        "activation_module_changed",
        [("nn.GELU(), nn.Dropout(0.1)", "nn.SiLU(), nn.Dropout(0.1)")],
        ["blocks.*.ff.1 (3 places): GELU() became SiLU()"],
    ),
    (
        "activation_function_changed",
        [("act=F.gelu", "act=F.silu")],
        [
            "blocks.0.act, blocks.1.act, blocks.2.act: torch.nn.functional.gelu -> torch.nn.functional.silu"
        ],
    ),
    (
        "dropout_probability_changed",
        [("nn.Dropout(0.1)", "nn.Dropout(0.3)")],
        ["blocks.*.ff.2 (3 places): Dropout(p=0.1) became Dropout(p=0.3)"],
    ),
    ("one_layer_frozen", ["m.embed.requires_grad_(False)"], ["embed frozen"]),
    ("all_blocks_frozen", ["m.blocks.requires_grad_(False)"], ["blocks frozen"]),
    (
        "one_bias_of_each_block_frozen",
        ["[b.ff[0].bias.requires_grad_(False) for b in m.blocks]"],
        ["blocks.*.ff.0.bias (3 places) frozen"],
    ),
    (
        "forward_edited",
        [("softmax(-1)", "softmax(-2)")],
        ["forward of Attention changed (3 modules)"],
    ),
    ("helper_function_edited", [("return x * k", "return x * k + 1")], ["function scale changed"]),
    (
        "global_constant_changed",
        [("GAIN = 2.0", "GAIN = 3.0")],
        ["GAIN: 2.0 -> 3.0 (used by forward of Block)"],
    ),
    ("default_in_the_signature_changed", [("k=3", "k=4")], ["function scale changed"]),
    (
        "default_behind_a_name_changed",
        [("def scale(x, k=3)", "K = 4\ndef scale(x, k=K)")],
        ["function scale changed"],
    ),
    (
        "closure_variable_changed",
        [("EPS = 0.1", "EPS = 0.2")],
        ["closure variable eps of norm: 0.1 -> 0.2"],
    ),
    ("weights_tied", ["m.head.weight = m.embed.weight"], ["head.weight: now tied to embed.weight"]),
    (
        "layers_wrapped_for_low_rank",
        [
            (
                "class Attention",
                "class Lora(nn.Module):\n    def __init__(self, base, r=4):\n        super().__init__()\n        self.base, self.r = base, r\n        self.down = nn.Linear(8, r, bias=False)\n        self.up = nn.Linear(r, 8, bias=False)\n\n    def forward(self, x):\n        return self.base(x) + self.up(self.down(x)) / self.r\n\nclass Attention",
            ),
            ("self.q = nn.Linear(8, 8)", "self.q = Lora(nn.Linear(8, 8))"),
        ],
        ["blocks.*.attn.q (3 places): Linear(8 -> 8) is now inside Lora(r=4), as its base"],
    ),
    (
        "weight_pruned",
        ["from torch.nn.utils import prune; prune.l1_unstructured(m.head,'weight',0.5)"],
        ["head.weight: pruned by L1Unstructured"],
    ),
    (
        "weight_parametrized",
        ["torch.nn.utils.parametrizations.weight_norm(m.head)"],
        ["head.weight: parametrized by _WeightNorm"],
    ),
    (
        "weights_of_every_block_parametrized",
        ["[torch.nn.utils.parametrizations.spectral_norm(b.ff[0]) for b in m.blocks]"],
        ["blocks.*.ff.0.weight (3 places): parametrized by _SpectralNorm"],
    ),
    (
        "forward_hook_added",
        ["m.head.register_forward_hook(lambda mod, a, out: out * 2)"],
        ["head: forward hook <lambda> added"],
    ),
    ("whole_model_halved", ["m.half()"], ["the model: float32 -> float16"]),
    ("one_block_in_double", ["m.blocks[0].double()"], ["blocks.0: float32 -> float64"]),
    (
        "more_experts",
        [("range(4)", "range(8)"), ("nn.Linear(8, 4)", "nn.Linear(8, 8)")],
        [
            "modules experts.4 to experts.7: 4 x Expert() added",
            "router: Linear(8 -> 4) became Linear(8 -> 8)",
        ],
    ),
    (
        "more_blocks",
        [("range(3)", "range(5)")],
        ["modules blocks.3 to blocks.4: 2 x Block(act=torch.nn.functional.gelu) added"],
    ),
    ("class_renamed", [("Expert", "Specialist")], ["class Expert became Specialist (4 modules)"]),
    (
        "child_renamed_in_init_and_forward",
        [("self.head =", "self.classifier ="), ("self.head(", "self.classifier(")],
        ["module head renamed to classifier: Linear(8 -> 50)"],
    ),
    ("attribute_changed", [("heads=2", "heads=4")], ["blocks.*.attn.heads (3 places): 2 -> 4"]),
    (
        "class_attribute_changed",
        [("residual = True", "residual = False")],
        ["Block.residual: True -> False"],
    ),
    ("constant_buffer_changed", ["m.mask[1] = 0"], ["mask: constant values changed"]),
    (
        "buffer_made_persistent",
        ["m.register_buffer('mask', torch.ones(4))"],
        ["mask: float32 [4], not persistent -> float32 [4]"],
    ),
    (
        "bias_switched_off",
        [("self.router = nn.Linear(8, 4)", "self.router = nn.Linear(8, 4, bias=False)")],
        ["router: Linear(8 -> 4) became Linear(8 -> 4, bias=False)"],
    ),
    (
        "forward_calls_a_new_helper",
        [
            ("return self.head(x)", "return tidy(self.head(x))"),
            (
                "class Expert",
                "def tidy(x):\n    return x.clamp(-LIMIT, LIMIT)\n\nLIMIT = 5\n\nclass Expert",
            ),
        ],
        ["forward of Net changed"],
    ),
    (
        "forward_reads_a_new_attribute",
        [
            ("self.q = nn.Linear(8, 8)", "self.q = nn.Linear(8, 8)\n        self.temp = 7"),
            ("/ self.heads", "/ self.heads / self.temp"),
        ],
        ["forward of Attention changed (3 modules)"],
    ),
    (
        "part_of_forward_moved_to_a_method",
        [
            (
                "        x = self.attn(x) + x\n        return",
                "        x = self.mix(x)\n        return",
            ),
            ("class Net(", "    def mix(self, x):\n        return self.attn(x) + x\n\nclass Net("),
        ],
        ["forward of Block changed (3 modules)"],
    ),
    (
        "layers_registered_in_another_order",
        [
            (
                "self.q = nn.Linear(8, 8)\n        self.v = nn.Linear(8, 8)",
                "self.v = nn.Linear(8, 8)\n        self.q = nn.Linear(8, 8)",
            )
        ],
        ["blocks.*.attn (3 places): v is registered before q now"],
    ),
    (
        "layer_moved_into_a_container",
        [
            ("self.head = nn.Linear(8, 50)", "self.top = nn.Sequential(nn.Linear(8, 50))"),
            ("self.head(x)", "self.top(x)"),
        ],
        [
            "module top: Sequential() added",
            "module head moved to top.0: Linear(8 -> 50)",
            "forward of Net changed",
        ],
    ),
    (
        "container_replaced_by_a_layer",
        [
            (
                "self.ff = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 8))",
                "self.ff = nn.Linear(8, 8)",
            )
        ],
        ["blocks.0.ff, blocks.1.ff, blocks.2.ff: Sequential() became Linear(8 -> 8)"],
    ),
    (
        "base_class_added",
        [("class Expert(nn.Module)", "class Mixin:\n    pass\n\nclass Expert(Mixin, nn.Module)")],
        ["class Expert: base classes Module -> Mixin, Module"],
    ),
    (
        "layer_registered_earlier",
        [
            ("        self.router = nn.Linear(8, 4)\n", ""),
            ("        self.embed =", "        self.router = nn.Linear(8, 4)\n        self.embed ="),
        ],
        ["the model: router is registered before embed now"],
    ),
    (
        "forward_patched_on_an_instance",
        ["import types; m.head.forward = types.MethodType(lambda self, x: x, m.head)"],
        ["head: Linear(8 -> 50) became Linear(8 -> 50, forward=<lambda>)"],
    ),
    ("layer_replaced_by_none", ["m.stem[1] = None"], ["stem.1: ReLU() became None"]),
    (
        "block_shared",
        ["m.blocks[2] = m.blocks[0]"],
        ["blocks.2: Block(act=torch.nn.functional.gelu) became same as blocks.0"],
    ),
    (
        "comment_added",
        [("return self.fc(x).relu()", "# hello\n        return self.fc(x).relu()")],
        [],
    ),
    (
        "layers_reversed",
        ["m.stem = torch.nn.Sequential(*reversed(list(m.stem)))"],
        ["stem: modules in another order (0 to 3, 1 to 2, 2 to 1, 3 to 0)"],
    ),
    (
        "layer_of_another_dtype",
        ["m.stem[0] = torch.nn.Linear(8,8,dtype=torch.float64)"],
        ["stem.0: float32 -> float64"],
    ),
    (
        "parameter_added",
        ["m.experts[0].gate = torch.nn.Parameter(torch.zeros(3))"],
        ["experts.0.gate: added, float32 [3]"],
    ),
    (
        "layer_of_every_block_removed",
        [("nn.GELU(), nn.Dropout(0.1), ", "nn.GELU(), ")],
        ["modules blocks.*.ff.2 (3 places): Dropout(p=0.1) removed, 1 module after it renumbered"],
    ),
    (
        "layer_inserted_into_every_block",
        [("nn.Linear(8, 16), nn.GELU()", "nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU()")],
        [
            "modules blocks.*.ff.1 (3 places): LayerNorm(normalized_shape=(16)) inserted, 3 modules after it renumbered"
        ],
    ),
    (
        "three_layers_rotated",
        ["s = m.stem; m.stem = torch.nn.Sequential(s[1], s[2], s[0], s[3])"],
        ["stem: modules in another order (0 to 2, 1 to 0, 2 to 1)"],
    ),
    ("whole_model_frozen", ["m.requires_grad_(False)"], ["the whole model frozen"]),
    (
        "hook_before",
        ["m.router.register_forward_pre_hook(lambda mod, args: (args[0] * 2,))"],
        ["router: forward pre-hook <lambda> added"],
    ),
    (
        "tensor_hook",
        ["m.router.weight.register_hook(lambda g: g * 2)"],
        ["router.weight: float32 [4, 8] -> float32 [4, 8] with hooks"],
    ),
    (
        "attributes_set_to_none",
        ["m.norm = m.act = None"],
        ["norm: norm -> None", "act: not set -> None"],
    ),
    (
        "two_lists_shortened",
        [("range(4)", "range(2)"), ("range(3)", "range(2)")],
        [
            "module blocks.2: Block(act=torch.nn.functional.gelu) removed",
            "modules experts.2 to experts.3: 2 x Expert() removed",
        ],
    ),
    (
        "list_made_a_dict",
        ["m.experts = torch.nn.ModuleDict({str(i): e for i, e in enumerate(m.experts)})"],
        ["experts: ModuleList() became ModuleDict()"],
    ),
    (
        "class_attribute_and_its_use_changed",
        [
            ("residual = True", "residual = 0.5"),
            ("(x if self.residual else 0)", "x * self.residual"),
        ],
        ["Block.residual: True -> 0.5", "forward of Block changed (3 modules)"],
    ),
    (
        "buffer_added",
        ["m.router.register_buffer('scale', torch.ones(2))"],
        ["router.scale: added, float32 [2]"],
    ),
]


@pytest.fixture(scope="module")
def plain_tower(tmp_path_factory):
    """Return the description of the tower without edits."""
    return tower(tmp_path_factory.mktemp("plain") / "tower.py")


@pytest.mark.parametrize(("edits", "told"), [row[1:] for row in EDITS], ids=[r[0] for r in EDITS])
def test_edit_is_told_once(plain_tower, tmp_path, edits, told):
    changes = diff_models(plain_tower, tower(tmp_path / "edited.py", *edits))
    assert [str(change) for change in changes] == told
