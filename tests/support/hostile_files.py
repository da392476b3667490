"""Files that somebody made to hurt: each a function that puts one into an experiment of a root.

Whoever writes them knows the format: seals, sidecars and manifests fit, unless that is the point.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import struct

import h5py
import numpy as np

from weightslab.engine.digests import digest_bytes, seal_digest
from weightslab.engine.jsonform import seal, seal_text, unseal


class Evil:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return os.system, ("echo unpickled",)


class Target:
    """The experiment of a root that is made hostile, by the names of its files."""

    def __init__(self, root):
        self.outside = root.parent / "outside"
        (self.folder,) = (p for p in (root / "checkpoints").iterdir() if len(p.name) == 16)
        self.exp_hash = self.folder.name
        stem = f"{self.exp_hash}_step_000001"
        self.model = self.folder / "model"
        self.manifest = self.model / f"{stem}.json"
        self.weights = self.model / f"{stem}.safetensors"
        self.record = self.folder / "experiment.json"
        self.architecture = self.model / f"{self.exp_hash}_architecture.json"
        self.picture = self.model / f"{self.exp_hash}_architecture.txt"
        self.config = self.folder / "hp" / f"{self.exp_hash}_config.yaml"
        self.samples = self.folder / "data" / f"{self.exp_hash}_samples.h5"
        (self.note,) = (self.folder / "notes").glob("*_note_*.json")
        (self.why,) = root.glob("checkpoints/.trash/*/why.json")
        self.sidecar = self.folder / "data" / f"{self.exp_hash}_samples.h5.json"

    def rewrite(self, path, change):
        """Change a sealed record, and seal it again."""
        document, _ = unseal(path.read_bytes(), what=path.name)
        change(document)
        path.write_bytes(seal(document))

    def put_weights(self, data):
        """Put other bytes in place of the weights, with a manifest that vouches for them."""
        self.weights.write_bytes(data)

        def change(document):
            file = document["files"][self.weights.name]
            file.update(size_bytes=len(data), digest=digest_bytes(data))
            file.update(header_size_bytes=len(data), header_digest=digest_bytes(data))

        self.rewrite(self.manifest, change)

    def put_samples(self, data):
        """Put other bytes in place of the samples, with a sidecar that vouches for them."""
        self.samples.write_bytes(data)
        facts = {"size_bytes": len(data), "content_digest": digest_bytes(data)}
        self.rewrite(self.sidecar, lambda document: document.update(facts))

    def put_config(self, text):
        """Put another config in place, sealed."""
        self.config.write_bytes(seal_text(f"# {self.config.name}\n{text}"))


FILES = {}


def hostile(function):
    """Add a hostile file under the name of the function that makes it."""
    FILES[function.__name__.replace("_", " ")] = function
    return function


def _text_record(key, text):
    """Return the bytes of a sealed record with one value that `json` would not write."""
    body = b'{\n"%s":%s' % (key.encode(), text)
    return body + f',\n"digest":"{seal_digest(body)}"\n}}\n'.encode()


def _first_tensor(document):
    return next(iter(document["tensors"].values()))


# ---------------------------------------------------------------- any record
def _records():
    """Add what is done to each kind of JSON file alike."""
    contents = {
        "pickle": lambda: pickle.dumps(Evil()),
        "deep list": lambda: _text_record("a", b"[" * 200_000 + b"]" * 200_000),
        "deep object": lambda: _text_record("a", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        "huge integer": lambda: _text_record("step", b"9" * 100_000),
        "infinity": lambda: _text_record("step", b"-Infinity"),
        "same key twice": lambda: _text_record("a", b'1,\n"a":2'),
        "not utf-8": lambda: _text_record("a", b'"\xff\xfe"'),
        "lone surrogate": lambda: _text_record("schema", b'"\\ud800"'),
        "no object": lambda: b"[1]\n",
        "nothing": lambda: b"",
    }
    for kind in ("manifest", "record", "architecture", "sidecar", "note", "why"):
        for name, content in contents.items():
            FILES[f"{kind}: {name}"] = lambda target, kind=kind, content=content: getattr(
                target, kind
            ).write_bytes(content())
        for name, swap in (("symlink", _link_outside), ("pipe", _pipe), ("folder", _folder)):
            FILES[f"{kind}: {name}"] = lambda target, kind=kind, swap=swap: swap(
                target, getattr(target, kind)
            )


def _link_outside(target, path):
    path.unlink()
    path.symlink_to(target.outside / "secret.json")


def _pipe(_, path):
    path.unlink()
    os.mkfifo(path)


def _folder(_, path):
    path.unlink()
    path.mkdir()


# ---------------------------------------------------------------- manifests that lie
def _lies():
    """Add manifests of which one value is a lie."""
    tensor = {
        "offset beyond the file": ("offset", 1 << 40),
        "offset that overflows": ("offset", (1 << 64) - 8),
        "offset below zero": ("offset", -8),
        "offset into the header": ("offset", 0),
        "size that overflows": ("size_bytes", 1 << 63),
        "size of more than the shape": ("size_bytes", 24),
        "shape that overflows": ("shape", [1 << 40, 1 << 40]),
        "shape below zero": ("shape", [-1, 2]),
        "shape of 100,000 dimensions": ("shape", [1] * 100_000),
        "type that is none": ("dtype", "os.system"),
        "type of another size": ("dtype", "F64"),
        "file outside": ("file", "../../../../etc/passwd"),
        "digest of nothing": ("digest", ""),
    }
    for name, (key, value) in tensor.items():
        FILES[f"tensor: {name}"] = lambda target, key=key, value=value: target.rewrite(
            target.manifest, lambda document: _first_tensor(document).update({key: value})
        )
    document = {
        "config file outside": {"config_file": "../../../../etc/passwd"},
        "step that is true": {"step": True},
        "revision of 5,000 digits": {"revision": int("9" * 4000)},
        "newer schema": {"schema_version": 1 << 70},
        "alias of itself": {"aliases": {"model/x": "model/x"}},
        "alias of nothing": {"aliases": {"model/x": "model/y"}},
        "state that names code": {"state": {"model": {"a": {"$enum": ["os:system", "x"]}}}},
        "state that is a pickle": {"state": {"model": {"a": {"$pickle": "gASV"}}}},
        "state of huge arrays": {"state": {"model": {"a": {"$numpy": ["<f8", "00" * 3]}}}},
        "metrics that are text": {"metrics": {"loss": "__import__('os')"}},
        "files that are a list": {"files": []},
        "time of the year zero": {"created_at": "0000-00-00T00:00:00+00:00"},
    }
    for name, change in document.items():
        FILES[f"manifest: {name}"] = lambda target, change=change: target.rewrite(
            target.manifest, lambda found: found.update(change)
        )


@hostile
def manifest_names_a_file_outside(target):
    def change(document):
        document["files"]["../../../outside/secret.json"] = document["files"].pop(
            target.weights.name
        )

    target.rewrite(target.manifest, change)


@hostile
def tensors_that_overlap(target):
    def change(document):
        first, second = list(document["tensors"].values())[:2]
        second["offset"] = first["offset"] + 4

    target.rewrite(target.manifest, change)


# ---------------------------------------------------------------- notes and the trash
@hostile
def note_about_another_experiment(target):
    target.rewrite(target.note, lambda document: document.update(exp_hash="../../outside"))


@hostile
def notes_are_a_link_outside(target):
    target.note.parent.rename(target.outside / "notes")
    target.note.parent.symlink_to(target.outside / "notes")


@hostile
def trashed_checkpoint_of_another_name(target):
    target.rewrite(target.why, lambda document: document.update(step=1, exp_hash="../../outside"))


@hostile
def trashed_manifest_names_a_file_outside(target):
    def change(document):
        name = next(iter(document["files"]))
        document["files"]["../../../outside/secret.json"] = document["files"].pop(name)

    (manifest,) = target.why.parent.glob("*_step_000002.json")
    target.rewrite(manifest, change)


# ---------------------------------------------------------------- weights
def _header(text, data=b""):
    return struct.pack("<Q", len(text)) + text + data


def _weights():
    """Add tensor files with a manifest that vouches for them."""
    tensor = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    contents = {
        "pickle": pickle.dumps(Evil()),
        "nothing": b"",
        "header of 2^63 bytes": struct.pack("<Q", 1 << 63) + b"{}",
        "header longer than the file": struct.pack("<Q", 1 << 20) + b"{}",
        "header of 40 MB": _header(b"{" + b" " * 40_000_000),
        "deep header": _header(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        "same tensor twice": _header(b'{"a":' + tensor + b',"a":' + tensor + b"}", bytes(8)),
        "overlap": _header(b'{"a":' + tensor + b',"b":' + tensor + b"}", bytes(8)),
        "end before start": _header(tensor.replace(b"[0,8]", b"[8,0]").join([b'{"a":', b"}"])),
        "offsets that overflow": _header(
            tensor.replace(b"[0,8]", b"[0,18446744073709551615]").join([b'{"a":', b"}"])
        ),
        "shape that overflows": _header(
            tensor.replace(b"[2]", b"[4611686018427387904,8]").join([b'{"a":', b"}"])
        ),
    }
    for name, data in contents.items():
        FILES[f"weights: {name}"] = lambda target, data=data: target.put_weights(data)
    FILES["weights: symlink"] = lambda target: _link_outside(target, target.weights)
    FILES["weights: pipe"] = lambda target: _pipe(target, target.weights)
    FILES["weights: a terabyte of nothing"] = lambda target: os.truncate(target.weights, 1 << 40)


# ---------------------------------------------------------------- configs
def _configs():
    """Add configs that are sealed."""
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for one, other in zip("bcdefghi", "abcdefgh", strict=True):
        bomb += f"{one}: &{one} [{', '.join([f'*{other}'] * 9)}]\n"
    contents = {
        "runs a command": "a: !!python/object/apply:os.system ['echo unpickled']\n",
        "makes an object": "a: !!python/object:subprocess.Popen {}\n",
        "a billion laughs": bomb,
        "an alias of itself": "a: &a [*a]\n",
        "merged keys": "a: &a {x: 1}\nb: {<<: *a}\n",
        "deep lists": "a: " + "[" * 20_000 + "]" * 20_000,
        "deep blocks": "".join(" " * n + "a:\n" for n in range(3000)),
        "the same key twice": "a: 1\na: 2\n",
        "a number of 100,000 digits": "a: " + "9" * 100_000,
        "two documents": "a: 1\n---\nb: 2\n",
        "a list": "- 1\n",
        "a key that is a list": "? [1, 2]\n: 3\n",
        "another value": "lr: 0.2\n",
    }
    for name, text in contents.items():
        FILES[f"config: {name}"] = lambda target, text=text: target.put_config(text)
    FILES["config: symlink"] = lambda target: _link_outside(target, target.config)


# ---------------------------------------------------------------- samples
def _samples(make):
    """Return a function that puts an HDF5 file in place whose active set `make` changes."""

    def put(target):
        image = io.BytesIO(target.samples.read_bytes())
        with h5py.File(image, "r+") as file:
            make(file, target)
        target.put_samples(image.getvalue())

    return put


def _replace(name, **made):
    def make(file, _):
        del file[name]
        file.create_dataset(name, **made)

    return _samples(make)


def _external_link(file, target):
    del file["active"]
    file["active"] = h5py.ExternalLink(str(target.outside / "other.h5"), "/active")


def _virtual(file, target):
    del file["active/int64"]
    layout = h5py.VirtualLayout(shape=(5,), dtype="i8")
    layout[:] = h5py.VirtualSource(str(target.outside / "other.h5"), "active/int64", shape=(5,))
    file.create_virtual_dataset("active/int64", layout)


def _external_data(file, target):
    del file["active/int64"]
    place = (str(target.outside / "secret.json"), 0, 40)
    file.create_dataset("active/int64", shape=(5,), dtype="i8", external=[place])


def _soft_loop(file, _):
    del file["active/int64"]
    file["active/int64"] = h5py.SoftLink("/active/int64")


def _bomb(name, dtype):
    def make(file, _):
        del file[name]
        size = (1 << 30) // np.dtype(dtype).itemsize
        made = file.create_dataset(name, (size,), dtype, chunks=(1 << 17,), compression="gzip")
        made[: 1 << 22] = 0

    return _samples(make)


def _group(file, _):
    del file["active/int64"]
    file.create_group("active/int64")


def _texts(lengths):
    def make(file, _):
        for name, data in (("utf8", b"abc"), ("utf8_lengths", lengths)):
            del file[f"active/{name}"]
            kind = np.uint8 if name == "utf8" else np.int64
            file[f"active/{name}"] = np.array(list(data), kind)

    return _samples(make)


def _sample_files():
    """Add sample files whose sidecar vouches for them."""
    FILES.update({
        "samples: link to another file": _samples(_external_link),
        "samples: virtual data of another file": _samples(_virtual),
        "samples: data in another file": _samples(_external_data),
        "samples: link in a circle": _samples(_soft_loop),
        "samples: a terabyte declared": _replace("active/int64", shape=(1 << 37,), dtype="i8", chunks=(1024,)),
        "samples: a terabyte of text declared": _replace("active/utf8", shape=(1 << 40,), dtype="u1", chunks=(1024,)),
        "samples: a bomb of integers": _bomb("active/int64", "i8"),
        "samples: a bomb of text": _bomb("active/utf8", "u1"),
        "samples: a bomb of lengths": _bomb("active/utf8_lengths", "i8"),
        "samples: objects in place of integers": _replace("active/int64", data=np.array(["a", "b"], h5py.string_dtype())),
        "samples: floats in place of integers": _replace("active/int64", data=np.array([0.5, np.nan])),
        "samples: many dimensions": _replace("active/int64", data=np.zeros((1, 2, 3), np.int64)),
        "samples: a group in place of data": _samples(_group),
        "samples: lengths below zero": _texts([-1, 4]),
        "samples: lengths that overflow": _texts([(1 << 63) - 1, (1 << 63) - 1, 5]),
        "samples: other samples": _replace("active/int64", data=np.arange(7)),
        "samples: pickle": lambda target: target.put_samples(pickle.dumps(Evil())),
        "samples: cut": lambda target: target.put_samples(target.samples.read_bytes()[:-900]),
        "samples: symlink": lambda target: _link_outside(target, target.samples),
    })  # fmt: skip


# ---------------------------------------------------------------- folders and records
@hostile
def folder_of_models_is_a_link_outside(target):
    target.model.rename(target.outside / "model")
    target.model.symlink_to(target.outside / "model")


@hostile
def experiment_is_a_link_outside(target):
    target.folder.rename(target.outside / target.exp_hash)
    target.folder.symlink_to(target.outside / target.exp_hash)


@hostile
def record_of_another_identity(target):
    def change(document):
        document["identity"]["config"] = None

    target.rewrite(target.record, change)


@hostile
def record_that_excludes_numbers(target):
    target.rewrite(target.record, lambda document: document.update(excluded=7))


@hostile
def architecture_that_is_code(target):
    def change(document):
        document["description"] = {"modules": "__import__('os').system('echo unpickled')"}

    target.rewrite(target.architecture, change)


@hostile
def picture_is_a_link_outside(target):
    _link_outside(target, target.picture)


def make_outside(folder):
    """Make what must not be touched: a folder beside the root."""
    folder.mkdir()
    (folder / "secret.json").write_text(json.dumps({"secret": "x" * 100}))
    with h5py.File(folder / "other.h5", "w") as file:
        file["active/int64"] = np.arange(5)


def contents(folder):
    """Return name -> bytes of the files outside, which are to stay as they are."""
    with contextlib.suppress(FileNotFoundError):
        return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {}


_records()
_lies()
_weights()
_configs()
_sample_files()
FILES = {re.sub(r"\s+", " ", name): make for name, make in sorted(FILES.items())}
