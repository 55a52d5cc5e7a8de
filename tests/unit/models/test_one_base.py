"""What every classifier shares: inputs of any form, operating points, threads, traces."""

from __future__ import annotations

import pickle
import threading
import warnings

import numpy as np
import pytest
import torch

import torchxrayvision as xrv
from support.networks import synthetic
from torchxrayvision.errors import (
    ImageShapeError,
    UnknownNameError,
    UnsupportedImageError,
    XRVWarning,
)
from torchxrayvision.models import (
    DenseNet,
    ResNet,
    get_model,
    load_checkpoint,
    save_checkpoint,
    temporarily_eval,
)

NAN = float("nan")


def small(**options):
    net = synthetic(DenseNet(8, (1, 1, 1, 1), 8, num_classes=4, **options)).eval()
    net.targets, net.weights, net.input_resolution = ["Mass", "Edema", "Hernia", ""], "mine", 64
    return net


def images(count=2, size=64):
    generator = torch.Generator().manual_seed(0)
    return torch.rand((count, 1, size, size), generator=generator) * 2048 - 1024


def test_points_for_some_findings_leave_the_others_in_every_output():
    net = small()
    with pytest.warns(XRVWarning, match="no operating point for Hernia") as caught:
        net.set_operating_points([0.3, 0.6, NAN, NAN])
    assert caught[0].filename == __file__
    assert net.trained == (True, True, True, False)
    found = net.predict(images())
    assert found.kind == "operating-point"
    assert list(found.values) == ["Mass", "Edema", "Hernia"]
    assert found.values["Hernia"].isnan().all()
    assert not found.values["Mass"].isnan().any()
    net.output = "probability"
    assert not net.predict(images()).values["Hernia"].isnan().any()


def test_points_by_name_change_no_other_point():
    net = small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XRVWarning)
        net.set_operating_points({"Edema": 0.5})
        net.set_operating_points({"Mass": 0.25})
    torch.testing.assert_close(net.op_threshs, torch.tensor([0.25, 0.5, NAN, NAN]), equal_nan=True)
    with pytest.raises(UnknownNameError, match="Hernia"):
        net.set_operating_points({"hernia": 0.5})
    with pytest.raises(ValueError, match=r"\(3,\) operating points for 4 outputs"):
        net.set_operating_points([0.1, 0.2, 0.3])


def test_what_was_trained_survives_a_file(tmp_path):
    net = small()
    with pytest.warns(XRVWarning, match="no operating point"):
        net.set_operating_points([0.3, 0.6, NAN, NAN])
    net.untrained = frozenset({"Edema"})
    net.targets[3] = "other"
    # The small network is none that is recognised by its tensors, so one that is carries the facts.
    other = ResNet(num_classes=4, architecture="resnet18-width8")
    other.targets, other.weights, other.input_resolution = net.targets, "mine", 64
    other.op_threshs, other.untrained = net.op_threshs, net.untrained
    other._nan_is_untrained = False
    save_checkpoint(other, tmp_path / "a.safetensors")
    assert load_checkpoint(tmp_path / "a.safetensors").trained == (True, False, True, True)


def test_arrays_and_single_images_are_taken_and_paths_say_what_to_type():
    net = small()
    expected = net(images())
    torch.testing.assert_close(net(images().numpy()), expected)
    torch.testing.assert_close(net(images().double().numpy()), expected)
    read_only = images()[0].numpy().copy()
    read_only.flags.writeable = False
    torch.testing.assert_close(net(read_only), expected[:1])
    for call in (net, net.predict, net.embed):
        with pytest.raises(ImageShapeError, match=r"inference\.predict\('a\.png', model\)"):
            call("a.png")
    with pytest.raises(ImageShapeError, match=r"x\[None, None\]"):
        net(images()[0, 0])
    with pytest.raises(ImageShapeError, match="normalize"):
        net(np.zeros((1, 1, 64, 64), np.uint8))


@pytest.mark.parametrize("points", [None, [0.3, 0.4, 0.5, 0.6]])
def test_outputs_under_autocast_are_computed_in_float32(points):
    net = small(apply_sigmoid=True)
    net.op_threshs = None if points is None else torch.tensor(points)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = net(images())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, net(images()), atol=0.05, rtol=0)


@pytest.mark.parametrize("build", [small, lambda: ResNet(num_classes=2)])
def test_torch_fx_traces_the_whole_classifier(build):
    net = build().eval()
    traced = torch.fx.symbolic_trace(net)
    torch.testing.assert_close(traced(images()), net(images()))
    kind = {"output": "probability"}
    torch.testing.assert_close(traced(images(size=80), **kind), net(images(size=80), **kind))


def test_a_model_that_several_threads_use_comes_back_when_the_last_is_done():
    net = small().train()
    inside, go_on = threading.Barrier(3), [threading.Event(), threading.Event()]
    seen = []

    def use(event):
        with temporarily_eval(net):
            inside.wait()
            event.wait()
            seen.append(any(part.training for part in net.modules()))

    threads = [threading.Thread(target=use, args=[event]) for event in go_on]
    for thread in threads:
        thread.start()
    inside.wait()
    for thread, event in zip(threads, go_on, strict=True):
        event.set()
        thread.join()
    assert seen == [False, False]
    assert all(part.training for part in net.modules())


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: DenseNet(weights="demo"), r"get_model\('demo'\)"),
        (lambda: get_model("jfhealthcare-densenet121"), "whose class is in baseline_models"),
        (lambda: get_model("NIH"), "did you mean 'nih'"),
        (lambda: get_model("nhi"), "did you mean 'nih'"),
        (lambda: DenseNet(weights="rens121-res224-all"), "did you mean 'densenet121-res224-all'"),
    ],
)
def test_misspelt_weights_get_a_suggestion_across_all_names(call, expected):
    with pytest.raises(UnknownNameError, match=expected):
        call()


def test_a_misspelt_class_gets_suggestions_from_all_names_of_its_module():
    with pytest.raises(AttributeError, match=r"did you mean .*CheX_Dataset"):
        xrv.datasets.CheXpert_Dataset  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean DenseNet"):
        xrv.models.Densenet  # noqa: B018


def test_an_unsupported_image_is_not_implemented_as_in_1_5_7():
    error = pickle.loads(pickle.dumps(UnsupportedImageError("a.dcm", "it is in colour")))
    assert isinstance(error, NotImplementedError)
    assert str(error) == "a.dcm: it is in colour"
