"""Features of clips as shards -> the same shards with the ids of their clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import torch

from multimodal.clips.cluster import facts_of
from multimodal.clips.feature_stream import clips_in
from multimodal.clips.recipe import SAID, check_device
from multimodal.clips.rewriting import Rewriting
from multimodal.datamodules.jobs.folder_run import WriteResult
from multimodal.datamodules.jobs.run_jobs import Advance
from multimodal.datamodules.shards.contents import Contents
from multimodal.datamodules.shards.index import ShardIndex, ShardInfo
from multimodal.datamodules.shards.reader import RawSample
from multimodal.datamodules.tokenizing.rewritten_shard import ShardJob, one_thread, rewrite_shard
from multimodal.datamodules.tokenizing.tokenize import RunOptions
from multimodal.errors import SampleError
from multimodal.protocols import Tokenizer
from multimodal.tokenizers.clip_file import FIELD, Clips, write_clips
from multimodal.tokenizers.pretrained import load_tokenizer


@dataclass(frozen=True)
class EncodeOptions:
    """What makes the ids, and what stays beside them.

    Args:
        tokenizer: folder of the tree of clusters.
        keep_features: whether the features stay beside the ids.
        device: of the tokenizer, "cpu" or "cuda".
    """

    tokenizer: str
    keep_features: bool = False
    device: str = "cpu"


def write_clip_ids(
    source: ShardIndex,
    folder: Path | str,
    how: EncodeOptions,
    options: RunOptions | None = None,
    listener: Advance | None = None,
) -> WriteResult:
    """Write, for every shard with features of clips, a shard of the same name with their ids, and the index.

    A run that was interrupted goes on with the shards that are not finished.

    Args:
        source: holds the features.
        folder: made if it is not there; one that holds the result already stays as it is.
        how: what makes the ids.
        options: who does the work.
        listener: told of samples and bytes that are done.

    Raises:
        SampleError: a sample cannot be read, or its clips are damaged or have no features.
        ValueError: the tokenizer was made from the features of another extractor, or has several ids for a feature; the folder holds
            other shards, or another process writes there.
        OSError: the disk is full (the message names the shard), or a worker process died.
    """
    tokenizer = cached_tokenizer(how.tokenizer, how.device)
    if len(tokenizer.vocab_sizes) != 1:
        raise ValueError(f"{how.tokenizer} gives {len(tokenizer.vocab_sizes)} ids for a feature; clips have one each.")
    made, known = source.writer[SAID].get("extractor"), facts_of(Path(how.tokenizer)).get("extractor")
    if known and made != known:
        raise ValueError(
            f"the clusters in {how.tokenizer} are of features of another extractor ({str(known)[:12]}) than the shards' ({str(made)[:12]})."
        )
    own = {
        "tokenizer": tokenizer.fingerprint(),
        "vocab_size": tokenizer.vocab_sizes[0],
        "features": how.keep_features,
        "encode_device": how.device.partition(":")[0],
    }
    return Rewriting(source, Path(folder), {**source.writer[SAID], **own}).run(ClipIdWriter(how), options, listener)


@lru_cache(maxsize=1)
def cached_tokenizer(folder: str, device: str) -> Tokenizer:
    """Return the tokenizer; kept for the next shard of the process.

    Raises:
        ValueError: there is none, or no such device.
    """
    check_device(device)
    return load_tokenizer(folder).to(device).eval()


@dataclass(frozen=True)
class ClipIdWriter:
    """Makes shards with ids of clips; the result depends on the shard and the settings only.

    Args:
        how: what makes the ids.
    """

    how: EncodeOptions

    def __call__(self, job: ShardJob) -> tuple[ShardInfo, Contents]:
        """Write the new shard: the same keys in the same order.

        Raises:
            SampleError: the source is damaged, or clips in it are.
            OSError: the disk is full, or the source cannot be fetched.
        """
        with one_thread(self.how.device):
            tokenizer = cached_tokenizer(self.how.tokenizer, self.how.device)
            return rewrite_shard(job, 1, partial(self._samples, tokenizer, tokenizer.fingerprint()))

    def _samples(
        self, tokenizer: Tokenizer, fingerprint: str, samples: Iterator[RawSample], problems: list[str]
    ) -> Iterator[tuple[RawSample, dict[str, bytes]]]:
        for raw in samples:
            if FIELD not in raw.fields:
                yield raw, raw.fields
                continue
            clips = clips_in(raw)
            try:
                ids = self._ids(tokenizer, clips)
            except ValueError as error:
                raise SampleError(raw.shard, raw.key, FIELD, str(error)) from error
            told = replace(clips, ids=ids, tokenizer=fingerprint, features=clips.features if self.how.keep_features else None)
            yield raw, {**raw.fields, FIELD: write_clips(told)}

    @torch.no_grad()
    def _ids(self, tokenizer: Tokenizer, clips: Clips) -> torch.Tensor:
        if clips.features is None:
            raise ValueError("its clips have no features.")
        return tokenizer.encode(clips.features.to(self.how.device).float()).cpu()
