"""DVC's cache and the remote beside it: outputs by their digests, looked up, listed, brought and handed on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.core.params import UserError
from flows.pipeline.accepted import Accepted
from flows.pipeline.integrity import Objects
from flows.storage.protocol import NotThere
from flows.storage.transfer import WrongContent

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc_data.hashfile.tree import Tree

REMOTE = "remint"  # what DVC is told to call the remote that machines exchange outputs by


class Cache:
    """The cache of one DVC repository; with a remote by which machines exchange outputs, that, else DVC's own."""

    def __init__(self, repo: Repo, accepted: Accepted, remote: str | None) -> None:
        self.repo, self.accepted, self.remote = repo, accepted, remote
        self.objects = Objects(Path(repo.cache.local_cache_dir))

    def fetch(self, wanted: Mapping[str, str]) -> int:
        """Bring outputs from the DVC remote into the cache, folders with every file; returns the bytes that came.

        wanted: digest by path. NotThere names one that the remote lacks, UserError why another could not come.
        """
        lost = {path: oid for path, oid in wanted.items() if not self._is_here(oid)}
        for damage in self.objects.damaged(lost):
            self.objects.remove(damage)
        try:
            moved = self._moved(lost.values(), "fetch") if lost else 0
        except UserError as error:
            raise type(error)(
                f"{', '.join(path or oid for path, oid in lost.items())} is not in the cache; {error}"
            ) from None
        if damaged := self.objects.damaged(lost):  # what has come was never read before
            for one in damaged:
                self.objects.remove(one)
            raise WrongContent(f"{damaged[0]}, as DVC's remote has it; restore it there")
        lacking = {path: oid for path, oid in lost.items() if not self._is_here(oid)}
        for path, oid in lacking.items():
            if not self.accepted.holds(oid):
                raise NotThere(f"{path} is neither in the cache nor in DVC's remote; dvc push it where it is")
        if lacking:
            raise UserError(f"{', '.join(lacking)} could not be fetched whole from DVC's remote; look at its server")
        return moved

    def push(self, oids: Iterable[str]) -> int:
        """Store outputs of the cache in the DVC remote, a folder's list last; returns the bytes that went."""
        wanted = set(oids)
        moved = self._moved(wanted, "push")
        if lost := [oid for oid in wanted if not self.accepted.holds(oid)]:
            raise UserError(f"DVC's remote does not hold {lost[0]} after it was pushed; look at its server")
        return moved

    def brought(self, oid: str) -> dict[str, Path]:
        """`files` of an output, fetched where the cache lacks it; {} if it cannot be had."""
        try:
            if not self.holds(oid):
                self.fetch({"": oid})
        except UserError:
            return {}
        return self.files(oid)

    def files(self, oid: str) -> dict[str, Path]:
        """Where the cache keeps the files of an output that it holds, by their names in it; "" for a single file."""
        cache = self.repo.cache.local
        if not oid.endswith(".dir"):
            return {"": Path(cache.oid_to_path(oid))}
        members = self._tree(oid).iteritems()
        return {"/".join(key): Path(cache.oid_to_path(info.value)) for key, (_, info) in members if info}

    def members(self, oid: str) -> dict[str, str]:
        """The objects of an output's files by their names in it, "" for a single file; also of one that is not here."""
        if not oid.endswith(".dir"):
            return {"": oid}
        if not self._has_list(oid):
            raise UserError(
                f"{oid}, the list of an output's files, is neither in the cache nor in the remote; dvc push it"
            )
        return {"/".join(name): info.value for name, (_, info) in self._tree(oid).iteritems() if info}

    def member(self, oid: str, inside: str) -> str | None:
        """Hash of a file or folder inside an output folder."""
        if not self._has_list(oid):
            return None
        found = self._tree(oid).get_obj(self.repo.cache.local, tuple(inside.split("/")))  # type: ignore[arg-type]
        return found.hash_info.value if found and found.hash_info else None

    def joined(self, outs: Mapping[str, str]) -> str | None:
        """Hash of the folder that holds exactly these outputs."""
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.tree import Tree

        whole = Tree()
        for path, oid in outs.items():
            key = tuple(path.split("/"))
            if not oid.endswith(".dir"):
                whole.add(key, None, HashInfo("md5", oid))
            elif self._has_list(oid):
                for inner, (meta, info) in self._tree(oid).iteritems():
                    whole.add((*key, *inner), meta, info)
            else:
                return None
        whole.digest()
        return whole.hash_info.value if whole.hash_info else None

    def holds(self, oid: str) -> bool:
        return self._is_here(oid) or self.accepted.holds(oid)

    def _is_here(self, oid: str) -> bool:
        return self._right([oid]) and self._right(self.objects.members(oid).values())

    def _right(self, oids: Collection[str]) -> bool:
        """Whether the cache holds all these objects, each as it is named."""
        found = self.objects.contents(oids)
        return all(found.get(oid) == oid.removesuffix(".dir") for oid in oids)

    def _has_list(self, oid: str) -> bool:
        """Whether the list of a folder's files is in the cache, where need be brought from the remote."""
        return self._right([oid]) or self.accepted.bring_list(oid, self.objects.path(oid))

    def _tree(self, oid: str) -> Tree:
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.tree import Tree

        return Tree.load(self.repo.cache.local, HashInfo("md5", oid))

    def _moved(self, oids: Iterable[str], how: str) -> int:
        """Let DVC transfer objects between cache and remote; returns the bytes of those that moved."""
        from dvc.exceptions import DvcException
        from dvc_data.hashfile.hash_info import HashInfo

        repo: Any = self.repo
        try:
            there = repo.cloud.get_remote_odb(self.remote, how)
            ways = (there, repo.cache.local) if how == "fetch" else (repo.cache.local, there)
            infos = {HashInfo("md5", oid) for oid in oids}
            done = repo.cloud.transfer(*ways, infos, shallow=False)
        except FileNotFoundError:
            return 0  # a list of files that the one side lacks: who asked looks at what has come
        except (DvcException, OSError) as error:
            words = " ".join(str(error).split()).partition(". ")[0]
            raise UserError(f"DVC cannot {how} outputs: {words or type(error).__name__}; look at the remote") from None
        except Exception as error:  # of the libraries for S3, which have many kinds
            raise UserError(f"DVC cannot {how} outputs ({type(error).__name__}); look at the remote's server") from None
        paths = [self.objects.path(info.value) for info in done.transferred]
        return sum(path.stat().st_size for path in paths if path.exists())
