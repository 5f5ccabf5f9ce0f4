import functools
import http.server
import threading

import fsspec
import pytest

from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.datamodules.shards.cache import OpenShards, ShardCache
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.streaming.locations import open_sources
from multimodal.errors import SampleError


@pytest.fixture
def remote(make_shards, tmp_path):
    """Put shards into a file system of fsspec that is not local; return URL and local folder."""
    folder = make_shards()
    url = f"memory://{tmp_path.name}/shards"
    system = fsspec.filesystem("memory")
    for path in folder.iterdir():
        system.pipe(f"/{tmp_path.name}/shards/{path.name}", path.read_bytes())
    return url, folder


@pytest.fixture
def served(make_shards):
    """Serve shards over HTTP; return URL, local folder and the requests made."""
    folder, asked = make_shards(), []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder, asked
    server.shutdown()
    server.server_close()


def read(source, transforms, cache, **settings):
    loader = ShardDataModule(str(source), transforms, 4, cache=cache, **settings).train_dataloader()
    return [key for batch in loader for key in batch.keys]


def test_remote_shards_are_read_as_local_ones(remote, transforms, tmp_path):
    url, folder = remote
    assert read(url, transforms, ShardCache(str(tmp_path / "copies"))) == read(folder, transforms, None)
    assert {path.name for path in (tmp_path / "copies").glob("*/*.tar")} == {f"train-{number:06d}.tar" for number in range(3)}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_shard_is_fetched_once_over_http(served, transforms, tmp_path, num_workers):
    url, folder, asked = served
    cache = ShardCache(str(tmp_path / "copies"))
    for _ in range(2):
        assert read(url, transforms, cache, num_workers=num_workers) == read(folder, transforms, None)
    fetched = [path for path in asked if path.endswith(".tar")]
    assert set(fetched) == {f"/train-{number:06d}.tar" for number in range(3)}
    assert not list((tmp_path / "copies").rglob("*.part"))


def test_a_shard_that_is_not_what_the_index_says_is_bad_samples(remote, tmp_path):
    url, folder = remote
    data = bytearray((folder / "train-000001.tar").read_bytes())
    data[600] ^= 1
    fsspec.filesystem("memory").pipe(url.removeprefix("memory:/") + "/train-000001.tar", bytes(data))
    shards = OpenShards(open_sources([url]), "train", ShardCache(str(tmp_path / "copies"), attempts=1))
    error = shards.reader(0, 1).read(3)
    assert isinstance(error, SampleError)
    assert "memory://" in error.shard and "not what the index says" in error.reason
    assert shards.reader(0, 0).key(0)
    assert len(list((tmp_path / "copies").glob("*/*.tar"))) == 1


def test_a_missing_remote_shard_is_bad_samples(remote, tmp_path):
    url, _ = remote
    fsspec.filesystem("memory").rm(url.removeprefix("memory:/") + "/train-000002.tar")
    shards = OpenShards(open_sources([url]), "train", ShardCache(str(tmp_path / "copies"), attempts=2))
    error = shards.reader(0, 2).read(5)
    assert (error.shard, error.key) == (f"{url}/train-000002.tar", "sample number 5")
    assert error.reason.startswith(f"the shard cannot be had: {url}/train-000002.tar: FileNotFoundError")


def test_old_copies_make_room(remote, transforms, tmp_path):
    url, folder = remote
    largest = max(shard.bytes for shard in ShardIndex.load(folder).shards("train"))
    cache = ShardCache(str(tmp_path / "copies"), max_bytes=largest + 1)
    for _ in range(2):
        assert read(url, transforms, cache) == read(folder, transforms, None)
    assert sum(path.stat().st_size for path in (tmp_path / "copies").glob("*/*.tar")) <= largest + 1


def test_few_files_are_open_at_a_time(make_shards):
    shards = OpenShards([ShardIndex.load(make_shards(count=40, samples_per_shard=2))], "train", ShardCache(), max_open=3)
    for shard in range(20):
        shards.reader(0, shard)
    assert [shards.is_open(0, shard) for shard in (16, 17, 18, 19)] == [False, True, True, True]
    assert shards.reader(0, 0).read(1).key


@pytest.mark.parametrize(
    ("settings", "message"), [({"max_bytes": 0}, "max_bytes of the cache"), ({"attempts": 0}, "attempts of the cache")]
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ShardCache(**settings)
