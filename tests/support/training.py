"""Small models that train the same way twice, and questions about their bits."""

from __future__ import annotations

import torch

torch.set_num_threads(1)  # models this small only wait for a second thread

CONFIG = {"lr": 0.001, "optimizer": {"name": "adamw"}, "layers": [3, 5, 2]}


def make(hidden=5, seed=0):
    """Return a small model with batch norm, and AdamW over it."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, hidden),
        torch.nn.BatchNorm1d(hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, 2),
    )
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def train(model, optimizer, steps=1, seed=7):
    """Take optimizer steps on data that depends on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        loss = model(torch.randn(4, 3, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def bits(state):
    """Return a tree of tensors as something that is equal only if every bit is."""
    if isinstance(state, torch.Tensor):
        # cloned: a single element keeps any stride through contiguous(), and then has no byte view
        flat = state.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
        return str(state.dtype), tuple(state.shape), bytes(flat.view(torch.uint8).tolist())
    if isinstance(state, dict):
        return {key: bits(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [bits(value) for value in state]
    return state


def state_of(*objects):
    """Return the bits of the state of models and optimizers."""
    return [bits(item.state_dict()) for item in objects]


def tree_of(folder):
    """Return relative path -> (bytes, mtime) of everything below a folder."""
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() else None,
            path.lstat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


def files_of(folder):
    """Return relative path -> bytes of every file below a folder, the journal left out."""
    return {
        name: content
        for name, (content, _) in tree_of(folder).items()
        if content is not None and not name.startswith("logs")
    }


def flip(path, position=-1, bit=0):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
