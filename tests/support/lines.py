"""Lines of descent in memory: experiments with samples, manifests without tensors, and what is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from support.roots import ORIGIN
from weightslab.engine.audit import run, sample_history
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.lineage import graph, history
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import ScanCatalog
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.manifest import Manifest
from weightslab.engine.repository.opening import ExperimentContent, open_experiment
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.storage.memory import MemoryStore
from weightslab.engine.values import ParentLink

FRESH = ParentLink(kind="fresh", exact=True)


def link_to(manifest, via=(), **more):
    """The link with which a checkpoint names `manifest` as its parent."""
    name = manifest.name
    facts = {"exact": not via} | more
    return ParentLink(
        kind="checkpoint",
        exp_hash=name.exp_hash,
        step=name.step,
        revision=name.revision,
        manifest_digest=manifest.digest,
        via=tuple(via),
        **facts,
    )


class Lines:
    """A root of records; what is asked of it is what `CheckpointRoot` is asked."""

    at = CheckpointRoot.at
    get_hash = CheckpointRoot.get_hash
    get_experiment = CheckpointRoot.get_experiment
    get_checkpoint = CheckpointRoot.get_checkpoint
    find_checkpoint = CheckpointRoot.find_checkpoint
    checkpoints = CheckpointRoot.checkpoints
    list_hashes = CheckpointRoot.list_hashes
    latest = CheckpointRoot.latest
    best = CheckpointRoot.best
    experiments = CheckpointRoot.experiments
    explain = CheckpointRoot.explain
    lineage = graph.lineage
    history = history.history
    audit = run.audit
    sample_history = sample_history.sample_history

    def __init__(self, store=None):
        self.path = "memory"
        self.store = MemoryStore() if store is None else store
        self.catalog = ScanCatalog(self.store)
        self._ticks = 0
        self._sequences = {}

    def now(self):
        """A moment after all others."""
        self._ticks += 1
        return ORIGIN + timedelta(seconds=self._ticks)

    def experiment(self, number, uids=None, *, changed_from=None):
        """Begin the experiment `number` with these active samples, or without any; its hash."""
        samples = uids if isinstance(uids, SampleSet) or uids is None else SampleSet.from_uids(uids)
        samples = None if samples is None else samples.frozen()
        components = Components(
            config=describe_config({"n": number}).digest,
            data=None if samples is None else samples.digest,
        )
        record = ExperimentRecord(
            components=components, created_at=self.now(), changed_from=changed_from
        )
        content = ExperimentContent(config={"n": number}, samples=samples)
        open_experiment(self.store, record, content)
        return record.exp_hash

    def save(self, exp_hash, step, parent=FRESH, *, sampler=None, revision=1, **more):
        """Write a manifest; `parent` is a link or the manifest before it."""
        link = link_to(parent) if isinstance(parent, Manifest) else parent
        self._sequences[exp_hash] = self._sequences.get(exp_hash, 0) + 1
        samplers = sampler if isinstance(sampler, list) else [sampler] if sampler else []
        tracked = {f"order{n}": saved_sampler(state) for n, state in enumerate(samplers)}
        manifest = Manifest(
            **{
                "name": CheckpointName(exp_hash=exp_hash, step=step, revision=revision),
                "experiment_digest": "wl1:sha256:" + exp_hash * 4,
                "sequence": self._sequences[exp_hash],
                "created_at": self.now(),
                "parent": link,
                "state": {"model": {}, "training": {"tracked": tracked}},
                **more,
            }
        )
        return self.write(manifest)

    def write(self, manifest):
        """Write a manifest as it is; what the root then reads."""
        data = manifest.to_bytes()
        self.store.put(manifest.name.manifest_key, [data])
        return Manifest.from_bytes(data, name=manifest.name)

    # ------------------------------------------------------------ losses
    def lose(self, manifest):
        """Delete a checkpoint."""
        self.store.delete(manifest.name.manifest_key)

    def lose_experiment(self, exp_hash):
        """Delete an experiment."""
        for folder in (layout.model_folder, layout.data_folder, layout.config_folder):
            for name in self.store.list(folder(exp_hash)):
                self.store.delete(folder(exp_hash) + name)
        self.store.delete(layout.experiment_key(exp_hash))

    def damage(self, manifest):
        """Cut the manifest of a checkpoint."""
        self.store.put(manifest.name.manifest_key, [manifest.to_bytes()[:-9]])

    def damage_samples(self, exp_hash):
        """Cut the samples file of an experiment."""
        key = layout.data_key(exp_hash)
        self.store.put(key, [bytes(self.store.map(key))[:-9]])

    def replace(self, manifest):
        """Put another checkpoint of the same name in its place."""
        return self.write(replace(manifest, metadata="another", parent=FRESH, digest=""))

    def trash(self, manifest):
        """Move a checkpoint into the trash."""
        stem = manifest.name.stem
        self.store.put(f"{layout.TRASH}{stem}/{stem}.json", [manifest.to_bytes()])
        self.lose(manifest)

    def thin(self, manifest):
        """Replace a checkpoint by the revision that thinning makes of it."""
        name = replace(manifest.name, revision=manifest.name.revision + 1)
        state = {"model": {}}
        made = replace(manifest, name=name, state=state, derived_from=manifest.digest, digest="")
        self.lose(manifest)
        return self.write(made)


def saved_sampler(state):
    """A sampler state as a manifest holds it."""
    name = "weightslab.engine.training.sampler.ResumableSampler"
    return {"kind": "stateful", "class": name, "state": state}
