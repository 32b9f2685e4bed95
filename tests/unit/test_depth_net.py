"""The depth net: an ordinary Depth Anything checkpoint that starts with a signal."""

import json
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from data.core.params import UserError
from flows.catalogue.registered import Registered
from flows.pipeline.families import models_of
from flows.pipeline.run import RunInfo
from flows.release import bundle, pointers
from flows.release.pull import pull
from flows.storage.folder import FolderBucket
from models.core import saved as models_saved
from models.depth import net
from models.depth.params import NetParams

TINY = {
    "image_size": 32, "patch_size": 8, "dim": 16, "layers": 2, "heads": 2, "taps": (0, 1, 2), "factors": (2, 1, 0.5),
    "neck": (8, 8, 8), "fusion": 8, "head": 8,
}  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model, folder = net.build(**TINY), tmp_path_factory.mktemp("model")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(net.config_of(model)))
    net.save_processor(folder, 32, 8)
    return model, folder


def test_a_saved_net_loads_with_from_pretrained_and_predicts_the_same(saved):
    from transformers import AutoModelForDepthEstimation

    model, folder = saved
    loaded = AutoModelForDepthEstimation.from_pretrained(str(folder))
    with torch.no_grad():
        theirs = loaded(pixel_values=net.normalise(torch.from_numpy(IMAGES))).predicted_depth.numpy()
    assert type(loaded).__name__ == "DepthAnythingForDepthEstimation"
    assert net.predict(net.load(folder), IMAGES) == pytest.approx(net.predict(model, IMAGES), abs=1e-6)
    assert theirs == pytest.approx(net.predict(model, IMAGES), abs=1e-5)  # their attention is fused: last digits differ


def test_the_depth_estimation_pipeline_opens_what_a_pull_of_its_release_brings(saved, tmp_path):
    from transformers import pipeline

    model, folder = saved
    brought = pulled(folder, tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()}.items() <= {
        path.name: path.read_bytes() for path in brought.iterdir()
    }.items()
    answer = pipeline("depth-estimation", model=str(brought))(Image.fromarray(IMAGES[0]))
    expected = net.predict(model, IMAGES[:1])[0]
    assert answer["predicted_depth"].squeeze().numpy() == pytest.approx(expected, abs=1e-5)


def pulled(folder, tmp_path):
    """The model of a stage's folder after it was packed, published, released and pulled."""
    run = RunInfo("id", "run/id", "c" * 40, "b" * 40, tmp_path / "run", False, "p" * 64, datetime.now(UTC), "retrain")
    made = run.workspace / "artifacts/depth-student/small/model"
    shutil.copytree(folder, made)
    (run.workspace / "dvc.yaml").write_text("artifacts: {depth-small: {path: artifacts/depth-student/small/model}}")
    (run.workspace / "dvc.lock").write_text("stages: {}")
    tags = {"git_tag": run.tag, "git_commit": run.commit, "dvc_lock": "d" * 64}
    one = Registered(models_of(run.workspace)[0], 1, models_saved.weights_digest(made), {}, {}, "mlflow", tags=tags)
    bucket, packed = FolderBucket(tmp_path / "bucket"), bundle.pack(run, one, "depth-small@v1.0.0")
    member = pointers.Member("depth-small", 1, one.weights, "depth-small@v1.0.0", bundle.publish(bucket, packed))
    pointers.append(bucket, pointers.Pointer("depth", 1, (member,), run.id, run.commit, "me", "", "2026", ""))
    return pull(bucket, "depth", None, tmp_path / "brought").folder / "depth-small"


def test_a_new_net_gives_different_disparities_above_zero_for_different_places(saved):
    disparity = net.predict(saved[0], IMAGES)
    assert disparity.shape == (3, 32, 32)
    assert (disparity > 0).mean() > 0.5
    assert disparity.std() > 0.01


def test_pictures_of_other_sizes_are_accepted(saved):
    wide = np.zeros((1, 32, 48, 3), dtype=np.uint8)
    assert net.predict(saved[0], wide).shape == (1, 32, 48)


@pytest.mark.parametrize("size", [(61, 75), (33, 31), (5, 9), (8, 100)])
def test_a_disparity_has_the_size_of_its_picture(saved, size):
    assert net.predict(saved[0], np.zeros((2, *size, 3), dtype=np.uint8)).shape == (2, *size)


def test_a_disparity_of_another_size_lies_where_its_picture_does(saved):
    rows = np.linspace(0, 255, 64).astype(np.uint8)
    picture = np.broadcast_to(rows[None, :, None, None], (1, 64, 64, 3)).copy()
    whole, cut = net.predict(saved[0], picture)[0], net.predict(saved[0], picture[:, :61, :61])[0]
    assert np.corrcoef(whole[:61, :61].mean(1), cut.mean(1))[0, 1] > 0.9


@pytest.mark.parametrize(
    "images", [np.zeros((1, 32, 32, 3)), np.zeros((32, 32, 3), np.uint8), np.zeros((1, 3, 32, 32), np.uint8)]
)
def test_what_are_no_pictures_is_refused(saved, images):
    with pytest.raises(UserError, match=r"pictures must be uint8 \(N, H, W, 3\), not"):
        net.predict(saved[0], images)


def test_a_folder_without_weights_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="config.json does not exist"):
        net.load(tmp_path)


def test_taps_that_do_not_end_with_the_last_layer_are_refused():
    with pytest.raises(ValueError, match="taps"):
        NetParams(**{**TINY, "taps": (0, 1, 1)})


def test_the_last_relu_is_one_in_evaluation_only():
    x = torch.tensor([-2.0, 3.0])
    assert net.FinalReLU().eval()(x).tolist() == [0.0, 3.0]
    assert net.FinalReLU().train()(x).tolist() == [-2.0, 3.0]
