"""`system.runtime.prepare` on machines that lack something.

Nothing is compiled here: the `jittor` that is imported is a file of a few lines, beside the
real `jittor_utils`.
"""

import fcntl
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from system.errors import run_script
from tests.conftest import WITHOUT_ROOTS_RIGHTS

pytestmark = pytest.mark.slow

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = """
import os, sys
from system import runtime
from system.errors import run_script
{before}
run_script(runtime.prepare)
print({{name: os.environ.get(name) for name in ("nvcc_path", "use_mkl", "use_nccl")}})
"""
COMPILES = """
import os, jittor_utils
core = os.path.join(jittor_utils.cache_path, "jittor_core.so")
for name in (core, core + ".key"):
    open(name, "w").close()
"""


class Machine:
    """A home folder, and a Jittor whose import takes no time."""

    def __init__(self, folder):
        self.home = folder
        self.jittor = executable(folder / "site" / "jittor" / "__init__.py", COMPILES)

    def start(self, before="", command=(sys.executable, "-c"), **environment):
        inherited = {name: value for name, value in os.environ.items() if name not in (
            "nvcc_path", "use_mkl", "use_nccl", "cc_path", "JITTOR_HOME", "cache_name", "cc_flags",
            "CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX", "conv_opt", "NVCC_APPEND_FLAGS",
            "LD_LIBRARY_PATH")}
        return subprocess.Popen(
            [*command, SCRIPT.format(before=before)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**inherited, "CUDA_VISIBLE_DEVICES": "", "HOME": str(self.home),
                 "PYTHONPATH": str(self.home / "site"), **environment})

    def __call__(self, *arguments, **environment):
        """The process that ran prepare() to its end, after the lines `before`."""
        process = self.start(*arguments, **environment)
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    @property
    def cache(self):
        return next(path for path in Path(self.home).glob(".cache/jittor/jt*/*/*/*/*/*/default"))


@pytest.fixture
def prepare(tmp_path):
    return Machine(tmp_path)


def refused(done):
    """The one line on which prepare() ended."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


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
    assert prepare().stderr == ""  # it is compiled now


def test_the_installed_onednn_is_where_jittor_looks(prepare, tmp_path):
    folder = tmp_path / ".cache" / "jittor" / "mkl" / "dnnl_lnx_2.2.0_cpu_gomp"
    (folder).mkdir(parents=True)
    (folder / "lib").symlink_to(tmp_path / "an environment that was deleted")
    for _ in range(2):
        done = prepare()
        assert done.returncode == 0, done.stderr
        assert "'use_mkl': '1'" in done.stdout
        assert (folder / "lib" / "libmkldnn.so").exists()
        assert (folder / "include" / "dnnl.hpp").exists()


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


DRIVER = """
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int* n) { *n = 1; return 0; }
int cuDriverGetVersion(int* v) { *v = DRIVER_VERSION; return 0; }
int cuDeviceGet(int* d, int i) { *d = i; return 0; }
int cuDeviceGetName(char* name, int n, int d) { name[0] = 'G'; name[1] = 0; return 0; }
int cuDeviceGetAttribute(int* v, int a, int d) { *v = a == 75 ? MAJOR : 0; return 0; }
"""
HEADERS = ("cuda_runtime.h", "cublas_v2.h", "curand.h")
LIBRARIES = ("cudart", "cublas", "cublasLt", "curand")
TOLD = """
import atexit
runtime._reachable = lambda host: False
atexit.register(lambda: print(runtime._NO_CUDA, os.environ.get("conv_opt"),
                              os.environ.get("cc_flags"), os.environ.get("NVCC_APPEND_FLAGS"),
                              os.environ.get("cache_name")))
"""


def with_gpu(folder, driver=13000, major=9):
    """The environment in which a driver reports a GPU."""
    subprocess.run(["gcc", "-shared", "-fPIC", f"-DDRIVER_VERSION={driver}", f"-DMAJOR={major}",
                    "-x", "c", "-", "-o", str(folder / "libcuda.so.1")], input=DRIVER, text=True,
                   check=True)
    return {"LD_LIBRARY_PATH": str(folder)}


def nvcc(folder, version="13.0", root=None):
    """An nvcc in folder/bin that says where its own folder is, as the real one does."""
    executable(folder / "bin" / "nvcc", f"""#!/bin/sh
