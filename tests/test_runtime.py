"""`models.runtime.prepare` on machines that lack something; nothing is compiled here."""

import os
import stat
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = """
import os, sys
from models import runtime
from models.errors import run_script
run_script(runtime.prepare)
print({name: os.environ.get(name) for name in ("nvcc_path", "use_mkl", "use_nccl")})
"""


@pytest.fixture
def prepare(tmp_path):
    """prepare(**environment): the process that ran it with a home folder of its own."""
    def run(**environment):
        inherited = {name: value for name, value in os.environ.items() if name not in (
            "nvcc_path", "use_mkl", "use_nccl", "cc_path", "JITTOR_HOME", "cache_name")}
        return subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True,
                              text=True, timeout=120,
                              env={**inherited, "HOME": str(tmp_path), **environment})
    return run


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def test_a_new_machine_is_told_that_the_core_is_compiled(prepare, tmp_path):
    done = prepare()
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "compiling Jittor's core" in line]
    assert len(lines) == 1 and "minutes" in lines[0]


def test_the_installed_onednn_is_where_jittor_looks(prepare, tmp_path):
    folder = tmp_path / ".cache" / "jittor" / "mkl" / "dnnl_lnx_2.2.0_cpu_gomp"
    (folder).mkdir(parents=True)
    (folder / "lib").symlink_to(tmp_path / "an environment that was deleted")
    for _ in range(2):
        done = prepare()
        assert done.returncode == 0, done.stderr
        assert "'use_mkl': '1'" in done.stdout
        assert (folder / "lib" / "libmkldnn.so").exists()
        assert (folder / "include" / "mkldnn.hpp").exists()


def test_a_real_download_of_onednn_is_left_alone(prepare, tmp_path):
    folder = tmp_path / ".cache" / "jittor" / "mkl" / "dnnl_lnx_2.2.0_cpu_gomp"
    for part in ("lib", "include"):
        (folder / part).mkdir(parents=True)
        (folder / part / "own").write_text("x")
    assert prepare().returncode == 0
    assert (folder / "lib" / "own").exists() and not (folder / "lib").is_symlink()


def test_an_nvcc_without_a_runtime_is_switched_off(prepare, tmp_path):
    executable(tmp_path / "cuda" / "bin" / "nvcc", "#!/bin/sh\necho release 12.0, V12.0.1\n")
    done = prepare(PATH=f"{tmp_path / 'cuda' / 'bin'}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert "'nvcc_path': ''" in done.stdout


def test_what_the_user_set_stays(prepare):
    done = prepare(nvcc_path="/opt/my/nvcc", use_mkl="0", use_nccl="1")
    assert "'nvcc_path': '/opt/my/nvcc', 'use_mkl': '0', 'use_nccl': '1'" in done.stdout


def test_a_missing_compiler_is_named_with_its_package(prepare):
    done = prepare(cc_path="no-such-compiler")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert "no-such-compiler" in done.stderr and "apt-get install g++" in done.stderr


def test_a_home_that_cannot_be_written_is_named(prepare, tmp_path):
    (tmp_path / "file").write_text("no folder")
    done = prepare(HOME=str(tmp_path / "file"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "JITTOR_HOME" in done.stderr
