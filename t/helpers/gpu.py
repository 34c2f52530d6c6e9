"""`inferd score` for the tests that need a GPU: gpu_score.py, gpu_cut.py."""
import json
import os
import subprocess
import sys
import tempfile

INFERD = os.path.join(os.environ.get("TEST_BUILD", "build"), "inferd")

# What inferd says where there is nothing to test on; another failure is one.
NO_GPU = ["no GPU driver here", "no GPU here", "8.0 is needed",
          "this build has the cpu backend only"]


def score(dir, lines, *args, backend="cuda"):
    """Exit status, the answers to lines ({"prompt": ids, "n": ids to add}), what it logged."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.writelines(json.dumps({"prompt": x["prompt"], "n": x["n"]}) + "\n" for x in lines)
        f.flush()
        run = subprocess.run([INFERD, "score", dir, f.name, "--backend", backend, *args],
                             capture_output=True, text=True)
    return run.returncode, [json.loads(x) for x in run.stdout.splitlines()], run.stderr.strip()


def need_gpu():
    """Ends the test where there is no GPU; one that cannot be used is a failure."""
    rc, _, why = score("t/golden/moe", [{"prompt": [2], "n": 0}], "--kv-cache-memory-bytes", "64m")
    if rc == 0:
        return
    if any(x in why for x in NO_GPU):
        print(f"1..0 # skipped: no GPU: {why}")
        sys.exit(0)
    print(f"not ok 1 - a GPU that can be used: {why}\n1..1")
    sys.exit(1)
