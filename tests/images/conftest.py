import pytest

from tests.pictures import encode


@pytest.fixture(scope="session", name="encode")
def encode_fixture():
    """`encode(image, format, **options)`: the bytes of an image file."""
    return encode
