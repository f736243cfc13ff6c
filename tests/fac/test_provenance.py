"""fac.provenance: the commit with its changes, the versions, the machine."""

import subprocess
import sys
from pathlib import Path

from fac.provenance import commit, host, made_with, versions


def test_versions_are_those_installed() -> None:
    import torch

    found = versions()
    assert found["torch"] == torch.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"fac", "transformers", "peft", "sae-lens", "numpy", "scikit-learn", "tokenizers"} <= set(found)


def test_the_commit_is_named_and_whether_files_were_changed(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert commit(tmp_path) is None
    git("init", "-q")
    assert commit(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "a")
    sha = git("rev-parse", "HEAD")
    assert commit(tmp_path) == sha
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path) == f"{sha}-dirty"


def test_the_machine_is_named_with_what_computes_and_its_threads() -> None:
    import torch

    found = host()
    assert found["threads"] == torch.get_num_threads()
    assert found["device"]
    assert found["platform"].startswith(("Linux", "Darwin"))
    assert made_with().keys() == {"commit", "versions", "host"}
