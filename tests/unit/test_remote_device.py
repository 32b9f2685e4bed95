"""A device is held by one stage of the machine at a time, whoever serves it, and is free when its holder dies."""

import subprocess
import sys
import threading
import time

import pytest

from data.core.params import UserError
from flows.remote import device
from flows.remote.device import Devices
from flows.stage.process import Stopped


@pytest.fixture(autouse=True)
def _own_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "FOLDER", tmp_path / "devices")


def test_the_processor_serves_pools_without_gpus_and_any_pool_that_is_told_so():
    assert device.chosen("", "cpu", found=("0",)) == Devices()
    assert device.chosen("cpu", "gpu", found=()) == Devices()
    assert str(Devices()) == "cpu"


def test_a_gpu_worker_has_all_gpus_or_those_that_are_named():
    assert device.chosen("", "gpu", found=("0", "1")).gpus == ("0", "1")
    assert device.chosen("1", "gpu", found=("0", "1")) == Devices(("1",))
    assert str(device.chosen("1, 0", "gpu", found=("0", "1"))) == "cuda:1,0"


def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(UserError, match="no GPU '3' on this machine; GPUs: 0, 1"):
        device.chosen("0,3", "gpu", found=("0", "1"))
    with pytest.raises(UserError, match="no GPU for pool gpu on this machine.*--devices cpu"):
        device.chosen("", "gpu", found=())


def test_a_stage_sees_its_devices_and_no_others():
    with device.held(Devices(("1", "0")), threading.Event()) as variables:
        assert variables["CUDA_VISIBLE_DEVICES"] == "1,0"
    with device.held(Devices(), threading.Event()) as variables:
        assert variables["CUDA_VISIBLE_DEVICES"] == "-1"


def test_a_second_stage_waits_for_the_device_and_says_so():
    said, order = [], []

    def second():
        with device.held(Devices(("0",)), threading.Event(), said.append):
            order.append("second")

    with device.held(Devices(("0", "1")), threading.Event()):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert said == ["waiting for GPU 0, which another worker's stage has"]


def test_who_waits_can_be_stopped():
    stop = threading.Event()
    with device.held(Devices(("0",)), threading.Event()):
        stop.set()
        with pytest.raises(Stopped), device.held(Devices(("0",)), stop):
            pass


def test_a_killed_holder_holds_nothing(tmp_path):
    code = (
        "import sys, threading, time; from pathlib import Path; from flows.remote import device\n"
        "device.FOLDER = Path(sys.argv[1])\n"
        "with device.held(device.Devices(('0',)), threading.Event()): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, device.FOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Stopped), device.held(Devices(("0",)), stop):
        pass
    holder.kill()
    holder.wait()
    with device.held(Devices(("0",)), threading.Event()):
        pass