case "$1" in
--version) echo "Cuda compilation tools, release {version}, V{version}.88";;
--dryrun) echo '#$ _HERE_={root or folder}/bin' >&2;;
esac
""")


def parts(folder, libraries=LIBRARIES, headers=HEADERS, lib="lib64", suffix=".so.13"):
    """Libraries that can be loaded, and headers."""
    for name in libraries:
        (folder / lib).mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-shared", "-x", "c", os.devnull, "-o",
                        str(folder / lib / f"lib{name}{suffix}")], check=True)
    for name in headers:
        (folder / "include").mkdir(parents=True, exist_ok=True)
        (folder / "include" / name).write_text("")


def links(done):
    """The folder of links that Jittor was told."""
    return Path(re.search(r"'nvcc_path': '(.+)/bin/nvcc'", done.stdout).group(1))


def test_a_toolkit_behind_a_wrapper_with_the_libraries_of_packages_is_laid_out(prepare, tmp_path):
    nvcc(tmp_path / "cuda")
    nvcc(tmp_path / "wrapper", root=tmp_path / "cuda")
    parts(tmp_path / "cuda", ("cudart",), ("cuda_runtime.h",))
    packages = tmp_path / "site" / "nvidia"
    parts(packages / "cu13", LIBRARIES[1:], HEADERS[1:], "lib")
    (packages / "cu13" / "lib" / "libcudadevrt.a").touch()
    parts(packages / "cublas", ("cublas",), (), "lib", ".so.12")  # CUDA 12's, to be left alone
    done = prepare(TOLD, **with_gpu(tmp_path),
                   PATH=f"{tmp_path / 'wrapper' / 'bin'}:{os.environ['PATH']}")
    assert done.returncode == 0 and "with CUDA" in done.stderr, done.stderr
    folder = links(done)
    assert folder.is_relative_to(tmp_path / ".cache" / "jittor")
    assert os.path.realpath(folder / "bin") == str(tmp_path / "cuda" / "bin")
    assert os.path.realpath(folder / "lib64" / "libcublas.so") == str(
        packages / "cu13" / "lib" / "libcublas.so.13")
    assert (folder / "lib64" / "libcudadevrt.a").exists()  # nvcc links it
    assert all((folder / "include" / name).exists() for name in HEADERS)
    assert "None 1 " in done.stdout and "-DcomputeMode=major" in done.stdout  # 1: without cuDNN
    assert (folder / "compat" / "npp.h").exists() and f'-I"{folder}/compat"' in done.stdout
    assert re.search(r" cuda-13\.0-\w{8}\n$", done.stdout)  # a cache of its own
    assert links(prepare(TOLD, **with_gpu(tmp_path), PATH=f"{tmp_path / 'wrapper' / 'bin'}:"
                         f"{os.environ['PATH']}")) == folder


@pytest.mark.parametrize("version", ["8", "9"])
def test_either_cudnn_has_the_names_that_jittor_asks_for(prepare, tmp_path, version):
    cudnn = ("cudnn", "cudnn_ops", "cudnn_cnn") if version == "9" else (
        "cudnn", "cudnn_ops_infer", "cudnn_ops_train", "cudnn_cnn_infer", "cudnn_cnn_train")
    nvcc(tmp_path / "cuda", "12.4")
    parts(tmp_path / "cuda", (*LIBRARIES, "cufft", "cusparse"),
          (*HEADERS, "cudnn.h", "cufft.h", "cusparse.h"), suffix=".so.12")
    parts(tmp_path / "site" / "nvidia" / "cudnn", cudnn, (), "lib", f".so.{version}")
    done = prepare(TOLD, **with_gpu(tmp_path), CUDA_HOME=str(tmp_path / "cuda"),
                   PATH="/usr/bin:/bin")
    assert "None 1 " in done.stdout  # it may be another CUDA's
    package = tmp_path / "site" / "nvidia_cudnn_cu12-9.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: nvidia-cudnn-cu12\nVersion: 9.0\n")
    done = prepare(TOLD, **with_gpu(tmp_path), CUDA_HOME=str(tmp_path / "cuda"),
                   PATH="/usr/bin:/bin")
    folder = links(done)
    for name in ("cudnn", "cudnn_ops_infer", "cudnn_ops_train", "cudnn_cnn_infer"):
        assert (folder / "lib64" / f"lib{name}.so").exists(), name
    assert "None None " in done.stdout and "computeMode" not in done.stdout


def test_the_first_toolkit_that_fits_is_taken(prepare, tmp_path):
    """A distribution's on the PATH, with a g++ of its own, and a newer one in CUDA_HOME."""
    old, new = tmp_path / "old", tmp_path / "new"
    nvcc(old, "11.8")
    nvcc(tmp_path / "on the path", "11.8", root=old)
    executable(old / "bin" / "g++", "#!/bin/sh")
    parts(old, suffix=".so.11.0")  # as CUDA 11's runtime is named
    nvcc(new, "13.0")
    parts(new)
    both = {"CUDA_HOME": str(new), "PATH": f"{tmp_path / 'on the path' / 'bin'}:/usr/bin:/bin"}
    for driver, taken in ((13000, new), (12040, old)):
        done = prepare(TOLD, **with_gpu(tmp_path, driver), **both)
        assert os.path.realpath(links(done) / "bin") == str(taken / "bin"), done.stdout
        assert (f"-ccbin={old}/bin/g++" in done.stdout) == (taken == old)


