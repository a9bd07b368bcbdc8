"""Weights from the Hugging Face hub, fetched only where a source begins with `hf:`.

Files land in the hub's own cache, where other programs find them too. A download that broke off, or whose program was
killed, goes on where it was; every file is compared with the checksum that the hub has of it.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...console import Progress
from ...exits import BAD_INPUT, USAGE, Failure
from ...text.vocabulary import hub_cache
from .folders import INDEX, shards
from .repositories import choose

SOURCE = re.compile(r"hf:([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?(?::(.+?))?/?")
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MB = 1_000_000


class Remote(NamedTuple):
    """A file of a repository. digest: sha256 of large files, git's sha1 of small ones, "" where it is not told."""

    size: int
    digest: str


def fetched(source: str, say: Callable[[str], Any], system: bool = False) -> str:
    """The path of a source, fetched first where it is one of the hub: hf:owner/name[@revision][:file or folder].

    system: all models of the repository. Raises Failure in one line for all that can be wrong with it or the network.
    """
    if not source.startswith("hf:"):
        return source
    named = SOURCE.fullmatch(source)
    if named is None:
        raise Failure(f"{source}: write hf:owner/name, hf:owner/name@revision or hf:owner/name:file", USAGE)
    repo, revision, inside = named[1], named[2] or "main", named[3] or ""
    with _hub(repo, revision) as hub:
        try:
            info = hub.api.model_info(repo, revision=revision, files_metadata=True)
        except ConnectionError:
            info = None
        except Exception as error:
            if not _of_the_network(error):
                raise
            info = None
        if info is None:
            return _from_cache(hub, inside, say)
        files = {one.rfilename: _remote(one) for one in info.siblings or ()}
        names = choose(list(files), inside, system, source)
        todo = [name for name in names if not hub.there(info.sha, name, files[name])]
        hub.meter(sum(files[name].size for name in todo), say)
        paths = [hub.fetch(name, files[name], info.sha) for name in names]
        for index, path in [(name, path) for name, path in zip(names, paths) if name.endswith(INDEX)]:
            told = _named_by(index, path, files)
            hub.meter(sum(files[name].size for name in told if not hub.there(info.sha, name, files[name])), say)
            paths += [hub.fetch(name, files[name], info.sha) for name in told]
        hub.close()
        return str(hub.folder / "snapshots" / info.sha / inside)


def _named_by(index: str, path: Path, files: dict[str, Remote]) -> list[str]:
    """The shards of an index that was fetched. Raises Failure when the repository lacks one."""
    folder = index.rpartition("/")[0]
    names = [f"{folder}/{file.name}".lstrip("/") for file in shards(path, there=False)[0]]
    missing = [name for name in names if name not in files]
    if missing:
        raise Failure(f"{index}: {len(missing)} of its shards are missing: {', '.join(missing[:5])}", BAD_INPUT)
    return names


def _remote(sibling: Any) -> Remote:
    large = sibling.lfs or {}
    digest = (large.get("sha256") if isinstance(large, dict) else large.sha256) or sibling.blob_id or ""
    return Remote(sibling.size or 0, digest if DIGEST.fullmatch(digest) else "")


