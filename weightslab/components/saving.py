"""Saving: from captured objects to a commit, at once or in the background."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from weightslab.components import advising
from weightslab.engine.errors import ExperimentNotFoundError
from weightslab.engine.repository import opening
from weightslab.engine.saving.background import BackgroundWriter
from weightslab.engine.saving.buffers import HostBuffers
from weightslab.engine.saving.snapshot import hold_still
from weightslab.engine.saving.writer import write_or_find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from weightslab.engine.repository.commit import Draft
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.root import CheckpointRoot
    from weightslab.engine.saving.ancestry import Ancestry
    from weightslab.engine.saving.loop import LoopProgress

__all__ = ["CheckpointSaver"]


class CheckpointSaver:
    """Commits drafts for one manager.

    At once and in the background the same is done (`_commit`); the background only gets a copy of the
    state, in host memory that is used again by the next save.

    Args:
        root: where to.
        ancestry: follows the model objects.
        progress: is told of each save.
        before_commit: called before each commit, in its thread.
        in_background: return from `save` before the commit.
        queue_depth: snapshots that may be under way then, each with memory of its own.
        retain: called with the experiment after each commit; raises nothing.
    """

    def __init__(
        self,
        root: CheckpointRoot,
        ancestry: Ancestry,
        progress: LoopProgress,
        *,
        before_commit: Callable[[], None],
        in_background: bool,
        queue_depth: int,
        retain: Callable[[str], None] | None = None,
    ) -> None:
        if isinstance(queue_depth, bool) or not isinstance(queue_depth, int) or queue_depth < 1:
            raise ValueError(f"queue_depth is an int >= 1, not {queue_depth!r}")
        self._root = root
        self._ancestry = ancestry
        self._progress = progress
        self._before_commit = before_commit
        self._because: str | None = None
        self._at_once = False
        self._retain = retain
        self._background = BackgroundWriter(depth=queue_depth) if in_background else None
        self._buffers = HostBuffers(keep=queue_depth)

    def save(self, capture: Callable[[], Draft], modules: Sequence[Any]) -> Path:
        """Commit what `capture` returns; in the background once its state is copied.

        Args:
            capture: lays out the live objects.
            modules: the unwrapped model objects, whose ancestry goes on from here.
        Returns: path of the weights file; in the background the one it gets if the step is new and
            nothing of it is committed already.
        Raises: AsyncSaveError if an earlier save failed; this one is not done then.
        """
        because = self._because
        if self._background is None or self._at_once:
            self.finish()
            manifest = self._commit_now(capture(), modules, because)
            self._progress.note_saved(manifest.name.exp_hash, manifest.name.step)
            return self._root.path / manifest.name.file_key(manifest.weights_file())
        self._background.reserve()
        try:
            draft = capture()
            images, give_back = hold_still(draft.images, self._buffers)
        except BaseException:  # Ctrl-C, too, leaves no place taken
            self._background.cancel()
            raise
        still = replace(draft, images=images)

        def commit() -> None:
            try:
                self._commit(still, modules, because)
            except BaseException:
                self._progress.note_failed(still.exp_hash, still.step)
                raise
            finally:
                give_back()

        name = draft.name
        self._progress.note_saved(name.exp_hash, name.step)  # before: it may fail at once
        self._background.start(f"saving step {draft.step} of {draft.exp_hash}", commit)
        part = min(part for part in images if part != "training")
        return self._root.path / name.file_key(name.file_name(part))

    def _commit_now(self, draft: Draft, modules: Sequence[Any], because: str | None) -> Manifest:
        if not any(image.device_parts for image in draft.images.values()):
            return self._commit(draft, modules, because)  # from where the tensors lie
        images, give_back = hold_still(draft.images, self._buffers)
        try:
            return self._commit(replace(draft, images=images), modules, because)
        finally:
            give_back()

    @contextmanager
    def occasion(self, because: str, *, at_once: bool = False) -> Iterator[None]:
        """Have the saves within the block say why they are done.

        Args:
            because: goes into the journal with each event of the save.
            at_once: on disk when `save` returns, after all that was accepted before, also in the
                background; the state is not copied then.
        """
        self._because, self._at_once = because, at_once
        try:
            yield
        finally:
            self._because, self._at_once = None, False

    def check(self) -> None:
        """Raise what went wrong in the background, without waiting for what is under way.

        Raises: AsyncSaveError if an earlier save failed.
        """
        if self._background is not None:
            self._background.check()

    def finish(self) -> None:
        """Wait until nothing is under way; errors stay for `check` and `wait`."""
        if self._background is not None:
            self._background.finish()

    def wait(self) -> None:
        """Wait until everything is committed.

        Raises: AsyncSaveError if an earlier save failed.
        """
        if self._background is not None:
            self._background.wait()

    def close(self) -> None:
        """Wait, and give the memory back.

        Raises: AsyncSaveError if an earlier save failed.
        """
        try:
            self.wait()
        finally:
            self._buffers.clear()

    def _commit(self, draft: Draft, modules: Sequence[Any], because: str | None) -> Manifest:
        start = self._progress.clock()
        self._before_commit()
        root, exp_hash = self._root, draft.exp_hash
        if root.catalog.experiment(exp_hash) is None:
            raise ExperimentNotFoundError(
                f"experiment {exp_hash} is not in {root.path} any more",
                hint="it was deleted; call update_experiment_hash() to begin it again",
            )
        # Here, not when the draft was made: the save before has given the objects a new parent.
        draft = replace(
            draft,
            parent=self._ancestry.parent_of(modules, exp_hash),
            config_file=opening.newest_config(root.store, exp_hash),
        )
        manifest, is_new = write_or_find(root, draft, because=because)
        if is_new and manifest.name.revision > 1:
            advising.warn_replaced(root, manifest)
        self._ancestry.settle(modules, manifest)
        self._progress.commit_seconds = self._progress.clock() - start
        if is_new and self._retain is not None:
            self._retain(exp_hash)
        return manifest
