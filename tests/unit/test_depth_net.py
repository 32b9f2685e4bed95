"""The depth net: an ordinary Depth Anything checkpoint that starts with a signal."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from data.params import UserError
from models.depth import net

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


def test_the_depth_estimation_pipeline_loads_it(saved):
    from transformers import pipeline

    model, folder = saved
    answer = pipeline("depth-estimation", model=str(folder))(Image.fromarray(IMAGES[0]))
    expected = net.predict(model, IMAGES[:1])[0]
    assert answer["predicted_depth"].squeeze().numpy() == pytest.approx(expected, abs=1e-5)


def test_a_new_net_gives_different_disparities_above_zero_for_different_places(saved):
    disparity = net.predict(saved[0], IMAGES)
    assert disparity.shape == (3, 32, 32)
    assert (disparity > 0).mean() > 0.5
    assert disparity.std() > 0.01


def test_pictures_of_other_sizes_are_accepted(saved):
    wide = np.zeros((1, 32, 48, 3), dtype=np.uint8)
    assert net.predict(saved[0], wide).shape == (1, 32, 48)


def test_a_folder_without_weights_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="config.json does not exist"):
        net.load(tmp_path)


def test_taps_that_do_not_end_with_the_last_layer_are_refused():
    with pytest.raises(ValueError, match="taps"):
        net.NetParams(**{**TINY, "taps": (0, 1, 1)})


def test_the_last_relu_is_one_in_evaluation_only():
    x = torch.tensor([-2.0, 3.0])
    assert net.FinalReLU().eval()(x).tolist() == [0.0, 3.0]
    assert net.FinalReLU().train()(x).tolist() == [-2.0, 3.0]
