"""Download weights from the Hugging Face hub, only where a source begins with `hf:`.

huggingface_hub downloads into its cache, where other programs share the files. It resumes a connection that breaks, and
complete files are not downloaded again. Each file is compared with the checksum that the hub lists for it.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...exits import BAD_INPUT, USAGE, Failure
from ...text.vocabulary import hub_cache
from .folders import INDEX, shards
from .repositories import choose

SOURCE = re.compile(r"hf:([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?(?::(.+?))?/?")
CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MB = 1_000_000
Log = Callable[[str], Any]


class RemoteFile(NamedTuple):
    """A file of a repository. checksum: sha256 of large files, git's sha1 of small ones, "" for an unknown one."""

    size: int
    checksum: str


def fetch_source(source: str, log: Log, system: bool = False) -> str:
    """Return the path of a source, downloaded first where it is hf:owner/name[@revision][:file or folder].

    system: download all models of the repository. Raises Failure in one line for whatever the hub or the network says.
    """
    if not source.startswith("hf:"):
        return source
    match = SOURCE.fullmatch(source)
    if match is None:
        raise Failure(f"{source}: write hf:owner/name, hf:owner/name@revision or hf:owner/name:file", USAGE)
    inside = match[3] or ""
    with _repository(match[1], match[2] or "main") as repository:
        files = repository.list_files()
        if files is None:
            return str(repository.cached(inside, log))
        names = choose(list(files), inside, system, source)
        repository.download({name: files[name] for name in names}, log)
        for index in [name for name in names if name.endswith(INDEX)]:
            repository.download(_shards_of(index, repository.snapshot / index, files), log)
        return str(repository.snapshot / inside)


def _shards_of(index: str, path: Path, files: dict[str, RemoteFile]) -> dict[str, RemoteFile]:
    """The shards that a downloaded index names. Raises Failure when the repository lacks one."""
    folder = index.rpartition("/")[0]
    names = [f"{folder}/{file.name}".lstrip("/") for file in shards(path, must_exist=False)[0]]
    missing = [name for name in names if name not in files]
    if missing:
        raise Failure(f"{index}: {len(missing)} of its shards are missing: {', '.join(missing[:5])}", BAD_INPUT)
    return {name: files[name] for name in names}


