"""The errors that bad input ends in."""


class SampleError(ValueError):
    """One field of one sample cannot be used.

    Args:
        shard: path of the shard or file.
        key: key of the sample.
        field: field (file extension) within the sample.
        reason: what is wrong, in words.
    """

    def __init__(self, shard: str, key: str, field: str, reason: str) -> None:
        super().__init__(shard, key, field, reason)
        self.shard, self.key, self.field, self.reason = shard, key, field, reason

    def __str__(self) -> str:
        return f"shard {self.shard}, key {self.key!r}, field {self.field!r}: {self.reason}"
