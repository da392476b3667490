"""What must hold of a root after a death, a failed call or a power loss, whatever was being done."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import cached_property

from support.crash_hands import HASH, OPERATIONS, digest_of
from support.roots import begin, content_of, read, save, small_root, tidy_all
from weightslab.engine.errors import CheckpointError, LockedError
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import read_manifest
from weightslab.engine.repository.layout import CheckpointName, parse_checkpoint_file
from weightslab.engine.repository.manifest import Manifest
from weightslab.engine.repository.verify import verify_files
from weightslab.engine.tensors.check import verify_file
from weightslab.formats.held import hold_file
from weightslab.formats.numbered import read_payload
from weightslab.formats.numbered_table import TABLE_FILE, read_table

NEXT_STEP = 999
ACKS = ("saved", "kept", "gone", "absent", "present", "whole", "mended", "logged")


@dataclass(frozen=True)
class View:
    """What a root shows.

    Attributes:
        checkpoints: (exp_hash, step, revision) -> content, every byte of it verified.
        files: keys of configs, samples, backups and notes, and of the records of experiments.
        findings: what `verify` says, as texts.
        broken: what is visible, or listed in the trash, and cannot be read.
        trashed: (exp_hash, step, revision) of what is in the trash, every byte of it verified.
    """

    checkpoints: dict
    files: set
    findings: set
    broken: list
    trashed: set

    @property
    def anywhere(self):
        """What can be had, if need be from the trash."""
        return self.checkpoints.keys() | self.trashed

    @property
    def steps(self):
        """The steps that some revision answers for."""
        return {key[:2] for key in self.checkpoints}


def view_of(path):
    """Look at everything a root shows."""
    root = small_root(path)
    checkpoints, broken, files = {}, [], set()
    for entry in root.checkpoints():
        name = entry.name
        try:
            manifest = read_manifest(root.store, name)
            verify_files(root.store, manifest)
        except CheckpointError as error:
            broken.append(f"{name.stem}: {error}")
        else:
            checkpoints[name.exp_hash, name.step, name.revision] = manifest.content()
    for exp_hash in root.list_hashes():
        files.add(layout.experiment_key(exp_hash))
        for folder in (layout.config_folder, layout.data_folder, layout.notes_folder):
            files |= {folder(exp_hash) + name for name in root.store.list(folder(exp_hash))}
    findings = {f"{finding.key}: {finding.problem}" for finding in root.verify()}
    trashed = set()
    # one that a power loss caught while it was emptied says that it is damaged, and is nobody's
    for entry in (entry for entry in root.trash.list() if not entry.is_damaged):
        try:
            verify_trashed(root.store, entry)
        except CheckpointError as error:  # noqa: PERF203 - one per entry
            broken.append(f"{entry.key}: {error}")
        else:
            trashed.add((entry.name.exp_hash, entry.name.step, entry.name.revision))
    broken += broken_numbers(path / "data" / "numbered")
    return View(checkpoints, files, findings, broken, trashed)


def broken_numbers(folder):
    """Return what the table of an old manager names and cannot be read."""
    if not (folder / TABLE_FILE).exists():
        return []
    broken = []
    for number, name in read_table(folder).names.items():
        try:
            with hold_file(folder / name) as held:
                read_payload(held)
        except CheckpointError as error:  # noqa: PERF203 - one per file
            broken.append(f"checkpoint {number}: {error}")
    return broken


def verify_trashed(store, entry):
    """Read every byte of what is in the trash."""
    data = store.map(f"{entry.key}{entry.name.stem}.json")
    manifest = Manifest.from_bytes(data, name=entry.name)
    for file in manifest.files:
        verify_file(store.map(entry.key + file.name), file, manifest.tensors_in(file))


class Case:
    """An operation with the root it starts from, and what a run of it without trouble comes to.

    Args:
        name: of the operation.
        folder: an empty folder, in which the roots are kept.
    """

    def __init__(self, name, folder):
        self.name = name
        self.operation = OPERATIONS[name]
        self._folder = folder

    @cached_property
    def template(self):
        """Path of the root before the work; not to be changed."""
        path = self._folder / "template"
        self.operation.prepare(path)
        return path

    @cached_property
    def before(self):
        """What the root shows before the work."""
        return view_of(self.fresh(self._folder / "before") / self.operation.inside)

    @cached_property
    def after(self):
        """What the root shows after the work."""
        path = self.fresh(self._folder / "after") / self.operation.inside
        self.operation.work(path, lambda **_: None)
        assert self.operation.holds(path)
        return view_of(path)

    def fresh(self, path):
        """Return a copy of the root before the work, with its hard links."""
        shutil.rmtree(path, ignore_errors=True)
        _copy(self.template, path)
        return path

    def problems(self, path, acks, *, done=False):
        """Return everything that is wrong with a root, and with going on in it; empty if nothing.

        Args:
            path: the folder that was prepared, as it was found.
            acks: what was acknowledged, as `(kind, value)`.
            done: the work ended and reported success.
        """
        path = path / self.operation.inside
        try:
            wrong = [(k, v) for k, v in acks if k == "absent" and (path / v).exists()]
            wrong += [(k, v) for k, v in acks if k == "present" and not (path / v).exists()]
            wrong += [(k, v) for k, v in acks if k == "whole" and digest_of(path / v[0]) != v[1]]
            num_logged = len(small_root(path).metrics())
            wrong += [(k, v) for k, v in acks if k == "logged" and num_logged < v]
            seen = view_of(path)
            found = self._seen(seen, acks, done=done, path=path)
            found += [f"not {kind}: {key}" for kind, key in wrong]
            return found + self._going_on(path, may_repeat=self._before_is_in(seen))
        except (CheckpointError, AssertionError) as error:
            return [f"the root cannot be used: {type(error).__name__}: {error}"]

    def _seen(self, seen, acks, *, done, path):
        before, after = self.before, self.after
        found = [f"unloadable: {text}" for text in seen.broken if not before.broken]
        mended = any(kind == "mended" for kind, _ in acks)
        known = after.findings if mended else before.findings
        found += [f"verify: {text}" for text in sorted(seen.findings - known)]
        for key, content in seen.checkpoints.items():
            either = [view.checkpoints[key] for view in (before, after) if key in view.checkpoints]
            found += [] if content in either else [f"another content: {key}"]
        late = self.operation.unsynced
        both = before.checkpoints.keys() & after.checkpoints.keys()
        keep = {key for key in both if _manifest_key(key) not in late}
        keep |= {tuple(value) for kind, value in acks if kind == "saved"}
        found += [f"lost: {key}" for key in keep - seen.checkpoints.keys()]
        had = before.anywhere & after.anywhere
        found += [f"nowhere: {k}" for k in had - seen.anywhere if _manifest_key(k) not in late]
        if not late:
            found += [f"no revision: {key}" for key in (before.steps & after.steps) - seen.steps]
        gone = {tuple(value) for kind, value in acks if kind == "gone"}
        found += [f"not deleted: {key}" for key in gone & seen.checkpoints.keys()]
        files = ((before.files & after.files) - {*late}) | {
            value for kind, value in acks if kind == "kept"
        }
        found += [f"lost: {key}" for key in sorted(files - seen.files)]
        if done and seen != after:
            found.append(f"false success: {seen} instead of {after}")
        if done and not self.operation.holds(path):
            found.append("false success: what the operation is for does not hold")
        return found

    def _before_is_in(self, seen):
        late = self.operation.unsynced
        kept = {key for key in self.before.checkpoints if _manifest_key(key) not in late}
        return kept <= seen.checkpoints.keys()

    def _going_on(self, path, *, may_repeat):
        """Do the work again, clean up, and save: all of it must work as if nothing had happened."""
        root = small_root(path)
        begin(root, 0)
        if self.operation.repeats:
            known = self.after if self._repeated(path) else self._both
        else:
            known = self.after if not may_repeat or self._repeated(path) else self.before
        tidy_all(root)
        found = [f"left behind: {key}" for key in strangers(path)]
        begin(root, 0)
        manifest = save(root, HASH, NEXT_STEP, "next")
        if read(root, manifest.name) != content_of("next"):
            found.append("the next save holds something else")
        seen = view_of(path)
        found += [f"afterwards unloadable: {text}" for text in seen.broken if not known.broken]
        found += [f"afterwards: {text}" for text in sorted(seen.findings - known.findings)]
        contents = [(key[:2], content) for key, content in seen.checkpoints.items()]
        for key, content in known.checkpoints.items():
            if (key[:2], content) not in contents:
                found.append(f"afterwards lost: {key}")
        return found

    @property
    def _both(self):
        """What the root shows before and after the work."""
        left = {k: v for k, v in self.before.checkpoints.items() if k in self.after.checkpoints}
        return replace(self.before, checkpoints=left)

    def _repeated(self, path):
        """Do the work again; False if what died with another boot of the machine is in the way."""
        try:
            self.operation.work(path, lambda **_: None)
        except LockedError:
            if not any(hold.stat().st_size for hold in path.rglob("*.pending")):
                raise
            return False
        return True


def _manifest_key(found):
    exp_hash, step, revision = found
    return CheckpointName(exp_hash=exp_hash, step=step, revision=revision).manifest_key


def strangers(path):
    """Return files in experiments that nothing accounts for, temporary ones included.

    Files of a revision that is held by another boot of the machine are accounted for: that is left
    to people, because a free lock proves a death on the same boot only.
    """
    root = small_root(path)
    folder, known, held = path / "checkpoints", set(), set()
    for entry in root.checkpoints():
        known.add(entry.name.manifest_key)
        files = read_manifest(root.store, entry.name).files if entry.damaged is None else ()
        known |= {entry.name.file_key(file.name) for file in files}
    for found in folder.rglob("*.pending"):
        if found.stat().st_size:
            parsed = parse_checkpoint_file(found.name)
            held |= {found.name if parsed is None else parsed[0]}
    left = []
    for found in sorted(p for p in folder.rglob("*") if not p.is_dir()):
        key, parsed = found.relative_to(path).as_posix(), parse_checkpoint_file(found.name)
        is_aside = key.startswith((layout.QUARANTINE, layout.TRASH))
        is_component = (parsed is None or is_aside) and not found.name.endswith(
            (".tmp", ".pending")
        )
        owner = found.name if parsed is None else parsed[0]
        if key not in known and not is_component and owner not in held:
            left.append(key)
    return left


def _copy(source, target):
    copies = {}
    for path in sorted(source.rglob("*")):
        to = target / path.relative_to(source)
        if path.is_dir():
            to.mkdir(parents=True)
        elif path.stat().st_ino in copies:
            to.hardlink_to(copies[path.stat().st_ino])
        else:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
            copies[path.stat().st_ino] = to


def acks_of(server, pid):
    """Return what a worker has acknowledged, as `(kind, value)`."""
    return [(k, word[k]) for word in server.words(pid) for k in ACKS if k in word]
