"""What gRPC is told before it listens, and what becomes of an error."""

import asyncio
import types
from unittest import mock

import pytest

from tf_detreg.serving.settings import Settings

grpc_api = pytest.importorskip("tf_detreg.serving.grpc_api")


def test_two_servers_do_not_share_a_port_of_grpc():
    options = dict(grpc_api._options(Settings(max_body=123, header_timeout=1.5, poll=0)))
    assert options["grpc.so_reuseport"] == 0
    assert options["grpc.max_receive_message_length"] == 123 and options["grpc.server_handshake_timeout_ms"] == 1500
    assert options["grpc.max_metadata_size"] == options["grpc.absolute_max_metadata_size"] > 0


def test_an_error_that_nobody_expected_is_logged_and_not_told(caplog):
    class Aborted(Exception):
        """In place of what gRPC raises."""

    class Context:
        async def abort(self, code, text):
            raise Aborted(code.name, text)

    async def work():
        raise RuntimeError("a secret")

    predictor = types.SimpleNamespace(settings=types.SimpleNamespace(timeout=60.0), metrics=mock.Mock())
    with pytest.raises(Aborted) as caught:
        asyncio.run(grpc_api._Service(predictor)._answer(Context(), "Predict", work))
    assert caught.value.args[0] == "INTERNAL" and "secret" not in caught.value.args[1]
    assert "Predict failed" in caplog.text and "a secret" in caplog.text
    predictor.metrics.requests.labels.assert_called_once_with("Predict", "INTERNAL")
