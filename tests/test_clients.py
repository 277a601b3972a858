import pytest

from qathelpers.deploy import c, onnx_export
from qathelpers.results import recorded_net
from qathelpers.training import predict
from tools import clients
from tools.client_programs import PROGRAMS

needs_deploy = pytest.mark.skipif(bool(onnx_export.missing()), reason="needs pip install -e '.[deploy]'")


def test_every_client_has_a_program():
    assert {client.program for client in clients.CLIENTS.values()} == {*PROGRAMS, "c"}


@needs_deploy
@pytest.mark.parametrize(
    "title",
    [
        "ONNX Runtime, default",
        pytest.param("C", marks=pytest.mark.skipif(c.compiler() is None, reason="needs a C compiler")),
        pytest.param("qonnx", marks=pytest.mark.slow),
        pytest.param("torch.export", marks=pytest.mark.slow),
    ],
)
def test_a_program_that_is_installed_gives_the_predictions_of_pytorch(title, tiny):
    net, images = recorded_net("TernaryNN", "lenet"), tiny.test_images[:4]
    found = clients.answer(clients.CLIENTS[title], net, images, tiny, {})
    assert found["classes"] == predict(net, images).argmax(1).tolist()


@needs_deploy
def test_a_refusal_and_a_missing_program_are_told_apart(tiny):
    client = clients.CLIENTS["ONNX Runtime, default"]
    refused = clients.answer(client, recorded_net("XnorNN"), tiny.test_images[:2], tiny, {})
    assert clients.summary(refused, [0, 0]) == "refused" and "qonnx" in refused["refused"]
    assert clients.summary({"missing": "No module named 'finn'"}, [0]) == "not installed"
    assert clients.summary({"classes": [1, 2, 3]}, [1, 0, 3]) == "2 of 3"
