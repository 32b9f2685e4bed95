"""A model folder whose config.json is damaged, of another model or malicious: one line that names file and field."""

import copy
import json

import pytest
import torch

import models
from data.core.params import UserError
from models.core import saved
from models.depth import net as depth
from models.generator import load as generator
from models.maskgit.params import Sampling
from models.proxy import load as proxy
from models.proxy.vqgan import VQGAN
from models.tokenizer.tokenizer import Tokenizer
from tests.unit.test_depth_net import TINY as DEPTH
from tests.unit.test_proxy_vqgan import TINY as PROXY
from tests.unit.test_tokenizer_net import PIXELS, TITOK

MASKGIT = {"codes": 8, "classes": 2, "length": 4, "dim": 8, "depth": 1, "heads": 2, "dropout": 0.1}
FAMILIES = ("proxy", "tokenizer", "maskgit", "depth")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny model of each family, by name its folder and config.json's values."""
    root = tmp_path_factory.mktemp("models")
    sampling = Sampling(2, 1.0, "linear", 1.0)
    nets = {
        "proxy": (VQGAN(**PROXY), PROXY),
        "tokenizer": (Tokenizer(titok=TITOK, pixels=PIXELS), {"titok": TITOK, "pixels": PIXELS}),
        "maskgit": (
            generator.build("maskgit", MASKGIT),
            generator.config("maskgit", MASKGIT, sampling, ["a", "b"], "0" * 64),
        ),
    }
    made = depth.build(**DEPTH)
    nets["depth"] = (made, depth.config_of(made))
    for name, (net, config) in nets.items():
        saved.write(root / name, net.state_dict(), config)
    return {name: (root / name, json.loads((root / name / "config.json").read_text())) for name in nets}


def load(name, folder):
    return proxy.load(folder) if name == "proxy" else models.load(folder)


@pytest.fixture
def refusal(folders):
    """Load a family's model with another config.json; returns what is said."""
    restored = []

    def said(name, content):
        folder, values = folders[name]
        path = folder / "config.json"
        restored.append((path, values))
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        with pytest.raises(UserError) as error:
            load(name, folder)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)
        assert len(str(error.value)) - len(str(path)) < 400
        return str(error.value).removeprefix(str(path))

    yield said
    for path, values in restored:
        path.write_text(json.dumps(values))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_as_it_was_saved_is_loaded(folders, name):
    assert load(name, folders[name][0]) is not None


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read: Expecting value"),
        (b"{", "cannot be read: Expecting property name"),
        (b"[1]", "must hold a JSON object, not list"),
        (b"null", "must hold a JSON object, not NoneType"),
        (b'{"titok": "\xff"}', "cannot be read: 'utf-8' codec"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"titok": 1, "titok": 2}', "'titok' is there twice"),
        (b'{"titok": NaN}', "NaN is no number"),
        (b'{"titok": "' + b"x" * (1 << 20) + b'"}', "bytes, more than 1,048,576"),
    ],
    ids=["empty", "cut off", "list", "null", "not UTF-8", "deep", "twice", "NaN", "huge"],
)
def test_what_is_no_json_object_is_said(refusal, name, content, words):
    assert words in refusal(name, content)


def changed(values, key, value):
    values = copy.deepcopy(values)
    *above, last = key.split(".")
    place = values
    for part in above:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return values


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("proxy", "blocks", "two", ": blocks must be a whole number, not 'two'"),
        ("proxy", "blocks", None, ": blocks is missing; it must be a whole number"),
        ("proxy", "layers", 3, ": layers is not a parameter"),
        ("proxy", "channels", [], ": channels must be a list of 1 to 8 items, not []"),
        ("proxy", "channels", [4, 10**9], ": channels[1] must be at least 1 and at most 16,384"),
        ("proxy", "channels", [4, 16], " describes another net than model.safetensors"),
        ("proxy", "code_dim", 10**400, ": code_dim must be below 2^63"),
        ("tokenizer", "titok", [1], ": titok must be a section, not [1]"),
        ("tokenizer", "titok.width", "wide", ": titok.width must be a whole number, not 'wide'"),
        ("tokenizer", "titok.heads", 3, " describes no net: dim 16 is not a multiple of heads 3"),
        ("tokenizer", "titok.codes", 10**7, ": titok.codes must be at least 2 and at most 1,048,576"),
        ("tokenizer", "titok.encoder_layers", 10**9, ": titok.encoder_layers must be at least 1 and at most 200"),
        ("tokenizer", "titok.width", 16_384, " describes another net than model.safetensors"),
        ("tokenizer", "titok.patch", 5, " describes no net: image_size 16 is not a multiple of patch 5"),
        ("tokenizer", "titok.unit", True, ": titok.unit is not a parameter"),
        ("tokenizer", "pixels", None, ": pixels is missing; it must be a section"),
        ("maskgit", "kind", "mambo", ": 'mambo' is not a kind of generator"),
        ("maskgit", "kind", 3, ": kind must be a text, not 3"),
        ("maskgit", "net.dim", 7.5, ": net.dim must be a whole number, not 7.5"),
        ("maskgit", "net.depth", 2, " describes another net than model.safetensors"),
        ("maskgit", "sampler.steps", 0, ": sampler.steps must be at least 1"),
        ("maskgit", "sampler.decay", "cosine", ": sampler.decay must be one of constant, linear, power-cosine"),
        ("maskgit", "sampler", None, " is of no model that can be loaded"),
        ("maskgit", "classes", ["a"], ": net.classes is 2, but classes names 1"),
        ("maskgit", "classes", "ab", ": classes must be a list, not 'ab'"),
        ("maskgit", "tokenizer", None, ": tokenizer is missing; it must be a text"),
        ("depth", "backbone_config", 3, ": backbone_config must be"),
        ("depth", "backbone_config.hidden_size", "16", ": backbone_config.hidden_size must be a whole number"),
        ("depth", "backbone_config.num_hidden_layers", 10**9, ": backbone_config.num_hidden_layers must be at least 1"),
        ("depth", "backbone_config.num_attention_heads", 5, " describes another net than model.safetensors: backbone."),
        ("depth", "backbone_config.hidden_size", 32, " describes another net than model.safetensors"),
        ("depth", "backbone_config.hidden_act", "gallop", " describes no Depth Anything net: "),
        ("depth", "neck_hidden_sizes", [8, 8, "8"], ": neck_hidden_sizes[2] must be a whole number"),
        ("depth", "reassemble_factors", [], ": reassemble_factors must be a list of 1 to 16 items"),
        ("depth", "fusion_hidden_size", 10**9, ": fusion_hidden_size must be at least 1 and at most 16,384"),
    ],
)
def test_a_value_that_describes_no_such_net_is_named(folders, refusal, name, key, value, words):
    assert words in refusal(name, changed(folders[name][1], key, value))


def test_weights_of_another_net_are_named(folders, tmp_path):
    saved.write(tmp_path, {"other": torch.zeros(1)}, PROXY)
    with pytest.raises(UserError, match=r"describes another net than model.safetensors: decoder.head.bias is missing"):
        proxy.load(tmp_path)
