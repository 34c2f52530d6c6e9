"""tools/fake-checkpoint: what it writes is, name by name and shape by shape, what the engine reads,
for every kind of model; and the engine gets numbers out of it."""
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "helpers"))
from env import BUILD, done, ok, same

with tempfile.TemporaryDirectory() as d:
    with open(f"{d}/ids.jsonl", "w") as f:
        f.write('{"prompt":[5,6,7,8],"n":3}\n')
    for conf in "t/golden/moe", "t/golden/dense", "t/golden/ple", "models/demo":
        out = f"{d}/{os.path.basename(conf)}"
        p = subprocess.run(["tools/fake-checkpoint", conf, out, "--shard-mb", "1"],
                           capture_output=True, text=True)
        same(p.returncode, 0, f"{conf}: {p.stdout.strip()}{p.stderr}")
        ok(sum(x.endswith(".safetensors") for x in os.listdir(out)) > (conf == "models/demo"),
           "in more than one file, if it is large")
        p = subprocess.run([f"{BUILD}/inferd", "score", out, f"{d}/ids.jsonl"], capture_output=True,
                           text=True)
        got = json.loads(p.stdout) if p.returncode == 0 else {}
        ok(len(got.get("greedy", [])) == 3, f"runs: {p.stderr.strip()}")
done()
