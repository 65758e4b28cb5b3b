#!/usr/bin/env bash
# What this project does on a machine with an NVIDIA GPU: set-up, kernels, labels, speed.
#
#     bash benchmarks/device.sh [STEP …]      setup kernels sample speed test, and quick
#
# In the root of a checkout. OUT is the folder of logs and results (default: out/), WORK that of
# Jittor's cache (default: a new one, so that the first compilation is seen). A machine without a
# network takes its packages from .whl/, wheels of its own Python; for one that has PyTorch, NumPy
# 2, matplotlib, safetensors, tqdm and PyYAML these do (30 MB):
#     ./third_party/jittor (pip wheel --no-deps) astunparse==1.6.3 (likewise) numpy==1.26.4
#     pillow==10.4.0 ftfy==6.3.1 wcwidth open_clip_torch==3.3.0, and for `quick` pytest==8.3.5
#     iniconfig pluggy pytest-xdist==3.6.1 execnet hypothesis==6.113.0 sortedcontainers
# PyTorch's side of `speed` and `test` runs with REFERENCE_PYTHON (default: the same python3).
set -uo pipefail
cd "$(dirname "$0")/.."
steps=${*:-setup kernels sample speed test}
out=${OUT:-$PWD/out}
work=${WORK:-$(mktemp -d)}
mkdir -p "$out" "$work"
exec > >(tee "$out/device.log") 2>&1
export JITTOR_HOME=$work PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
say() { printf '\n== %d s: %s\n' "$SECONDS" "$*"; }
shown() { tr '\r' '\n' | grep -vE '^ *$|image/s|eta:' | tail -"$1"; }

say "the machine"
nvidia-smi --query-gpu=name,memory.total,driver_version,compute_cap --format=csv,noheader
g++ --version | head -1
python3 --version
echo "$(nproc) cores; nvcc: $(command -v nvcc)"
nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used --format=csv,noheader,nounits \
    -lms 500 > "$out/gpu.csv" &
trap 'kill $!' EXIT
if compgen -G '.whl/*.whl' > /dev/null; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$work/site" .whl/*.whl || exit 1
    export PYTHONPATH=$work/site
fi

for step in $steps; do
    say "$step"
    case $step in
    setup)  # Jittor's core, and then an import of what is there
        for _ in 1 2; do
            time python3 -c '
from system import runtime
from system.errors import run_script
run_script(runtime.prepare)
import jittor as jt
runtime.use_accelerator("cuda")
has = [name for name in ("cublas", "curand", "cudnn") if getattr(jt.compile_extern, name, None)]
print(f"capability {jt.flags.cuda_archs}, {has}")'
        done ;;
    kernels)  # our own kernels against NumPy
        TEST_DEVICE=cuda timeout -k 10 "${LIMIT:-600}" python3 -m pytest -q --durations=5 -p no:cacheprovider \
            tests/test_kernels.py 2>&1 | shown 30 ;;
    quick)  # the quick tests
        TEST_DEVICE=cuda timeout -k 10 "${LIMIT:-600}" python3 -m pytest -q -m "not slow" -n 4 \
            -p no:cacheprovider tests 2>&1 | shown 40 ;;
    sample)  # test.py from the shipped weights: with compiling, and without
        for _ in 1 2; do
            { time timeout -k 10 "${LIMIT:-600}" python3 test.py --restart --config configs/sample.yaml \
                --output "$out/result.txt"; } 2>&1 | shown 22
        done
        python3 - "$out/result.txt" <<'END'
import sys
got, cpu = ({name: labels for name, *labels in map(str.split, open(path))}
            for path in (sys.argv[1], "tests/reference/sample_result.txt"))
first, any_ = (sum(got[n][:k] != cpu[n][:k] for n in cpu) for k in (1, 5))
print(f"{len(cpu)} images; unlike the CPU's: the likeliest label of {first}, one of five of {any_}")
END
        ;;
    speed)  # against PyTorch on the same GPU; results are compared first
        timeout -k 10 "${LIMIT:-600}" python3 benchmarks/run.py ${PAIRS:-image-b32 train-step mta head} \
            --device cuda --pairs 5 --threads "$(nproc)" --json "$out/speed.json" \
            --reference-python "${REFERENCE_PYTHON:-python3}" 2>&1 | shown 60 ;;
    test)
        timeout -k 10 "${LIMIT:-600}" python3 benchmarks/run.py test --device cuda --pairs 1 \
            --threads "$(nproc)" --reference-python "${REFERENCE_PYTHON:-python3}" \
            2>&1 | shown 60 ;;
    *) echo "no step $step" ;;
    esac
done
say "done"