class Repository:
    """A repository of the hub at one revision. snapshot: its folder in the cache, once its files are listed."""

    snapshot: Path

    def __init__(self, name: str, revision: str):
        try:
            import huggingface_hub
            from huggingface_hub.utils import logging
        except ImportError:
            raise Failure("hf: needs the package huggingface_hub: pip install huggingface_hub", USAGE) from None
        logging.set_verbosity_error()
        self.library = huggingface_hub
        self.name, self.revision, self.cache = name, revision, hub_cache()
        self.endpoint = (os.environ.get("HF_ENDPOINT") or huggingface_hub.constants.ENDPOINT).rstrip("/")

    def list_files(self) -> dict[str, RemoteFile] | None:
        """Return the files of the revision by name, None where the hub cannot be reached."""
        api: Any = self.library.HfApi(endpoint=self.endpoint)
        try:
            info = api.model_info(self.name, revision=self.revision, files_metadata=True)
        except Exception as error:
            if not _is_network_error(error):
                raise
            return None
        self.snapshot = self.cache / f"models--{self.name.replace('/', '--')}" / "snapshots" / info.sha
        return {sibling.rfilename: _remote_file(sibling) for sibling in info.siblings or ()}

    def download(self, files: dict[str, RemoteFile], log: Log) -> None:
        """Download what the cache lacks, and check all of it. Raises Failure."""
        missing = [name for name in files if not self._is_cached(name)]
        if size := sum(files[name].size for name in missing):
            self.cache.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.cache).free
            if free < size:
                needed = f"{size / MB:.0f} MB to download and {free / MB:.0f} MB free in {self.cache}"
                raise Failure(f"{self.name}: {needed}; set HF_HOME to a larger disk")
            log(f"{self.name}: {size / MB:.1f} MB to download to {self.cache}")
        for name, file in files.items():
            path = self._download(name)
            if path.parents[name.count("/")] != self.snapshot:
                raise Failure(f"{self.name}: was updated during the download; run the command again")
            if not _matches(path, file):
                log(f"{name}: its checksum differs from the hub's; downloading it again")
                path = self._download(name, force_download=True)
            if not _matches(path, file):
                path.resolve().unlink()
                raise Failure(f"{self.name}: {name} arrived damaged (its checksum differs); run the command again")

    def _is_cached(self, name: str) -> bool:
        commit = self.snapshot.name
        return isinstance(self.library.try_to_load_from_cache(self.name, name, self.cache, revision=commit), str)

    def _download(self, name: str, force_download: bool = False) -> Path:
        options: dict[str, Any] = {"cache_dir": self.cache, "endpoint": self.endpoint, "force_download": force_download}
        try:
            return Path(self.library.hf_hub_download(self.name, name, revision=self.revision, **options))
        except Exception as error:
            if not _is_network_error(error) and "Consistency check" not in str(error):
                raise
            problem = f"{self.name}: the download of {name} broke off ({_first_line(error)})"
            raise Failure(f"{problem}; run the command again: complete files are kept") from None

    def cached(self, inside: str, log: Log) -> Path:
        """Return what was downloaded earlier, where the hub cannot be reached. Raises Failure."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        options: dict[str, Any] = {"cache_dir": self.cache, "local_files_only": True}
        try:
            path = Path(self.library.snapshot_download(self.name, revision=self.revision, **options)) / inside
        except LocalEntryNotFoundError:
            path = None
        if path is None or not path.exists():
            raise Failure(
                f"{self.endpoint} cannot be reached, and {self.name} was not downloaded before; give a file instead"
            )
        log(f"{self.endpoint} cannot be reached; using what was downloaded before: {path}")
        return path


def _remote_file(sibling: Any) -> RemoteFile:
    large = sibling.lfs or {}
    checksum = (large.get("sha256") if isinstance(large, dict) else large.sha256) or sibling.blob_id or ""
    return RemoteFile(sibling.size or 0, checksum if CHECKSUM.fullmatch(checksum) else "")


def _matches(path: Path, file: RemoteFile) -> bool:
    """Whether a file has the checksum that the hub lists; True where it lists none."""
    if not file.checksum:
        return True
    with open(path, "rb") as stream:
        if len(file.checksum) == 64:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.checksum
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest() == file.checksum


@contextlib.contextmanager
def _repository(name: str, revision: str) -> Iterator[Repository]:
    """A repository whose errors become one line."""
    repository = Repository(name, revision)
    from huggingface_hub import errors

    page = f"{repository.endpoint}/{name}"
    login = "run `hf auth login`, or set HF_TOKEN"
    try:
        yield repository
    except errors.GatedRepoError:
        raise Failure(f"{name} is gated: accept its terms at {page}, then {login}", BAD_INPUT) from None
    except errors.RepositoryNotFoundError:
        raise Failure(f"no repository {name} at {repository.endpoint}; if it is private, {login}", BAD_INPUT) from None
    except errors.RevisionNotFoundError:
        raise Failure(f"{name} has no revision '{revision}'", BAD_INPUT) from None
    except errors.EntryNotFoundError as error:
        raise Failure(f"{name}: {_first_line(error)}", BAD_INPUT) from None
    except errors.HfHubHTTPError as error:
        raise Failure(f"{page}: {_first_line(error)}") from None
    except Exception as error:
        if not _is_network_error(error):
            raise
        raise Failure(f"{repository.endpoint}: the connection failed: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _is_network_error(error: Exception) -> bool:
    """Whether an error is one of the HTTP libraries that the versions of huggingface_hub use."""
    from huggingface_hub.errors import HfHubHTTPError

    library = type(error).__module__.partition(".")[0]
    known = library in ("httpx", "httpx2", "httpcore", "requests", "urllib3") or isinstance(error, ConnectionError)
    return known and not isinstance(error, HfHubHTTPError)
