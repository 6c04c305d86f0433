"""All measurements of a few minutes: the codec beside a row-by-row one, segments, the usage flow and its growth, invoicing beside it."""

import subprocess
import sys

for module in ("benchmarks.codec", "benchmarks.segments", "benchmarks.usage_flow", "benchmarks.dedup", "benchmarks.latency", "benchmarks.invoicing_beside_usage"):
    print(f"\n{module}", flush=True)
    subprocess.run([sys.executable, "-m", module], check=True)
