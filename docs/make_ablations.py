"""Makes the tables of `docs/ablations/`: all ablations of the embedded checkpoint on held-out scenes.

    python docs/make_ablations.py --scenes 48 --stride 56 --processes 2

With `--tables` and `--model` it makes others, of another checkpoint, on the scenes of stuff, with their JSON files.
Run from the root of the repository, or as `make ablations`. Started again after a stop, it goes on where it was; the
work lies in `itaclip_ablation/`.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the picture world is not installed

from demo_world.dataset import BenchmarkName, load_benchmark, vocabulary_dict  # noqa: E402
from itaclip_hf import Vocabulary  # noqa: E402
from itaclip_hf.files import write_json  # noqa: E402

__all__: list[str] = []

WORK = Path("itaclip_ablation")
TABLES: dict[BenchmarkName, list[str]] = {"world-stuff": ["all", "beyond"], "world-20": ["background", "methods"]}


def write_scenes(name: BenchmarkName, scenes: int) -> tuple[Path, Path]:
    """Put a test set and its words on the disk.

    Classes go by their labels alone: synonyms are texts, too, and would hide what the definitions do.
    """
    folder = WORK / "scenes" / f"{name}-{scenes}"
    words = folder.with_suffix(".json")
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier version of the picture world, it may be
    load_benchmark(name, scenes=scenes).save_to_disk(folder)
    content = vocabulary_dict(name)
    for entry in content["classes"]:
        entry["names"] = entry["names"][:1]
    write_json(words, Vocabulary.from_dict(content).to_dict())
    return folder, words


def run_tables(name: BenchmarkName, tables: list[str], model: str, scenes: int, stride: int, processes: int) -> Path:
    """Compute the tables of a test set on so many processes; returns their folder."""
    dataset, words = write_scenes(name, scenes)
    out = WORK / f"{name}-{scenes}-{stride}-{Path(model).name}"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)),
        *("-m", "itaclip_hf.cli", "ablate", *tables, "--dataset", str(dataset), "--vocabulary", str(words)),
        *("--model", model, "--dtype", "float32", "--cpu", "--set", f"window_stride={stride}"),
        *("--workers", "0", "--processes", str(processes), "--out", str(out)),
        *(("--regions", "felzenszwalb") if "beyond" in tables else ()),
    ]
    environment = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "HF_HUB_OFFLINE": "1", **os.environ}
    subprocess.run(command, check=True, env=environment)
    return out


def main() -> None:
    """Runs all tables and copies them into the documentation."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--stride", type=int, default=56, help="of the windows, but where a table varies it")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/ablations"))
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tables", nargs="+", help="names or YAML files, instead of those of the documentation")
    arguments = parser.parse_args()
    chosen = {"world-stuff": arguments.tables} if arguments.tables else TABLES
    suffixes = (".md", ".csv", ".png", *([".json"] if arguments.tables else []))
    for name, names in chosen.items():
        tables = run_tables(name, names, arguments.model, arguments.scenes, arguments.stride, arguments.processes)
        target = arguments.out / name
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(tables.iterdir()):
            if file.suffix in suffixes:
                shutil.copy(file, target)
    print(f"Tables: {arguments.out}")


if __name__ == "__main__":
    main()
