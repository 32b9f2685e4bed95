"""Everything that the golden trainings give, to the last bit, and some metrics: `python -m tests.golden.portable`.

Like a stage it reads `portable` from the params.yaml of the folder where it is started.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

from data.core import portable


def main() -> None:
    from models.core import stage

    stage.settle(threads=1)
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(json.dumps({**trained(Path(folder)), **judged()}) + "\n")


def trained(folder: Path) -> dict[str, str]:
    """Of each net: its last loss, and a digest of its weights."""
    from tests.golden import test_depth_golden, test_generator_golden, test_samba_golden, test_tokenizer_golden

    nets = {
        "depth": test_depth_golden.train(folder),
        "maskgit": test_generator_golden.train(folder),
        "samba": test_samba_golden.train(folder),
    }
    found = {}
    for name, (net, rows) in {**nets, **test_tokenizer_golden.chain(folder)}.items():
        weights = hashlib.sha256(b"".join(x.numpy().tobytes() for x in net.state_dict().values()))
        found[name] = f"{rows[-1]['val_loss']!r} {weights.hexdigest()[:16]}"
    return found


def judged() -> dict[str, str]:
    """Metrics of noise."""
    import numpy as np
    import torch

    from models.metrics import depth, fwd, image

    some, others = np.random.default_rng(0).integers(0, 256, (2, 40, 16, 16, 3), dtype=np.uint8)
    planes = torch.from_numpy(np.stack([some, others])).permute(0, 1, 4, 2, 3) / 255
    truth = some[0, ..., 0] / 255
    return {
        "fwd": repr(fwd.fwd(some, others, level=2)),
        "ssim": repr(float(image.ssim(*planes).mean())),
        "plane": repr(depth.errors(depth.plane(truth, truth > 0), truth)["abs_rel"]),
    }


if __name__ == "__main__":
    portable.enter()
    main()
