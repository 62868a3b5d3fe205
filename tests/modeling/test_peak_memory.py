"""Peak memory of one image does not grow with the number of queries."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys, torch
from tests.modeling.conftest import make_tiny_config
from itaclip_hf import ITACLIPForSemanticSegmentation
torch.set_num_threads(1)
queries = int(sys.argv[1])
model = ITACLIPForSemanticSegmentation(make_tiny_config(pamr_dilations=(1,))).eval()
embeddings = torch.nn.functional.normalize(torch.randn(queries, 24), dim=-1)
with torch.inference_mode():
    model(
        torch.randn(1, 3, 16, 16),
        original_sizes=torch.tensor([[600, 600]]),
        query_embeddings=embeddings,
        query_classes=torch.arange(queries) % 2,
    )
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux only")
def test_peak_memory_does_not_grow_with_the_number_of_queries():
    peaks = []
    for queries in (80, 400):  # all their maps at once would be 115 MB and 576 MB
        command = [sys.executable, "-c", SCRIPT, str(queries)]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) / 1024)
    assert abs(peaks[1] - peaks[0]) < 100, f"peaks in MiB: {peaks}"