@pytest.mark.parametrize("driver, major, version, missing, told", [
    (13000, 9, None, (), "there is no nvcc"),
    (13000, 9, "13.0", ("cublas",), "no libcublas of CUDA 13"),
    (12040, 9, "13.0", (), "the driver runs CUDA 12.4"),
    (13000, 7, "13.0", (), "does not know this GPU any more"),
    (13000, 9, "11.2", (), "does not know this GPU yet"),
])
def test_why_a_gpu_is_not_used_is_told(prepare, tmp_path, driver, major, version, missing, told):
    if version:
        nvcc(tmp_path / "cuda", version)
        parts(tmp_path / "cuda", [name for name in LIBRARIES if name not in missing])
    no_other = "" if version else "runtime.cuda_toolkit._output = lambda *command: ''"
    done = prepare(TOLD + no_other, **with_gpu(tmp_path, driver, major),
                   PATH=f"{tmp_path / 'cuda' / 'bin'}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert "'nvcc_path': ''" in done.stdout and done.stdout.endswith(" default\n")
    assert told in done.stdout.split("\nG: ")[1]

def test_what_the_user_set_stays(prepare):
    done = prepare(nvcc_path="/opt/my/nvcc", use_mkl="0", use_nccl="1")
    assert "'nvcc_path': '/opt/my/nvcc', 'use_mkl': '0', 'use_nccl': '1'" in done.stdout


def test_a_missing_compiler_is_named_with_its_package(prepare):
    done = prepare(cc_path="no-such-compiler")
    assert "no-such-compiler" in refused(done) and "apt-get install g++" in done.stderr


@pytest.mark.parametrize("home", ["/dev/null/x", "{tmp}/file", "{tmp}/file/below"])
def test_a_home_that_cannot_be_written_is_named(prepare, tmp_path, home):
    (tmp_path / "file").write_text("no folder")
    home = home.format(tmp=tmp_path)
    for variables in ({"HOME": home}, {"JITTOR_HOME": home}):
        line = refused(prepare(**variables))
        assert home in line and "JITTOR_HOME" in line


@pytest.mark.skipif(not WITHOUT_ROOTS_RIGHTS,
                    reason="only root can give files away and do without root's rights")
@pytest.mark.parametrize("there", [False, True])
def test_a_cache_of_another_user_is_named(prepare, tmp_path, there):
    if there:
        assert prepare().returncode == 0
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    line = refused(prepare(command=(*WITHOUT_ROOTS_RIGHTS, sys.executable, "-c")))
    assert "ermission" in line and str(tmp_path) in line and "JITTOR_HOME" in line


@pytest.mark.parametrize("version", [(3, 7, 17), (3, 15, 0)])
def test_a_python_that_does_not_serve_is_named_before_anything_else(prepare, version):
    done = prepare(before=f"sys.version_info = {version}", cc_path="no-such-compiler")
    assert f"Python 3.{version[1]} " in refused(done) and "3.8 to 3.14" in done.stderr


def test_a_jittor_without_our_mends_is_named(prepare):
    line = refused(prepare("import jittor_utils\n"
                           "jittor_utils.get_jittor_version = lambda: '1.3.11.0'"))
    assert "Jittor 1.3.11.0 is installed" in line and "pip install ./third_party/jittor" in line


@pytest.mark.parametrize("version, serves", [("12.1.1", True), ("12.2.0", False), ("13.0", False)])
def test_a_pillow_of_other_pixels_is_named(prepare, version, serves):
    done = prepare(f"import PIL\nPIL.__version__ = {version!r}")
    assert (done.returncode == 0) == serves, done.stderr
    assert serves or f"Pillow {version} " in refused(done) and "requirements.txt" in done.stderr


def test_missing_python_headers_are_named(prepare):
    line = refused(prepare("import sysconfig\n"
                           "sysconfig.get_paths = lambda: {'include': '/nowhere'}"))
    assert f"apt-get install python3.{sys.version_info[1]}-dev" in line


@pytest.mark.parametrize("fails_at", ["--version", "-shared"])
def test_a_broken_compiler_is_named_with_what_it_said(prepare, tmp_path, fails_at):
    executable(tmp_path / "bin" / "g++", f"""#!/bin/sh
case "$*" in *{fails_at}*) echo "g++: fatal error: cannot execute 'cc1plus'"; exit 1;; esac
echo "g++ (Debian) 12.2.0"
""")
    done = prepare(PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert "cannot execute 'cc1plus'" in refused(done) or fails_at == "--version"
    assert "C++ compiler" in done.stderr and "apt-get install --reinstall g++" in done.stderr


def test_a_compiler_that_jittor_does_not_know_is_named(prepare):
    assert "cc_path=/bin/true" in refused(prepare(cc_path="/bin/true"))


def test_an_empty_compiler_variable_counts_as_none(prepare):
    assert prepare(cc_path="").returncode == 0


def test_a_damaged_config_file_of_jittor_is_named(prepare, tmp_path):
    config = tmp_path / ".cache" / "jittor" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text("")  # as a full disk leaves it
    assert str(config) in refused(prepare()) and "delete it" in prepare().stderr


def test_a_user_without_a_home_is_told_to_set_one(prepare):
    """As in a container that was started with a user number of its own."""
    line = refused(prepare("""
import pathlib
def home(cls=None):
    raise RuntimeError("Could not determine home directory.")
pathlib.Path.home = home
"""))
    assert "Set HOME" in line


MOUNTS = [  # options of the file system, variable that points there, what the line tells
    ("size=20m", "JITTOR_HOME", "free for Jittor's cache"),
    ("size=20m", "TMPDIR", "set TMPDIR"),
    ("size=500m,noexec", "JITTOR_HOME", "noexec"),
    ("size=500m,nr_inodes=5", "JITTOR_HOME", "No space left"),
    ("size=500m,ro", "JITTOR_HOME", "Read-only"),
]


@pytest.mark.parametrize("options, variable, told", MOUNTS)
def test_a_disk_that_does_not_serve_is_told(prepare, tmp_path, options, variable, told):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "-rm", "sh", "-c",
             f"mount -t tmpfs -o {options} none {disk} && exec \"$@\"", "sh"]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"]).returncode != 0:
        pytest.skip("nothing can be mounted here")
    line = refused(prepare("", (*mount, sys.executable, "-c"), **{variable: str(disk)}))
    assert told in line and str(disk) in line and variable in line


def test_a_disk_that_fills_up_ends_a_script_in_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: Path("/dev/full").write_text("x"))
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert "No space left on device; make room" in errors and errors.count("\n") == 1
    with pytest.raises(ValueError):  # other errors are not the user's
        run_script(lambda: int("x"))