class Hub:
    """One repository of the hub at one revision, and its place in the cache."""

    def __init__(self, repo: str, revision: str):
        try:
            import huggingface_hub
            from huggingface_hub.utils import disable_progress_bars, logging
        except ImportError:
            raise Failure("hf: needs the package huggingface_hub: pip install huggingface_hub", USAGE) from None
        disable_progress_bars()  # ours is shown
        logging.set_verbosity_error()
        self.library = huggingface_hub
        self.repo, self.revision = repo, revision
        self.endpoint = (os.environ.get("HF_ENDPOINT") or huggingface_hub.constants.ENDPOINT).rstrip("/")
        self.api: Any = huggingface_hub.HfApi(endpoint=self.endpoint)
        self.folder = hub_cache() / f"models--{repo.replace('/', '--')}"
        self.progress: Progress | None = None

    def there(self, commit: str, name: str, remote: Remote) -> bool:
        return (self.folder / "snapshots" / commit / name).is_file() or self._blob(remote).is_file()

    def _blob(self, remote: Remote) -> Path:
        return self.folder / "blobs" / (remote.digest or "unknown")

    def meter(self, size: int, say: Callable[[str], Any]) -> None:
        """Show how far so many bytes are. Raises Failure when the disk has no room for them."""
        if not size:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(self.folder).free
        if room < size:
            told = f"{size / MB:.0f} MB to fetch and {room / MB:.0f} MB free in {self.folder.parent}"
            raise Failure(f"{self.repo}: {told}; set HF_HOME to a larger disk")
        say(f"{self.repo}: {size / MB:.1f} MB to fetch to {self.folder}")
        self.close()
        self.progress = Progress("MB fetched", max(1, size // MB))

    def close(self) -> None:
        if self.progress:
            self.progress.close()

    def fetch(self, name: str, remote: Remote, commit: str) -> Path:
        """A file in the cache, whole and as the hub has it. Raises Failure."""
        blob, kept = self._blob(remote), self.folder / "snapshots" / commit / name
        if remote.digest and not blob.is_file() and not kept.is_file():
            self._download(name, remote, commit, blob)
        arguments = {"revision": self.revision, "cache_dir": self.folder.parent, "endpoint": self.endpoint}
        path = Path(self.library.hf_hub_download(self.repo, name, **arguments))
        if remote.digest and _digest(path, remote) != remote.digest:
            raise Failure(f"{path.resolve()}: not what the hub has (its checksum differs); remove it, and fetch again")
        return path

    def _download(self, name: str, remote: Remote, commit: str, blob: Path) -> None:
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        blob.parent.mkdir(parents=True, exist_ok=True)
        partial = blob.with_name(f"{blob.name}.dalle.incomplete")
        url = self.library.hf_hub_url(self.repo, name, revision=commit, endpoint=self.endpoint)
        partial.touch()
        with open(partial, "r+b") as file, _alone(file, name):
            done = file.seek(0, 2)
            if done > remote.size:
                file.truncate(0)
                done = file.seek(0)
            sink: Any = _Metered(file, self.progress, done)
            try:
                http_get(url, sink, resume_size=done, headers=build_hf_headers(), expected_size=remote.size)
            except Exception as error:
                if not _of_the_network(error) and "Consistency check" not in str(error):
                    raise
                got = f"{file.tell() / MB:.1f} of {remote.size / MB:.1f} MB"
                raise Failure(
                    f"{self.repo}: {name} broke off after {got}; the same command goes on from there"
                ) from None
        if _digest(partial, remote) != remote.digest:
            partial.unlink()
            raise Failure(f"{self.repo}: {name} arrived damaged (its checksum differs); fetch it again")
        os.replace(partial, blob)


class _Metered:
    """A file for `http_get`, whose bytes are counted."""

    def __init__(self, file: Any, progress: Progress | None, done: int):
        self.file, self.progress, self.rest = file, progress, 0
        self.seek, self.tell, self.truncate = file.seek, file.tell, file.truncate
        self._count(done)

    def write(self, data: bytes) -> int:
        self._count(len(data))
        return self.file.write(data)

    def _count(self, size: int) -> None:
        whole, self.rest = divmod(self.rest + size, MB)
        if self.progress and whole:
            self.progress.advance(whole)


@contextlib.contextmanager
def _alone(file: Any, name: str) -> Iterator[None]:
    """No other process writes the same file. Raises Failure."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failure(f"{name} is being fetched by another program; wait for it") from None
    except OSError:  # a file system without locks
        pass
    yield


def _digest(path: Path, remote: Remote) -> str:
    """The checksum of a file, of the kind that the hub gives."""
    with open(path, "rb") as file:
        if len(remote.digest) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()


def _from_cache(hub: Hub, inside: str, say: Callable[[str], Any]) -> str:
    """What was fetched earlier, where the hub is not to be reached. Raises Failure."""
    reference = hub.folder / "refs" / hub.revision
    commit = reference.read_text().strip() if reference.is_file() else hub.revision
    path = hub.folder / "snapshots" / commit / inside
    if not path.exists():
        raise Failure(f"{hub.endpoint} cannot be reached, and {hub.repo} was not fetched before; give a file instead")
    say(f"{hub.endpoint} cannot be reached; taking what was fetched before: {path}")
    return str(path)


@contextlib.contextmanager
def _hub(repo: str, revision: str) -> Iterator[Hub]:
    """Turns what the hub answers into one line."""
    hub = Hub(repo, revision)
    from huggingface_hub import errors

    page = f"{hub.endpoint}/{repo}"
    login = "run `hf auth login`, or set HF_TOKEN"
    try:
        yield hub
    except errors.GatedRepoError:
        told = f"accept its terms at {page}, then {login}"
        raise Failure(f"{repo} is given only to those who were let in: {told}", BAD_INPUT) from None
    except errors.RepositoryNotFoundError:
        raise Failure(f"no repository {repo} at {hub.endpoint}; if it is private, {login}", BAD_INPUT) from None
    except errors.RevisionNotFoundError:
        raise Failure(f"{repo} has no revision '{revision}'", BAD_INPUT) from None
    except errors.EntryNotFoundError as error:
        raise Failure(f"{repo}: {_first_line(error)}", BAD_INPUT) from None
    except errors.HfHubHTTPError as error:
        raise Failure(f"{page}: {_first_line(error)}") from None
    except Exception as error:
        if not _of_the_network(error):
            raise
        raise Failure(f"{hub.endpoint}: the connection failed: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _of_the_network(error: Exception) -> bool:
    """Whether an error is one of the libraries that huggingface_hub speaks through, by its versions."""
    from huggingface_hub.errors import HfHubHTTPError

    library = type(error).__module__.partition(".")[0]
    known = library in ("httpx", "httpx2", "httpcore", "requests", "urllib3") or isinstance(error, ConnectionError)
    return known and not isinstance(error, HfHubHTTPError)
