"""Model files on the Hugging Face hub: found in a local directory or the hub's cache, downloaded, uploaded."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

from .system.files import read_json_object
from .system.foreign import described
from .system.names import listing

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
_INSTALL = 'pip install "kdistill[hub]"'
_INDEX_SUFFIX = ".index.json"
_TIMEOUT_SECONDS = 10
MODULES_FILE = "modules.json"
"""Lists the modules of a model of sentence-transformers, each in a folder."""
RUN_FILE = "training_args.json"
"""Marks the output directory of a training run, which has a model of its own once the run is finished."""
_MODEL_FILE = "config.json"
ATTEMPTS = 5
RETRY_SECONDS = 1.0  # before the second attempt; it doubles


def resolve(
    path_or_id: str | os.PathLike[str],
    needed: Sequence[Sequence[str]],
    optional: Sequence[str] = (),
    *,
    token: str | bool | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    subfolder: str | None = None,
) -> Path:
    """Return the directory of a model's files: a local one, else one in the hub's cache, else a download.

    A `Path` is never looked up on the hub: "out/checkpoint-4" would be a hub id too, and the paths that kdistill makes
    must not become somebody's model when they are gone.

    Args:
        path_or_id: a directory, or, as text, a hub id such as `google/bert_uncased_L-2_H-128_A-2`.
        needed: groups of file names. One file of each group must exist; from the hub the first one available is
            downloaded. A name that ends in `.index.json` stands for itself and the shards it lists.
        optional: names of files, perhaps in a folder, that are downloaded too when the hub has them.
        token: the hub's access token (None or True: that of `hf auth login`; False: no token).
        revision: a branch, tag or commit on the hub (default: main); ignored for a local directory.
        cache_dir: the hub's cache (default: HF_HUB_CACHE, or hub in HF_HOME).
        force_download: download what the cache has too.
        local_files_only: download nothing.
        subfolder: the folder, in the directory or repository, that holds the files.

    Raises:
        FileNotFoundError: neither a directory nor a reachable repository or revision of this name exists, or a needed
            file is missing there.
        NotADirectoryError: `path_or_id` is a file.
        TypeError, ValueError: see `check_token`; `path_or_id` is no path, or `subfolder` leads out of the directory.
        ImportError: the files must be downloaded and huggingface_hub is not installed.
    """
    check_token(token)
    if not isinstance(path_or_id, str | os.PathLike):
        raise TypeError(f"the model is {described(path_or_id)}; expected the path of its directory or a hub id")
    folder = PurePosixPath(subfolder or "")
    if folder.is_absolute() or ".." in folder.parts:
        raise ValueError(f"subfolder is {subfolder!r}; expected a folder of the model, such as 'onnx'")
    directory = Path(path_or_id).expanduser()
    if directory.is_dir():
        directory /= folder
        if not directory.is_dir():
            raise FileNotFoundError(f"{os.fspath(path_or_id)!r} has no subfolder {subfolder!r}")
        directory = _with_transformer(directory, needed)
        _check_complete(directory, needed)
        return directory
    name = os.fspath(path_or_id)
    if directory.exists():
        raise NotADirectoryError(f"{name!r} is a file; expected a model directory or a hub id")
    if not isinstance(path_or_id, str):
        raise FileNotFoundError(f"there is no directory {name!r} (a hub id is given as a text, not as a path)")
    if not _HUB_ID.fullmatch(name):
        raise FileNotFoundError(f"there is no directory {name!r}, and it is not a hub id such as 'user/model'")
    cached = None if force_download else _cached_snapshot(name, revision or "main", cache_dir)
    if cached is not None and not list(_missing(cached / folder, needed)):
        return cached / folder
    if local_files_only:
        raise FileNotFoundError(
            f"there is no directory {name!r}, and the hub's cache does not have all its files; local_files_only is "
            "True, so nothing is downloaded"
        )
    source = _Source(name, token, revision, cache_dir, force_download, folder)
    return _fetch(source, needed, optional)


class Module(NamedTuple):
    """A module of a model of sentence-transformers: the last part of its type, and its folder."""

    kind: str
    path: str


def modules_of(directory: Path) -> list[Module]:
    """Return the modules that the modules.json of a directory lists, in their order.

    Raises:
        ValueError: the file is malformed, or a folder lies outside of the directory.
    """
    path = directory / MODULES_FILE
    try:
        listed = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    modules = []
    for entry in listed if isinstance(listed, list) else [listed]:
        kind, folder = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(folder, str):
            raise ValueError(f"{path} holds {entry!r}; expected a list of modules, each with a type and a path")
        if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts:
            raise ValueError(f"{path} has the path {folder!r}; expected a folder of the model")
        modules.append(Module(kind if not kind.startswith("sentence_transformers.") else kind.split(".")[-1], folder))
    return modules


def _with_transformer(directory: Path, needed: Sequence[Sequence[str]]) -> Path:
    """Return the folder with the model where the directory lists it among its modules and lacks its files itself."""
    if not (directory / MODULES_FILE).is_file() or not list(_missing(directory, needed)):
        return directory
    folders = [directory / module.path for module in modules_of(directory) if module.kind == "Transformer"]
    return next((folder for folder in folders if not list(_missing(folder, needed))), directory)


def public_name(path_or_id: str) -> str:
    """Return a hub id unchanged, and for a local directory its last name, without the path to it."""
    path = Path(path_or_id)
    return path.resolve().name if path.is_dir() else path_or_id


def upload(
    directory: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    path_in_repo: str | None = None,
    message: str,
    ignore: Sequence[str] = (),
) -> str:
    """Upload the files of `directory` to a model repository, and return the URL of the commit.

    An upload that fails on the hub's side (HTTP 5xx) is tried `ATTEMPTS` times, with pauses that double.

    Args:
        directory: the files to upload.
        repo_id: the repository, created if missing.
        private: whether a repository created here is private (default: the account's setting).
        token: the hub's access token (default: that of `hf auth login`).
        revision: the branch, created if missing (default: main).
        path_in_repo: the folder in the repository (default: its top).
        message: the commit's message.
        ignore: patterns of files to leave out, such as `checkpoint-*/**`.

    Raises:
        ImportError: huggingface_hub is not installed.
        PermissionError: the token may not write there, or none is set.
        ConnectionError: the hub cannot be reached or keeps failing.
        ValueError: the hub does not accept the name or the model card.
        OSError: the hub refuses for another reason.
    """
    api, client_error = _hub_api(token)

    def attempt() -> str:
        full_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(full_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=full_id,
            folder_path=directory,
            path_in_repo=path_in_repo,
            revision=revision,
            commit_message=message,
            ignore_patterns=list(ignore),
        )
        return str(commit.commit_url)

    tried = 0
    while True:
        tried += 1
        try:
            return attempt()
        except (OSError, RuntimeError, json.JSONDecodeError, client_error) as error:
            failure = _underlying(error)
            if not _may_pass(failure) or tried == ATTEMPTS:
                raise _explained(failure, repo_id, tried) from error
            time.sleep(RETRY_SECONDS * 2 ** (tried - 1))


def check_upload(repo_id: str, token: str | None) -> None:
    """Check everything about an upload that can be checked without a network.

    Args:
        repo_id: the repository.
        token: the hub's access token (default: that of `hf auth login`).

    Raises:
        ImportError: huggingface_hub is not installed.
        PermissionError: no token is set.
        ValueError: `repo_id` cannot be the name of a repository, or `token` no token.
    """
    _hub_api(token)
    from huggingface_hub import get_token, utils

    cast(Any, utils).validate_repo_id(repo_id)  # public, but mypy rejects a re-export without __all__
    if token is None and get_token() is None:
        raise PermissionError(
            "uploading needs a token of the hub: log in with `hf auth login`, set HF_TOKEN or give hub_token"
        )


def check_account(token: str | None) -> str:
    """Ask the hub whose token it is, and return the account's name.

    Raises:
        ImportError: huggingface_hub is not installed.
        PermissionError: the hub does not know the token.
        ConnectionError: the hub cannot be reached.
        OSError: the hub refuses for another reason.
    """
    api, client_error = _hub_api(token)
    try:
        return str(api.whoami()["name"])
    except (OSError, RuntimeError, json.JSONDecodeError, client_error) as error:
        if _status(error) in (401, 403):
            raise PermissionError(
                "the hub does not know this token; log in with `hf auth login`, or set HF_TOKEN or hub_token to one "
                "that may write"
            ) from error
        raise _explained(error, "", 1) from error


def check_token(token: object) -> None:
    """Raise TypeError or ValueError, which do not show it, for a token that cannot be one.

    An HTTP client would show it in its error about the header that cannot be sent.
    """
    if token is not None and not isinstance(token, str | bool):
        raise TypeError(f"the hub's token is a {type(token).__name__}; expected a str, True, False or None")
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError(
            "the hub's token has a character that no token has, such as a space or a line end; expected it as "
            "huggingface.co/settings/tokens shows it"
        )


def _hub_api(token: str | None) -> tuple[Any, type[Exception]]:
    """Return huggingface_hub's API and the base class of its HTTP client's errors."""
    check_token(token)
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise ImportError(f"uploading to the hub needs huggingface_hub: {_INSTALL}") from error
    return HfApi(token=token), _client_error(HfHubHTTPError)


def _client_error(hub_error: type[Exception]) -> type[Exception]:
    """Return the base class of the errors that huggingface_hub's HTTP client raises without a network.

    The hub's own error class derives from it: httpx's HTTPError or, in versions below 1, requests' RequestException.
    """
    bases = hub_error.__mro__
    return cast("type[Exception]", bases[bases.index(OSError) - 1])


def _underlying(error: BaseException) -> BaseException:
    """Return the cause of a RuntimeError, as the hub wraps errors about large files, or the error itself."""
    return error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error's response, if it has one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return None if status is None else int(status)


def _may_pass(error: BaseException) -> bool:
    """Return whether another attempt may succeed: the hub failed, or answered with something other than JSON."""
    return isinstance(error, json.JSONDecodeError) or (_status(error) or 0) >= 500


def _explained(error: BaseException, repo_id: str, tried: int) -> BaseException:
    status = _status(error)
    if status in (401, 403):
        return PermissionError(
            f"the hub does not let this token write to {repo_id!r} (HTTP {status}): log in with `hf auth login`, or "
            "set HF_TOKEN or hub_token to a token that may write"
        )
    if _may_pass(error):
        return ConnectionError(f"the hub failed {tried} times (HTTP {status or 'answer that is not JSON'}); try later")
    if status is not None:
        return OSError(f"the hub refused the upload to {repo_id!r}: {error}")
    if isinstance(error, OSError) and not isinstance(error, ConnectionError) and error.errno is not None:
        return error  # about a local file
    if isinstance(error, RuntimeError):
        return error
    return ConnectionError(f"the hub cannot be reached ({error}); check the network")


def _missing(directory: Path, needed: Sequence[Sequence[str]]) -> Iterator[Sequence[str]]:
    for group in needed:
        if not any((directory / name).is_file() for name in group):
            yield group


def _check_complete(directory: Path, needed: Sequence[Sequence[str]]) -> None:
    for group in _missing(directory, needed):
        there = (path.relative_to(directory).as_posix() for depth in ("*", "*/*") for path in directory.glob(depth))
        expected = _about_graphs(group, there) or _about_run(directory) or "expected a Hugging Face model directory"
        raise FileNotFoundError(f"{directory} has no {' or '.join(group)}; {expected}")


def _about_graphs(group: Sequence[str], available: Iterable[str]) -> str:
    """Return why the ONNX files among `available` do not count as a group with ONNX files; empty without any."""
    read = [name for name in group if name.endswith(".onnx")]
    there = sorted(name for name in available if name.endswith(".onnx"))
    if not read or not there:
        return ""
    return f"it has {listing(there)}; a graph is read as {' or '.join(read)}, with weights that are not quantised"


def _about_run(directory: Path) -> str:
    """Return what to do about the output directory of a run that is not finished; empty for other directories."""
    if not (directory / RUN_FILE).is_file() or (directory / _MODEL_FILE).is_file():
        return ""
    steps = (path.parent.name.partition("-")[2] for path in directory.glob(f"checkpoint-*/{_MODEL_FILE}"))
    newest = max((int(step) for step in steps if step.isdecimal()), default=None)
    checkpoint = "" if newest is None else f", or give {directory / f'checkpoint-{newest}'}"
    again = "repeat its command with --resume (in Python resume_from_checkpoint=True)"
    return f"it holds a run that is not finished: {again}{checkpoint}"


def _cached_snapshot(repo_id: str, revision: str, cache_dir: str | os.PathLike[str] | None) -> Path | None:
    """Return the newest snapshot of a revision in the hub's cache on this machine, or None.

    Reading the cache's layout (https://huggingface.co/docs/huggingface_hub/guides/manage-cache) needs neither an extra
    package nor a network.
    """
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    cache = Path(cache_dir or os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    if ".." in Path(revision).parts or Path(revision).is_absolute():
        return None  # no revision, but a way out of the cache
    ref = repository / "refs" / revision
    commit = ref.read_text().strip() if ref.is_file() else revision
    snapshot = repository / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


class _Source(NamedTuple):
    """A repository on the hub and how to download from it, see `resolve`."""

    repo_id: str
    token: str | bool | None
    revision: str | None
    cache_dir: str | os.PathLike[str] | None
    force_download: bool
    folder: PurePosixPath


def _fetch(source: _Source, needed: Sequence[Sequence[str]], optional: Sequence[str]) -> Path:
    """Download the needed files, and the optional ones that the hub has; return their directory."""
    repo_id, token, revision = source.repo_id, source.token, source.revision
    try:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise ImportError(
            f"there is no directory {repo_id!r} and the hub's cache does not have it; fetching it needs {_INSTALL}"
        ) from error
    client_error = _client_error(HfHubHTTPError)
    download = partial(
        hf_hub_download,
        repo_id,
        token=token,
        revision=revision,
        cache_dir=source.cache_dir,
        force_download=source.force_download,
        subfolder=None if source.folder == PurePosixPath() else str(source.folder),
    )
    try:
        listed = HfApi(token=token).model_info(repo_id, revision=revision, timeout=_TIMEOUT_SECONDS).siblings or []
        paths_there = [PurePosixPath(file.rfilename) for file in listed]
        folder = source.folder
        available = {str(path.relative_to(folder)) for path in paths_there if path.is_relative_to(folder)}
        names = _choose(repo_id, available, needed, optional)
        paths = [Path(download(name)) for name in names]
        for path in paths:
            for shard in shard_names(path) if path.name.endswith(_INDEX_SUFFIX) else []:
                download(shard)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise FileNotFoundError(
            f"there is no directory {repo_id!r}, and the hub has no such model, or it is private (hf auth login, "
            "HF_TOKEN or token=)"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"the hub's {repo_id!r} has no revision {revision!r}; expected a branch, a tag or a commit"
        ) from error
    except (ConnectionError, client_error) as error:
        raise FileNotFoundError(
            f"there is no directory {repo_id!r}, and the hub cannot be reached ({error}); check name and network"
        ) from error
    return paths[0].parent


def _choose(
    repo_id: str, available: Collection[str], needed: Sequence[Sequence[str]], optional: Sequence[str]
) -> list[str]:
    """Return the first available name of each group, then the optional names that are available."""
    chosen = []
    for group in needed:
        found = next((name for name in group if name in available), None)
        if found is None:
            expected = _about_graphs(group, available) or "choose another model"
            raise FileNotFoundError(f"the hub's {repo_id!r} has no {' or '.join(group)}; {expected}")
        chosen.append(found)
    return chosen + [name for name in optional if name in available]


def shard_names(index: Path) -> list[str]:
    """Return the distinct shards that a `*.index.json` lists. Raises `ValueError` for other than plain file names."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f'{index} has no "weight_map" from tensor names to files')
    for name in weight_map.values():
        if not isinstance(name, str) or not name or name != Path(name).name:
            raise ValueError(f"{index} lists {name!r}; expected the name of a file beside it")
    return list(dict.fromkeys(weight_map.values()))