def test_a_full_disk_is_told_before_the_compilation(prepare):
    def free(n_mb):
        return f"""
import shutil
shutil.disk_usage = lambda path: shutil._ntuple_diskusage(2**40, 2**40, {n_mb} << 20)
"""
    line = refused(prepare(free(499)))
    assert line.startswith("error: 499 MB are free") and "500 MB" in line and "JITTOR_HOME" in line
    assert prepare(free(500)).returncode == 0
    assert prepare(free(50)).returncode == 0  # the core is compiled, some kernels may be not
    assert "50 MB are needed" in refused(prepare(free(49)))


def test_a_failed_compilation_is_told_in_one_line_with_its_log(prepare):
    prepare.jittor.write_text("""
import sys
print("\\x1b[01mall.cc:3: \\x1b[31mfatal error: \\x1b[0mKilled signal terminated cc1plus")
raise RuntimeError("Run cmd failed")
""")
    done = prepare()
    first, last = done.stderr.splitlines()
    assert done.returncode == 2 and "compiling" in first
    assert "all.cc:3: fatal error: Killed signal terminated cc1plus" in last
    log = prepare.cache / "first_import.log"
    assert str(log) in last and "RuntimeError: Run cmd failed" in log.read_text()


def test_an_import_that_asks_for_a_second_run_gets_it(prepare, tmp_path):
    """What Jittor does after an interruption: it mends a library and ends with exit code 0."""
    prepare.jittor.write_text(f"""
import os, sys
if not os.path.exists({str(tmp_path / "mended")!r}):
    open({str(tmp_path / "mended")!r}, "w").close()
    sys.exit(0)
{COMPILES}""")
    assert prepare().returncode == 0
    assert (prepare.cache / "jittor_core.so.key").exists()


