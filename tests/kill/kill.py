"""Kills the program at every system call that changes a file, and looks at what the next run makes of it.

kill.py PROGRAM MODEL [--every K] [--only NAME]

Takes strace. MODEL is a small float checkpoint with a tokenizer (builtin:milm-mini). For each verb, on a free name and
with --force over an older output, the calls of an undisturbed run are counted; then the run is repeated
and killed (SIGKILL) at each of them. After each kill:

  lost        neither the old nor the new output is found under its name by the next run that reads it
  refused     the run cannot be repeated as a user would: with --resume, with --force over what is complete
  differing   its output is not that of the undisturbed run, byte for byte
  left over   something else than the output lies beside it in the end

Ends with 1 if any of these is not 0.
"""
import argparse
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

CHANGING = "rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,openat,write,pwrite64,writev,ftruncate,fsync"

parser = argparse.ArgumentParser()
parser.add_argument("program")
parser.add_argument("model")
parser.add_argument("--every", type=int, default=1, help="only each K-th call")
parser.add_argument("--only", help="only the verb of this name")
args = parser.parse_args()
program, model = str(pathlib.Path(args.program).resolve()), args.model
if not model.startswith("builtin:"):
    model = str(pathlib.Path(model).resolve())

small = ["--calibration-samples", "2", "--calibration-tokens", "64", "--allow-rank-deficient"]
tuned = ["--tune", "scales", "--tune-samples", "2"]
learnt = ["--force-parent", "--validation-windows", "1", "--measure-windows", "0", *small[:4]]
fast = ["--preset", "fast", "--rotate", "none", "--group-size", "32"]
RECIPE = """
[[step]]
do = "prune"
keep = 0.7
calibration-samples = 2
calibration-tokens = 64
allow-rank-deficient = true
[[step]]
do = "quantize"
preset = "fast"
rotate = "none"
group-size = 32
"""

# Name, arguments (the output is `out`), whether --resume is known, how an older output is made.
older = ["quantize", model, *fast, "--scheme", "w8a16", "-o", "out"]
VERBS = [
    ("quantize, nearest", ["quantize", model, *fast, "-o", "out"], True, older),
    ("quantize, adaptive", ["quantize", model, "--group-size", "32", *small, "-o", "out"], True, older),
    ("quantize, tuned", ["quantize", model, *fast, *small, *tuned, "-o", "out"], True, older),
    ("recover", ["recover", model, "--parent", model, *learnt, "-o", "out"], True, older),
    ("prune", ["prune", model, "--keep", "0.7", *small, "-o", "out"], True, older),
    ("compress", ["compress", "recipe.toml", "--model", model, "-o", "out"], True, older),
    ("export onnx", ["export", model, "--to", "onnx", "-o", "out"], False, older),
    ("export gguf", ["export", model, "--to", "gguf", "-o", "out"], False, None),
    ("calibrate", ["calibrate", model, *small, "-o", "out"], False, None),
]


def run(folder, arguments, *more, strace=()):
    command = [*strace, program, *arguments, *more, "--threads", "1", "-q"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def made(folder, arguments, *more):
    done = run(folder, arguments, *more)
    assert done.returncode == 0, done.stderr


def content(path):
    """Names and hashes of a file or folder; None where there is nothing."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.is_dir():
        return None
    return {it.name: hashlib.sha256(it.read_bytes()).hexdigest() for it in sorted(path.iterdir())}


def calls(log):
    """Numbers of calls that change files: strace counts the calls of each thread apart."""
    counts, places = {}, set()
    for line in log.read_text(errors="replace").splitlines():
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if not re.match(r"\w+\(", rest):
            continue
        counts[thread] = counts.get(thread, 0) + 1
        if not rest.startswith("openat(") or "O_CREAT" in rest:
            places.add(counts[thread])
    return sorted(places)


failed = False
print(f"{'':28} kills lost refused differing left-over")
with tempfile.TemporaryDirectory() as top:
    top = pathlib.Path(top)
    for name, arguments, resumes, before in VERBS:
        if args.only and args.only != name:
            continue
        for force in (False, True):
            def fresh():
                folder = pathlib.Path(tempfile.mkdtemp(dir=top))
                (folder / "recipe.toml").write_text(RECIPE)
                if force:
                    if before:
                        made(folder, before)
                    else:
                        made(folder, arguments, "--seed", "5")
                return folder

            flags = ["--force"] if force else []
            folder = fresh()
            old = content(folder / "out")
            log = folder / "log"
            done = run(folder, arguments, *flags, strace=["strace", "-f", "-o", str(log), "-e", f"trace={CHANGING}"])
            assert done.returncode == 0, done.stderr
            new = content(folder / "out")
            places = calls(log)[:: args.every]
            shutil.rmtree(folder)
            lost = refused = differing = left_over = 0
            for place in places:
                folder = fresh()
                inject = f"inject={CHANGING}:signal=KILL:when={place}"
                run(folder, arguments, *flags, strace=["strace", "-f", "-o", "/dev/null", "-e", inject])
                if force and isinstance(old, dict):
                    read = run(folder, ["inspect", "out"])
                    lost += read.returncode != 0 or content(folder / "out") not in (old, new)
                again = run(folder, arguments, *(["--resume"] if resumes else []), *flags)
                complete = content(folder / "out") == new
                if again.returncode != 0 and complete and not force:
                    again = run(folder, arguments, "--force")
                if again.returncode != 0:
                    refused += 1
                    print(f"{name}, call {place}: {again.stderr.strip()}", file=sys.stderr)
                differing += content(folder / "out") != new
                beside = {it.name for it in folder.iterdir()} - {"out", "recipe.toml"}
                if beside:
                    left_over += 1
                    print(f"{name}, call {place}: {sorted(beside)}", file=sys.stderr)
                shutil.rmtree(folder)
            failed = failed or bool(lost or refused or differing or left_over)
            title = f"{name}{', --force' if force else ''}"
            print(f"{title:28} {len(places):5} {lost:4} {refused:7} {differing:9} {left_over:9}", flush=True)
sys.exit(failed)
