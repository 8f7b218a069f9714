"""A hub on the loopback that drops, stalls, truncates, lies and refuses; it is never believed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback_hub import COMMIT, REPO, Hub, serve
from tiny_model import spoil_json
from typer.testing import CliRunner

from whisper_npu import hub, sources
from whisper_npu.catalogue import Repository, known, resolve
from whisper_npu.errors import ModelError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = Repository(REPO)
WEIGHTS = "model.safetensors"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    here = Hub()
    hasty = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
    for module in ("huggingface_hub.file_download", "huggingface_hub.utils._http"):
        monkeypatch.setattr(f"{module}.time", hasty)
    monkeypatch.setattr(hub, "_METADATA_WAITS", (0.0, 0.0))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16_000)  # what a fault can cost
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for address in serve(here):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield here


def pull(repository: Repository = MODEL) -> Path:
    return hub.pull(repository, lambda _: None)


def _nothing_outside(tmp_path: Path) -> bool:
    return {path.name for path in tmp_path.iterdir()} <= {"cache"} and {
        path.name for path in (tmp_path / "cache").glob("*")
    } <= {"hub"}


def test_a_model_is_announced_downloaded_and_verified(remote: Hub, tmp_path: Path) -> None:
    said: list[str] = []
    folder = sources.find(REPO, say=said.append)
    assert (folder / WEIGHTS).read_bytes() == remote.files[WEIGHTS]
    assert {path.name for path in folder.iterdir()} == {"config.json", "tokenizer.json", WEIGHTS}
    assert "320.0 kB" in said[0]
    assert "licence mit" in said[0]
    assert "verified" in said[-1]
    assert _nothing_outside(tmp_path)
    asked = len(remote.requests)
    assert sources.find(REPO) == folder
    assert len(remote.requests) == asked  # a cached model asks nobody


def test_the_layout_is_that_of_other_programs(remote: Hub) -> None:
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    folder = pull()
    assert try_to_load_from_cache(REPO, WEIGHTS, cache_dir=hub.cache_folder()) == str(
        folder / WEIGHTS
    )
    (repo,) = scan_cache_dir(hub.cache_folder()).repos
    assert repo.repo_id == REPO
    assert remote.commit in {revision.commit_hash for revision in repo.revisions}
    assert hub.remove(MODEL) > 300_000
    assert hub.cached(MODEL) is None


@pytest.mark.parametrize("faults", [["drop"], ["drop", "stall", "drop"], ["503"], ["429"]])
def test_passing_faults_are_survived(remote: Hub, faults: list[str]) -> None:
    remote.faults[WEIGHTS] = list(faults)
    for attempt in range(3):
        try:
            folder = pull()
            break
        except ModelError:
            assert attempt < 2
    assert (folder / WEIGHTS).read_bytes() == remote.files[WEIGHTS]
    assert not remote.faults[WEIGHTS]


@pytest.mark.parametrize("fault", ["drop", "stall"])
def test_an_interrupted_download_is_continued(remote: Hub, fault: str) -> None:
    remote.faults[WEIGHTS] = [fault]
    assert (pull() / WEIGHTS).read_bytes() == remote.files[WEIGHTS]
    assert remote.requests[-1][1] == "bytes=160000-"


@pytest.mark.parametrize("fault", ["drop", "stall", "truncate"])
def test_a_download_that_breaks_off_leaves_nothing_to_use(remote: Hub, fault: str) -> None:
    remote.faults[WEIGHTS] = [fault, *["404"] * 8]  # the transfer breaks, then nothing for a while
    with pytest.raises(ModelError, match=r"320\.0 kB\) broke off"):
        pull()
    assert hub.cached(MODEL) is None
    remote.faults.clear()
    assert (pull() / WEIGHTS).read_bytes() == remote.files[WEIGHTS]


def test_a_hub_without_ranges_sends_the_whole_again(remote: Hub) -> None:
    remote.faults[WEIGHTS] = ["drop", "no ranges"]
    assert (pull() / WEIGHTS).read_bytes() == remote.files[WEIGHTS]


def test_a_wrong_part_on_the_disk_is_replaced(remote: Hub) -> None:
    blob = (pull() / WEIGHTS).resolve()
    hub.remove(MODEL)
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.with_name(f"{blob.name}.incomplete").write_bytes(b"x" * 100_000)
    with suppress(ModelError):  # a huggingface_hub that continues it finds it damaged
        pull()
    assert (pull() / WEIGHTS).read_bytes() == remote.files[WEIGHTS]


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_a_wrong_checksum_leaves_nothing(remote: Hub, name: str) -> None:
    remote.faults[name] = ["garble"]
    with pytest.raises(ModelError, match="arrived damaged"):
        pull()
    assert hub.cached(MODEL) is None
    assert not list(hub.cache_folder().rglob("*.incomplete"))
    assert (pull() / name).read_bytes() == remote.files[name]


def test_more_bytes_than_announced_are_refused(remote: Hub) -> None:
    remote.faults[WEIGHTS] = ["flood"]
    with pytest.raises(ModelError, match=r"broke off: .* 320000"):
        pull()
    assert sum(path.stat().st_size for path in hub.cache_folder().rglob("*.incomplete")) == 0


def test_a_flood_that_is_announced_is_not_begun(remote: Hub) -> None:
    remote.sizes[WEIGHTS] = 4 << 30
    with pytest.raises(ModelError, match=r"would send 4\.29 GB .* not the 320\.0 kB"):
        pull()
    assert not [path for path, _ in remote.requests if path.endswith(WEIGHTS)]
    remote.sizes.clear()
    assert (pull() / WEIGHTS).read_bytes() == remote.files[WEIGHTS]


def test_a_pinned_model_accepts_no_other_weights(remote: Hub) -> None:
    pinned = Repository(REPO, COMMIT, WEIGHTS, sha256="0" * 64)
    with pytest.raises(ModelError, match="not the pinned"):
        pull(pinned)
    with pytest.raises(ModelError, match="not the pinned"):
        pull(Repository(REPO, "d" * 40))
    assert all("/resolve/" not in path for path, _ in remote.requests)


@pytest.mark.parametrize(
    ("status", "told"), [("404", "has no model"), ("401", "HF_TOKEN"), ("500", "try again later")]
)
def test_refusals_name_the_hub_and_the_cure(remote: Hub, status: str, told: str) -> None:
    remote.faults["api"] = [status] * 3
    with pytest.raises(ModelError, match=told):
        pull()


@pytest.mark.parametrize("fault", ["429", "503", "garbage"])
def test_a_busy_hub_is_asked_again(remote: Hub, fault: str) -> None:
    remote.faults["api"] = [fault]
    assert pull().is_dir()


def test_nobody_listens(remote: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot reach"):
        pull()


EVIL = ["../../../evil.json", "/evil.json", "a/../../evil.json", "..", "", "x\0.json", "-.json"]


@pytest.mark.parametrize("name", EVIL)
def test_file_names_stay_in_the_cache(remote: Hub, tmp_path: Path, name: str) -> None:
    remote.extra_entries = [{"rfilename": name, "size": 2, "blobId": "f" * 40}]
    pull()
    assert _nothing_outside(tmp_path)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("name", ["../../../../evil.safetensors", "/e.safetensors", "w.bin", 3])
def test_shard_names_stay_in_the_cache(remote: Hub, tmp_path: Path, name: object) -> None:
    del remote.files[WEIGHTS]
    remote.files[f"{WEIGHTS}.index.json"] = json.dumps({"weight_map": {"x": name}}).encode()
    with pytest.raises(ModelError, match="which is not weights"):
        pull()
    assert _nothing_outside(tmp_path)


def test_shards_are_fetched(remote: Hub) -> None:
    del remote.files[WEIGHTS]
    for part in ("model-1.safetensors", "model-2.safetensors"):
        remote.files[part] = part.encode() * 100
    remote.files[f"{WEIGHTS}.index.json"] = (
        b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    )
    folder = pull()
    assert (folder / "model-2.safetensors").stat().st_size == 1900
    (folder / "model-2.safetensors").resolve().unlink()
    assert hub.cached(MODEL) is None
    assert (pull() / "model-2.safetensors").is_file()


@pytest.mark.parametrize(
    ("digest", "commit"), [("../../../evil", COMMIT), ("f" * 40, "../../../evil"), ("A" * 64, "")]
)
def test_checksums_and_commits_are_no_paths(
    remote: Hub, tmp_path: Path, digest: str, commit: str
) -> None:
    remote.digests["config.json"] = digest
    remote.commit = commit
    with pytest.raises(ModelError, match="hub"):
        pull()
    assert not list(tmp_path.rglob("evil*"))


def test_checksums_that_come_with_a_file_are_no_paths(remote: Hub, tmp_path: Path) -> None:
    remote.etags["config.json"] = "../../../evil"
    with suppress(ModelError):
        pull()
    assert _nothing_outside(tmp_path)
    assert not list(tmp_path.rglob("evil*"))


def test_absurd_answers_are_refused(remote: Hub, tmp_path: Path) -> None:
    truth = json.dumps(remote.describe()).encode()
    n_refused = 0
    for seed in range(150):
        remote.answer = spoil_json(truth, random.Random(seed))
        try:
            folder = pull()
        except (ModelError, OutputError):
            n_refused += 1
        else:
            assert (folder / WEIGHTS).read_bytes() == remote.files[WEIGHTS]
        assert _nothing_outside(tmp_path)
    assert 50 < n_refused < 150


def test_the_command_says_what_it_downloads(remote: Hub, tmp_path: Path) -> None:
    from whisper_npu.cli import app

    result = CliRunner().invoke(app, ["transcribe", "nothing.wav", "-m", REPO, "--offline"])
    assert isinstance(result.exception, ModelError)
    assert not remote.requests
    result = CliRunner().invoke(app, ["transcribe", "nothing.wav", "-m", REPO])
    assert result.stderr.startswith(f"downloading {REPO} at c0ffee00")
    assert "320.0 kB, licence mit" in result.stderr
    assert isinstance(result.exception, ModelError)  # these weights are none
    assert result.stdout == ""


def test_a_pickle_is_no_model(remote: Hub) -> None:
    del remote.files[WEIGHTS]
    with pytest.raises(ModelError, match="no safetensors weights"):
        pull()


def test_offline_asks_nobody(remote: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="offline"):
        sources.find(REPO, offline=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="models pull"):
        sources.find(REPO)
    assert not remote.requests


def test_the_disk_is_asked_first(remote: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=65 << 20))
    pull()
    hub.remove(MODEL)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match="make room"):
        pull()
    assert all("/resolve/" not in path for path, _ in remote.requests[-1:])


def test_verify_finds_damage_and_pull_mends_it(remote: Hub) -> None:
    folder = pull()
    assert all(hub.verify(folder).values())
    blob = (folder / WEIGHTS).resolve()
    blob.write_bytes(remote.files[WEIGHTS].replace(b"w", b"v", 1))
    assert hub.verify(folder) == {"config.json": True, WEIGHTS: False, "tokenizer.json": True}
    hub.discard(folder, WEIGHTS)
    assert hub.cached(MODEL) is None
    assert all(hub.verify(pull()).values())


def test_the_environment_is_honoured(remote: Hub, tmp_path: Path) -> None:
    from huggingface_hub import constants

    env = os.environ | {"HF_ENDPOINT": constants.ENDPOINT, "HF_HUB_CACHE": str(tmp_path / "other")}
    command = [sys.executable, "-m", "whisper_npu", "models", "pull", REPO]
    done = subprocess.run(
        command, env=env | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 5
    assert done.stdout == ""
    assert "offline" in done.stderr
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip().startswith(str(tmp_path / "other"))
    assert "verified" in done.stderr


def test_names() -> None:
    assert resolve("turbo") == resolve("large-v3-turbo")
    assert resolve("turbo").repositories[0].name == "openai/whisper-large-v3-turbo"
    assert resolve("openai/whisper-base").repositories == known()["base"].repositories[1:]
    assert resolve("a/b@v1.0").repositories == (Repository("a/b", "v1.0"),)


def test_models_of_other_programs_are_listed(remote: Hub) -> None:
    assert hub.others() == {}
    folder = sources.find(REPO)
    assert hub.others() == {REPO: folder}
    refs = folder.parent.parent / "refs"
    (refs / "main").write_text("0" * 40)  # a newer one was only looked at
    assert hub.others() == {f"{REPO}@{COMMIT}": folder}
    assert sources.find(f"{REPO}@{COMMIT}", offline=True) == folder
    (folder / "config.json").unlink()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert hub.others() == {}


def test_what_is_no_model(tmp_path: Path) -> None:
    for name, told in {
        "./nowhere": "no model folder ./nowhere",
        "models/whisper/nowhere": "no model folder",
        str(tmp_path / "nowhere"): "no model folder",
        "smal": "did you mean small",
        "distil-large": "did you mean distil-large-v",
        "completely-else": "models list",
    }.items():
        with pytest.raises(ModelError, match=told):
            sources.find(name, offline=True)


@given(st.text() | st.from_regex(r"[\w.-]+/[\w.-]+@[\w./-]+"))
def test_no_name_leaves_the_cache(name: str) -> None:
    try:
        model = resolve(name)
    except ModelError:
        return
    for repository in model.repositories:
        folder = hub.cache_folder() / ("models--" + repository.name.replace("/", "--"))
        assert folder.resolve().parent == hub.cache_folder().resolve()
        assert (folder / "refs" / repository.revision).resolve().is_relative_to(folder.resolve())