def test_a_half_written_library_is_removed(prepare):
    prepare.jittor.write_text("raise SystemExit('stopped')")
    assert prepare().returncode == 2
    half, whole = (prepare.cache / f"jit_utils_core.{name}.so" for name in ("half", "whole"))
    for path in (half, whole, Path(f"{whole}.key")):
        path.write_text("x")
    prepare.jittor.write_text(COMPILES)
    assert prepare().returncode == 0
    assert whole.exists() and not half.exists()


@pytest.mark.parametrize("says, starts_afresh", [
    ("collect2: var.o: file not recognized: file truncated", True),
    ("g++: fatal error: Killed signal terminated program cc1plus", False),
])
def test_what_a_crash_has_damaged_is_compiled_afresh(prepare, says, starts_afresh):
    """Only damage costs the objects that are compiled already."""
    prepare.jittor.write_text("raise SystemExit('stopped')")
    assert prepare().returncode == 2
    left = prepare.cache / "obj_files" / "var.o"
    left.parent.mkdir()
    left.write_text("half")
    prepare.jittor.write_text(f"""
import os
if os.path.exists({str(left)!r}):
    raise SystemExit({says!r})
{COMPILES}""")
    done = prepare()
    assert ("from the start" in done.stderr) == starts_afresh, done.stderr
    assert done.returncode == (0 if starts_afresh else 2) and left.exists() != starts_afresh


def test_ctrl_c_ends_the_compilation_in_one_line(prepare, tmp_path):
    pid = tmp_path / "pid"
    prepare.jittor.write_text(f"""
import os, time
with open({str(pid) + "~"!r}, "w") as file:
    file.write(str(os.getpid()))
os.rename({str(pid) + "~"!r}, {str(pid)!r})
time.sleep(100)
""")
    process = prepare.start()
    wait_for(pid.exists)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in errors.splitlines()[1] and errors.count("\n") == 2
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_second_process_waits_for_the_one_that_compiles(prepare):
    prepare.jittor.write_text("raise SystemExit('stopped')")
    prepare()
    with open(prepare.cache.parent / "jittor.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = prepare.start()
        assert "waiting for it" in process.stderr.readline()
        for name in ("jittor_core.so", "jittor_core.so.key"):
            (prepare.cache / name).write_text("x")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and errors == ""


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
